// The document's layer at the picture's own resolution: its numbers, and a canvas with the same for drawing.

import { TILE, meet, rect } from "./raster.js";

// channels: 1 for a mask, 255 meaning "regenerate here"; 4 for colours with alpha.
export class Layer {
  constructor(width, height, channels, colour = [0, 0, 0]) {
    Object.assign(this, { width, height, channels, colour });
    this.data = new Uint8ClampedArray(width * height * channels);
    this.canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.pixels = this.canvas.getContext("2d");
    this.columns = Math.ceil(width / TILE);
    this.rows = Math.ceil(height / TILE);
  }

  get bounds() {
    return rect(0, 0, this.width, this.height);
  }

  tileBounds(index) {
    const [x, y] = [(index % this.columns) * TILE, Math.floor(index / this.columns) * TILE];
    return rect(x, y, Math.min(x + TILE, this.width), Math.min(y + TILE, this.height));
  }

  * tilesIn(area) {
    const inside = meet(area, this.bounds);
    for (let row = Math.floor(inside.y1 / TILE); row * TILE < inside.y2; row++) {
      for (let column = Math.floor(inside.x1 / TILE); column * TILE < inside.x2; column++) {
        if (row >= 0 && column >= 0) yield row * this.columns + column;
      }
    }
  }

  // Read and write the numbers of a tile, row by row.
  read(index) {
    const { x1, y1, x2, y2 } = this.tileBounds(index);
    const length = (x2 - x1) * this.channels;
    const tile = new Uint8ClampedArray(length * (y2 - y1));
    for (let y = y1; y < y2; y++) {
      const from = (y * this.width + x1) * this.channels;
      tile.set(this.data.subarray(from, from + length), (y - y1) * length);
    }
    return tile;
  }

  write(index, tile) {
    const { x1, y1, x2, y2 } = this.tileBounds(index);
    const length = (x2 - x1) * this.channels;
    for (let y = y1; y < y2; y++) {
      this.data.set(tile.subarray((y - y1) * length, (y - y1 + 1) * length), (y * this.width + x1) * this.channels);
    }
  }

  // Update the canvas from the numbers.
  show(area) {
    for (const index of this.tilesIn(area)) {
      const { x1, y1, x2, y2 } = meet(area, this.tileBounds(index));
      if (x2 <= x1 || y2 <= y1) continue;
      const image = new ImageData(x2 - x1, y2 - y1);
      const shown = new Uint32Array(image.data.buffer);
      if (this.channels === 1) {
        const [red, green, blue] = this.colour;
        const plain = red | (green << 8) | (blue << 16);
        for (let y = y1, to = 0; y < y2; y++) {
          for (let from = y * this.width + x1, end = from + x2 - x1; from < end; from++, to++) shown[to] = plain | (this.data[from] << 24);
        }
      } else {
        const from = new Uint32Array(this.data.buffer);
        for (let y = y1; y < y2; y++) {
          shown.set(from.subarray(y * this.width + x1, y * this.width + x2), (y - y1) * (x2 - x1));
        }
      }
      this.pixels.putImageData(image, x1, y1);
    }
  }

  recolour(colour) {
    this.colour = colour;
    this.pixels.save();
    this.pixels.globalCompositeOperation = "source-in";
    this.pixels.fillStyle = `rgb(${colour.join(" ")})`;
    this.pixels.fillRect(0, 0, this.width, this.height);
    this.pixels.restore();
  }

  get blank() {
    const numbers = new Uint32Array(this.data.buffer, 0, this.data.length >> 2);
    return numbers.every((value) => value === 0) && this.data.subarray(numbers.length * 4).every((value) => value === 0);
  }

  // Free the memory now rather than at the next garbage collection.
  close() {
    this.canvas.width = this.canvas.height = 0;
    this.data = new Uint8ClampedArray(0);
  }
}

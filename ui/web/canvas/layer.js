// The document's layer: its numbers, at the picture's own resolution.

import { TILE, meet, rect } from "./raster.js";
import { Rendering } from "./rendering.js";

// channels: 1 for a mask, 255 meaning "regenerate here"; 4 for colours with alpha.
export class Layer {
  constructor(width, height, channels, colour = [0, 0, 0]) {
    Object.assign(this, { width, height, channels, colour });
    this.data = new Uint8ClampedArray(width * height * channels);
    this.rendering = new Rendering(this); // what the view draws of it
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

  // The numbers of a tile, row by row, and back.
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

  get blank() {
    const numbers = new Uint32Array(this.data.buffer, 0, this.data.length >> 2);
    return numbers.every((value) => value === 0) && this.data.subarray(numbers.length * 4).every((value) => value === 0);
  }

  close() {
    this.rendering.close();
    this.data = new Uint8ClampedArray(0);
  }
}

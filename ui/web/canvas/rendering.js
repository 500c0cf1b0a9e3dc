// The layer as the view draws it: a canvas with the visible part, no finer than the screen. So a large picture's layer needs
// little more memory than the screen, and thin lines stay visible when zoomed out.

import { isEmpty, meet, rect } from "./raster.js";

const WHOLE = 2 ** 22; // pixels up to which the canvas holds all of the layer
const ROWS = 256; // of the canvas that are computed at a time

export class Rendering {
  // Empty until fit() is called.
  constructor(layer) {
    const canvas = Object.assign(document.createElement("canvas"), { width: 0, height: 0 });
    Object.assign(this, { layer, canvas, pen: canvas.getContext("2d"), halvings: 0, area: rect(0, 0, 0, 0) });
  }

  // Pixels of the layer per pixel of the canvas, each way.
  get step() {
    return 2 ** this.halvings;
  }

  // Make it fine enough for `scale` device pixels per layer pixel, and large enough for the visible area.
  fit(scale, seen) {
    const halvings = Math.max(0, Math.floor(-Math.log2(scale)));
    const needed = meet(seen, this.layer.bounds);
    if (isEmpty(needed) || (halvings === this.halvings && holds(this.area, needed))) return;
    this.halvings = halvings;
    this.area = this.around(needed);
    const { step, area: { x1, y1, x2, y2 } } = this;
    Object.assign(this.canvas, { width: Math.ceil((x2 - x1) / step), height: Math.ceil((y2 - y1) / step) });
    this.update(this.area);
  }

  // The whole layer, or the visible area with half its size more on each side, so that not every pan computes it anew.
  around({ x1, y1, x2, y2 }) {
    const { step, layer: { width, height, bounds } } = this;
    if ((width / step) * (height / step) <= WHOLE) return bounds;
    const [dx, dy] = [(x2 - x1) / 2, (y2 - y1) / 2];
    const down = (at) => Math.floor(at / step) * step, up = (at) => Math.ceil(at / step) * step;
    return meet(rect(down(x1 - dx), down(y1 - dy), up(x2 + dx), up(y2 + dy)), bounds);
  }

  // The layer's numbers have changed in an area.
  update(changed) {
    const { layer, step, halvings, area, pen } = this;
    const part = meet(changed, area);
    if (isEmpty(part)) return;
    const [left, right] = [Math.floor((part.x1 - area.x1) / step), Math.ceil((part.x2 - area.x1) / step)];
    const [top, bottom] = [Math.floor((part.y1 - area.y1) / step), Math.ceil((part.y2 - area.y1) / step)];
    for (let y = top; y < bottom; y += ROWS) {
      const image = new ImageData(right - left, Math.min(ROWS, bottom - y));
      const [x1, y1] = [area.x1 + left * step, area.y1 + y * step];
      const from = meet(rect(x1, y1, x1 + image.width * step, y1 + image.height * step), layer.bounds);
      (layer.channels === 1 ? veil : colours)(layer, from, halvings, image);
      pen.putImageData(image, left, y);
    }
  }

  // Draw it onto a canvas, with the layer's corner at (x, y).
  draw(onto, scale, x, y) {
    const { canvas, step, area: { x1, y1, x2, y2 } } = this;
    if (!canvas.width) return;
    const [width, height] = [x2 - x1, y2 - y1]; // the last pixels may stand for fewer than step
    onto.drawImage(canvas, 0, 0, width / step, height / step, x1 * scale + x, y1 * scale + y, width * scale, height * scale);
  }

  // Free the memory now rather than at the next garbage collection.
  close() {
    this.canvas.width = this.canvas.height = 0;
    this.area = rect(0, 0, 0, 0);
  }
}

const holds = (outer, inner) => outer.x1 <= inner.x1 && outer.y1 <= inner.y1 && outer.x2 >= inner.x2 && outer.y2 >= inner.y2;

// Averages the layer into `image`: calls add(sums, at, column) for each layer pixel, then set(sums, column, count, to) for each
// image pixel.
function average({ width }, { x1, y1, x2, y2 }, halvings, image, sums, add, set) {
  const step = 2 ** halvings;
  for (let row = 0; row < image.height; row++) {
    const [top, bottom] = [y1 + row * step, Math.min(y1 + (row + 1) * step, y2)];
    sums.fill(0);
    for (let y = top; y < bottom; y++) {
      for (let at = y * width + x1, end = y * width + x2, x = 0; at < end; at++, x++) add(sums, at, x >> halvings);
    }
    for (let column = 0; column < image.width; column++) {
      set(sums, column, (bottom - top) * Math.min(step, x2 - x1 - column * step), row * image.width + column);
    }
  }
}

// A mask: its colour, with the numbers as alpha.
function veil(layer, from, halvings, image) {
  const { data, colour: [red, green, blue] } = layer;
  const plain = red | (green << 8) | (blue << 16);
  const shown = new Uint32Array(image.data.buffer);
  average(layer, from, halvings, image, new Uint32Array(image.width),
    (sums, at, column) => { sums[column] += data[at]; },
    (sums, column, count, to) => { shown[to] = plain | (Math.round(sums[column] / count) << 24); });
}

// Colours, weighted by their alpha.
function colours(layer, from, halvings, image) {
  const pixels = new Uint32Array(layer.data.buffer);
  const shown = image.data;
  average(layer, from, halvings, image, new Float64Array(4 * image.width), (sums, at, column) => {
    const pixel = pixels[at];
    if (!pixel) return;
    const alpha = pixel >>> 24;
    sums[4 * column] += (pixel & 255) * alpha;
    sums[4 * column + 1] += ((pixel >> 8) & 255) * alpha;
    sums[4 * column + 2] += ((pixel >> 16) & 255) * alpha;
    sums[4 * column + 3] += alpha;
  }, (sums, column, count, to) => {
    const alpha = sums[4 * column + 3];
    for (let i = 0; i < 3; i++) shown[4 * to + i] = alpha ? sums[4 * column + i] / alpha : 0; // a clamped array rounds
    shown[4 * to + 3] = alpha / count;
  });
}

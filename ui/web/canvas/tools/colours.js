// Selects by colour: the connected area around the clicked point, or every pixel of that colour.

import { rect } from "../raster.js";

// An array with 255 where all channels are within `tolerance` of those at (x, y); touching: only if connected to it.
export function select(pixels, width, height, { x, y }, { tolerance, touching }) {
  const selected = new Uint8Array(width * height);
  const start = (Math.floor(y) * width + Math.floor(x)) * 4;
  const [red, green, blue, alpha] = pixels.subarray(start, start + 4);
  const alike = (at) => Math.abs(pixels[at * 4] - red) <= tolerance && Math.abs(pixels[at * 4 + 1] - green) <= tolerance
    && Math.abs(pixels[at * 4 + 2] - blue) <= tolerance && Math.abs(pixels[at * 4 + 3] - alpha) <= tolerance;
  if (!touching) {
    for (let at = 0; at < selected.length; at++) if (alike(at)) selected[at] = 255;
    return selected;
  }
  const waiting = [start / 4];
  while (waiting.length) { // row by row, a run of pixels at a time
    let at = waiting.pop();
    if (selected[at]) continue;
    const row = at - (at % width);
    while (at > row && !selected[at - 1] && alike(at - 1)) at--;
    let [above, below] = [false, false];
    for (; at < row + width && !selected[at] && alike(at); at++) {
      selected[at] = 255;
      const up = at >= width && !selected[at - width] && alike(at - width);
      const down = at + width < selected.length && !selected[at + width] && alike(at + width);
      if (up && !above) waiting.push(at - width);
      if (down && !below) waiting.push(at + width);
      [above, below] = [up, down];
    }
  }
  return selected;
}

export class ColourSelect {
  constructor({ document, settings }, { name, touching }) {
    Object.assign(this, { document, settings, name, touching, last: null });
    settings.addEventListener("change", ({ detail }) => detail === "tolerance" && this.again());
  }

  down(point, { erase = false, alt = false } = {}) {
    const { picture } = this.document;
    if (point.x < 0 || point.y < 0 || point.x >= picture.width || point.y >= picture.height) return;
    this.last = { point, takes: erase || alt || this.settings.get("takes") };
    this.select();
  }

  move() {}

  up() {}

  cancel() {}

  // The tolerance can be changed until something else happens.
  again() {
    if (!this.last || this.last.version !== this.document.version) return;
    if (this.last.changed) this.document.undo();
    this.select();
  }

  select() {
    const { document, document: { layer }, settings, last } = this;
    const selected = select(document.pixels(), layer.width, layer.height, last.point, { tolerance: settings.get("tolerance"), touching: this.touching });
    const before = document.version;
    const edit = document.begin({ value: last.takes ? 0 : 255, erase: last.takes, strength: settings.get("opacity"), colour: settings.ink });
    edit.fill(boundsOf(selected, layer.width, layer.height), selected);
    document.commit();
    last.changed = document.version !== before;
    last.version = document.version;
  }

  leave() {
    this.last = null;
    this.document.forgetPixels();
  }
}

// The bounding box of everything that is not 0.
export function boundsOf(numbers, width, height) {
  let [x1, y1, x2, y2] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) {
    const row = numbers.subarray(y * width, (y + 1) * width);
    const first = row.findIndex(Boolean);
    if (first < 0) continue;
    x1 = Math.min(x1, first);
    x2 = Math.max(x2, row.findLastIndex(Boolean) + 1);
    y1 = Math.min(y1, y);
    y2 = y + 1;
  }
  return rect(x1, y1, x2, y2);
}

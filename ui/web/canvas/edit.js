// An undo step in the making: its coverage so far, applied to the layer as it was before.

import { TILE, around, isEmpty, join, meet, reachOf, sweep } from "./raster.js";

// paint: how covered pixels change: {value, strength} for a mask, {colour, strength} or {erase, strength} for colours.
export class Edit {
  constructor(layer, paint, changed) {
    Object.assign(this, { layer, paint, changed });
    this.tiles = new Map();
  }

  tile(index) {
    let tile = this.tiles.get(index);
    if (!tile) {
      const before = this.layer.read(index);
      tile = { bounds: this.layer.tileBounds(index), before, cover: new Uint8Array(before.length / this.layer.channels) };
      this.tiles.set(index, tile);
    }
    return tile;
  }

  // Paint with a brush from a to b, each {x, y, radius}.
  stroke(a, b, hardness) {
    const reach = Math.max(reachOf(a.radius, hardness), reachOf(b.radius, hardness));
    this.cover(around([a, b], reach), ({ cover, bounds }, part) => sweep(cover, bounds.x1, bounds.y1, bounds.x2 - bounds.x1, part, a, b, hardness));
  }

  // Cover the path drawn by trace(pen), each pixel by the share of it that lies inside.
  trace(area, trace) {
    const scratch = new OffscreenCanvas(TILE, TILE);
    const pen = scratch.getContext("2d", { willReadFrequently: true });
    this.cover(area, ({ cover, bounds }, part) => {
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, TILE, TILE);
      pen.translate(-bounds.x1, -bounds.y1);
      pen.beginPath();
      trace(pen);
      pen.fill();
      const width = bounds.x2 - bounds.x1;
      const inside = pen.getImageData(0, 0, width, bounds.y2 - bounds.y1).data;
      for (let at = 0; at < cover.length; at++) cover[at] = Math.max(cover[at], inside[4 * at + 3]);
    });
  }

  // Cover by an array for the whole layer, or for a part of it.
  fill(area, numbers, from = this.layer.bounds) {
    const width = from.x2 - from.x1;
    this.cover(area, ({ cover, bounds }, part) => {
      for (let y = part.y1; y < part.y2; y++) {
        const to = (y - bounds.y1) * (bounds.x2 - bounds.x1) - bounds.x1;
        const at = (y - from.y1) * width - from.x1;
        for (let x = part.x1; x < part.x2; x++) cover[to + x] = Math.max(cover[to + x], numbers[at + x]);
      }
    });
  }

  cover(asked, raise) {
    const area = meet(asked, this.layer.bounds);
    if (isEmpty(area)) return;
    for (const index of this.layer.tilesIn(area)) {
      const tile = this.tile(index);
      const part = meet(area, tile.bounds);
      raise(tile, part);
      this.blend(tile, part);
    }
    this.changed(area);
  }

  blend({ bounds, before, cover }, part) {
    const { data, width, channels } = this.layer;
    const { value = 255, strength = 1, colour, erase } = this.paint;
    for (let y = part.y1; y < part.y2; y++) {
      let from = (y - bounds.y1) * (bounds.x2 - bounds.x1) + part.x1 - bounds.x1;
      let to = y * width + part.x1;
      for (let x = part.x1; x < part.x2; x++, from++, to++) {
        const share = (cover[from] * strength) / 255;
        if (channels === 1) {
          data[to] = before[from] + (value - before[from]) * share; // a clamped array rounds
        } else {
          over(data, to * 4, before, from * 4, colour, erase, share);
        }
      }
    }
  }

  // Set the numbers of an area directly, row by row.
  put(area, numbers) {
    const [width, { channels }] = [area.x2 - area.x1, this.layer];
    for (const index of this.layer.tilesIn(area)) {
      const { bounds } = this.tile(index);
      const part = meet(area, bounds);
      for (let y = part.y1; y < part.y2; y++) {
        const from = ((y - area.y1) * width + part.x1 - area.x1) * channels;
        this.layer.data.set(numbers.subarray(from, from + (part.x2 - part.x1) * channels), (y * this.layer.width + part.x1) * channels);
      }
    }
    this.changed(area);
  }

  // Whether anything has changed.
  get changes() {
    return [...this.tiles].filter(([index, { before }]) => {
      const now = this.layer.read(index);
      return before.some((value, i) => value !== now[i]);
    }).map(([index, { before }]) => [index, before]);
  }

  cancel() {
    let area = null;
    for (const [index, { before, bounds }] of this.tiles) {
      this.layer.write(index, before);
      area = join(area, bounds);
    }
    this.tiles.clear();
    if (area) this.changed(area);
  }
}

function over(data, to, before, from, colour, erase, share) {
  const alpha = before[from + 3] / 255;
  if (erase) {
    data.set(before.subarray(from, from + 3), to);
    data[to + 3] = before[from + 3] * (1 - share);
    return;
  }
  const result = share + alpha * (1 - share);
  for (let i = 0; i < 3; i++) data[to + i] = result ? (colour[i] * share + before[from + i] * alpha * (1 - share)) / result : 0;
  data[to + 3] = result * 255;
}

// Coverage on the pixel grid: how much of each pixel a stroke covers, 0 to 255. Pixel (x, y) spans x to x + 1.

export const TILE = 256; // pixels a side of a tile, the unit of change, undo and drawing

export const rect = (x1, y1, x2, y2) => ({ x1, y1, x2, y2 });
export const isEmpty = ({ x1, y1, x2, y2 }) => x2 <= x1 || y2 <= y1;
export const meet = (a, b) => rect(Math.max(a.x1, b.x1), Math.max(a.y1, b.y1), Math.min(a.x2, b.x2), Math.min(a.y2, b.y2));
export const join = (a, b) => (!a ? b : !b ? a
  : rect(Math.min(a.x1, b.x1), Math.min(a.y1, b.y1), Math.max(a.x2, b.x2), Math.max(a.y2, b.y2)));
export const around = (points, reach) => rect(
  Math.floor(Math.min(...points.map((p) => p.x)) - reach), Math.floor(Math.min(...points.map((p) => p.y)) - reach),
  Math.ceil(Math.max(...points.map((p) => p.x)) + reach), Math.ceil(Math.max(...points.map((p) => p.y)) + reach));

// Coverage is one half at `radius` and falls off over `ramp` pixels; over one for a hard brush.
export const rampOf = (radius, hardness) => Math.max(1, radius * (1 - hardness));
export const reachOf = (radius, hardness) => radius + rampOf(radius, hardness) / 2 + 1;

const STEPS = 1024;
const FALLOFF = Uint8Array.from({ length: STEPS + 1 }, (_, i) => Math.round(255 * (i / STEPS) ** 2 * (3 - (2 * i) / STEPS)));

// Raise `cover`, of a tile at (left, top), `stride` wide, to the brush's coverage from a to b, each {x, y, radius}.
export function sweep(cover, left, top, stride, area, a, b, hardness) {
  const [dx, dy, dr] = [b.x - a.x, b.y - a.y, b.radius - a.radius];
  const length = dx * dx + dy * dy;
  for (let y = area.y1; y < area.y2; y++) {
    const py = y + 0.5 - a.y;
    let at = (y - top) * stride + area.x1 - left;
    for (let x = area.x1; x < area.x2; x++, at++) {
      if (cover[at] === 255) continue;
      const px = x + 0.5 - a.x;
      const t = length ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
      const [ex, ey, radius] = [px - t * dx, py - t * dy, a.radius + t * dr];
      const ramp = Math.max(1, radius * (1 - hardness));
      const share = (radius - Math.sqrt(ex * ex + ey * ey)) / ramp + 0.5;
      if (share <= 0) continue;
      const value = share >= 1 ? 255 : FALLOFF[Math.round(share * STEPS)];
      if (value > cover[at]) cover[at] = value;
    }
  }
}

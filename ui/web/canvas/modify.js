// Grows, shrinks, feathers or smooths the whole mask: computed around what is masked, previewed, then applied.

import { rect, meet } from "./raster.js";
import { boundsOf } from "./tools/colours.js";

const HALF = 128; // from this value on a pixel counts as masked
const FAR = 1e9;

// --- distances

// Squared distances along one line, by the lower envelope of parabolas (Felzenszwalb and Huttenlocher).
function line(f, n, d, v, z) {
  let k = 0;
  v[0] = 0;
  z[0] = -Infinity;
  z[1] = Infinity;
  for (let q = 1; q < n; q++) {
    let s = (f[q] + q * q - (f[v[k]] + v[k] * v[k])) / (2 * q - 2 * v[k]);
    while (s <= z[k]) {
      k--;
      s = (f[q] + q * q - (f[v[k]] + v[k] * v[k])) / (2 * q - 2 * v[k]);
    }
    v[++k] = q;
    z[k] = s;
    z[k + 1] = Infinity;
  }
  k = 0;
  for (let q = 0; q < n; q++) {
    while (z[k + 1] < q) k++;
    d[q] = (q - v[k]) ** 2 + f[v[k]];
  }
}

// The distance from each pixel's centre to that of the nearest `wanted` pixel.
export function distances(wanted, width, height) {
  const field = new Float32Array(width * height);
  const most = Math.max(width, height);
  const [f, d, v, z] = [new Float64Array(most), new Float64Array(most), new Int32Array(most), new Float64Array(most + 1)];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) f[y] = wanted(y * width + x) ? 0 : FAR;
    line(f, height, d, v, z);
    for (let y = 0; y < height; y++) field[y * width + x] = d[y];
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) f[x] = field[y * width + x];
    line(f, width, d, v, z);
    for (let x = 0; x < width; x++) field[y * width + x] = Math.sqrt(d[x]);
  }
  return field;
}

// --- softness

// A Gaussian approximated by three box blurs whose variances add up to its own; edges are replicated.
export function blurred(numbers, width, height, sigma) {
  let [from, to] = [Float32Array.from(numbers), new Float32Array(numbers.length)];
  for (const radius of means(sigma)) {
    for (const [count, length, step, stride] of [[height, width, 1, width], [width, height, width, 1]]) {
      for (let i = 0; i < count; i++) mean(from, to, i * stride, length, step, radius);
      [from, to] = [to, from];
    }
  }
  return from;
}

export function means(sigma) {
  const ideal = Math.sqrt(4 * sigma * sigma + 1);
  const low = Math.floor(ideal) - (Math.floor(ideal) % 2 ? 0 : 1);
  const lows = Math.round((12 * sigma * sigma - 3 * low * low - 12 * low - 9) / (-4 * low - 4));
  return [0, 1, 2].map((i) => ((i < lows ? low : low + 2) - 1) / 2);
}

function mean(from, to, start, length, step, radius) {
  const at = (i) => from[start + Math.min(Math.max(i, 0), length - 1) * step];
  let sum = 0;
  for (let i = -radius; i <= radius; i++) sum += at(i);
  for (let i = 0; i < length; i++) {
    to[start + i * step] = sum / (2 * radius + 1);
    sum += at(i + radius + 1) - at(i - radius);
  }
}

// --- the changes

const clamp = (value) => Math.min(Math.max(value, 0), 1);

export const CHANGES = {
  grow: (numbers, w, h, amount, field) => numbers.map((value, i) => Math.max(value, 255 * clamp(amount - field("masked")[i] + 0.5))),
  shrink: (numbers, w, h, amount, field) => numbers.map((value, i) => Math.min(value, 255 * clamp(field("free")[i] - amount + 0.5))),
  feather: (numbers, w, h, amount) => Uint8ClampedArray.from(blurred(numbers, w, h, amount)),
  // blurred, with the edge then made as steep as a hard brush's
  smooth: (numbers, w, h, amount) => Uint8ClampedArray.from(blurred(numbers, w, h, amount), (value) =>
    127.5 + (value - 127.5) * Math.max(1, amount * Math.sqrt(2 * Math.PI))),
};

export const MOST = 128; // pixels

// A change of the mask in progress; each preview replaces the last.
export class Modify {
  constructor(document) {
    this.document = document;
    const { layer: mask } = document;
    const around = boundsOf(mask.data, mask.width, mask.height);
    const reach = 3 * MOST;
    this.area = meet(rect(around.x1 - reach, around.y1 - reach, around.x2 + reach, around.y2 + reach), mask.bounds);
    this.width = Math.max(this.area.x2 - this.area.x1, 0);
    this.height = Math.max(this.area.y2 - this.area.y1, 0);
    this.numbers = cut(mask, this.area);
    this.fields = {};
    this.field = this.field.bind(this);
  }

  field(of) {
    const { numbers, width, height } = this;
    return (this.fields[of] ??= distances(of === "masked" ? (i) => numbers[i] >= HALF : (i) => numbers[i] < HALF, width, height));
  }

  preview(kind, amount) {
    this.document.cancel();
    if (!this.numbers.length || amount <= 0) return;
    const changed = CHANGES[kind](this.numbers, this.width, this.height, amount, this.field);
    this.document.begin({}).put(this.area, changed);
  }

  apply() {
    this.document.commit();
  }

  cancel() {
    this.document.cancel();
  }
}

function cut(layer, area) {
  const width = Math.max(area.x2 - area.x1, 0);
  const numbers = new Uint8ClampedArray(width * Math.max(area.y2 - area.y1, 0));
  for (let y = area.y1; y < area.y2; y++) {
    const from = y * layer.width + area.x1;
    numbers.set(layer.data.subarray(from, from + width), (y - area.y1) * width);
  }
  return numbers;
}

// Fill holes in place: unmasked pixels that cannot be reached from the picture's edge.
export function fillHoles(numbers, width, height) {
  const reached = new Uint8Array(numbers.length);
  const waiting = [];
  const visit = (at) => {
    if (reached[at] || numbers[at] >= HALF) return;
    reached[at] = 1;
    waiting.push(at);
  };
  for (let x = 0; x < width; x++) [x, (height - 1) * width + x].forEach(visit);
  for (let y = 0; y < height; y++) [y * width, y * width + width - 1].forEach(visit);
  while (waiting.length) {
    const at = waiting.pop();
    const x = at % width;
    if (x > 0) visit(at - 1);
    if (x < width - 1) visit(at + 1);
    if (at >= width) visit(at - width);
    if (at + width < numbers.length) visit(at + width);
  }
  for (let at = 0; at < numbers.length; at++) if (!reached[at]) numbers[at] = 255;
}

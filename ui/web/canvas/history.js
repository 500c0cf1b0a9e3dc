// Undo and redo by tiles: each step keeps its changed tiles as they were, compressed, within a limit of bytes and steps.

const STEPS = 200;
const BYTES = 128 * 2 ** 20;
const LONGEST = 65535;

// Run-length encoding: a mask's tiles become a few hundred bytes. Tiles that do not shrink are kept as they are.
export function pack(tile, channels) {
  const values = channels === 4 ? new Uint32Array(tile.buffer) : tile;
  const counts = new Uint16Array(values.length >> 2);
  const runs = new values.constructor(values.length >> 2);
  let used = 0;
  for (let at = 0; at < values.length; used++) {
    if (used === runs.length) return { tile, bytes: tile.byteLength };
    const value = values[at];
    let end = at + 1;
    while (end < values.length && values[end] === value && end - at < LONGEST) end++;
    [counts[used], runs[used]] = [end - at, value];
    at = end;
  }
  const packed = { counts: counts.slice(0, used), runs: runs.slice(0, used), length: values.length };
  return { ...packed, bytes: packed.counts.byteLength + packed.runs.byteLength };
}

export function unpack({ tile, counts, runs, length }) {
  if (tile) return tile;
  const values = new runs.constructor(length);
  for (let i = 0, at = 0; i < runs.length; at += counts[i], i++) values.fill(runs[i], at, at + counts[i]);
  return new Uint8ClampedArray(values.buffer);
}

export class History {
  constructor() {
    this.past = [];
    this.future = [];
  }

  get bytes() {
    return [...this.past, ...this.future].reduce((sum, step) => sum + step.bytes, 0);
  }

  // tiles: [index, numbers before] pairs; version: the one before.
  add(layer, tiles, version) {
    this.push(step(layer, tiles, version));
  }

  // Called before another picture replaces this one. state: what restores it, {bytes, …}.
  addState(state) {
    this.push({ state, bytes: state.bytes });
  }

  push(last) {
    this.future = [];
    this.past.push(last);
    while (this.past.length > STEPS || (this.past.length > 1 && this.bytes > BYTES)) this.past.shift();
  }

  // version: the present one.
  undo(layer, version) {
    return swap(this.past, this.future, layer, version);
  }

  redo(layer, version) {
    return swap(this.future, this.past, layer, version);
  }

  // What the next undo or redo does.
  next(way) {
    return (way === "undo" ? this.past : this.future).at(-1);
  }

  // For a step that replaced the picture: the old one is shown again; state: restores the one that it replaces.
  pass(way, state) {
    const [from, to] = way === "undo" ? [this.past, this.future] : [this.future, this.past];
    from.pop();
    to.push({ state, bytes: state.bytes });
  }
}

function step(layer, tiles, version) {
  const packed = tiles.map(([index, tile]) => [index, pack(tile, layer.channels)]);
  return { version, tiles: packed, bytes: packed.reduce((sum, [, { bytes }]) => sum + bytes, 0) };
}

// Apply the newest step of one stack, and push its inverse onto the other; returns the changed tiles and the version.
function swap(from, to, layer, now) {
  const last = from.pop();
  if (!last) return null;
  const { tiles, version } = last;
  to.push(step(layer, tiles.map(([index]) => [index, layer.read(index)]), now));
  for (const [index, packed] of tiles) layer.write(index, unpack(packed));
  return { version, changed: tiles.map(([index]) => index) };
}

// Undo and redo by tiles: each step keeps its changed tiles as they were, compressed, within a limit of bytes and steps.

const STEPS = 200;
const BYTES = 128 * 2 ** 20;
const SHORT = 3; // equal values; fewer are not stored as a run
const DIFFERING = 0x8000; // marks a count of values that differ
const LONGEST = DIFFERING - 1;

// Run-length encoding, with differing values between the runs stored as they are: a mask's tiles become a few hundred bytes,
// with soft edges a few thousand. Tiles that do not shrink are kept unpacked.
export function pack(tile, channels) {
  const values = channels === 4 ? new Uint32Array(tile.buffer) : tile;
  const { length } = values;
  const counts = new Uint16Array((length >> 1) + 2);
  const kept = new values.constructor(length);
  let [used, size] = [0, 0];
  for (let at = 0; at < length; used++) {
    let end = endOfRun(values, at);
    if (end - at >= SHORT) {
      [counts[used], kept[size++]] = [end - at, values[at]];
    } else {
      const from = at;
      while (end < length && end - from < LONGEST - SHORT) {
        const next = endOfRun(values, end);
        if (next - end >= SHORT) break;
        end = next;
      }
      counts[used] = DIFFERING | (end - from);
      kept.set(values.subarray(from, end), size);
      size += end - from;
    }
    at = end;
  }
  const packed = { counts: counts.slice(0, used), kept: kept.slice(0, size), length };
  const bytes = packed.counts.byteLength + packed.kept.byteLength;
  return bytes < tile.byteLength ? { ...packed, bytes } : { tile, bytes: tile.byteLength };
}

function endOfRun(values, at) {
  const most = Math.min(at + LONGEST, values.length);
  let end = at + 1;
  while (end < most && values[end] === values[at]) end++;
  return end;
}

export function unpack({ tile, counts, kept, length }) {
  if (tile) return tile;
  const values = new kept.constructor(length);
  let [from, to] = [0, 0];
  for (const count of counts) {
    const number = count & LONGEST;
    if (count & DIFFERING) values.set(kept.subarray(from, from += number), to);
    else values.fill(kept[from++], to, to + number);
    to += number;
  }
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

  // Numbers of the layer were replaced, as if they had always been there: the nearest steps take the tiles along.
  // tiles: [index, numbers before] each.
  rebase(layer, tiles) {
    for (const near of [this.past.at(-1), this.future.at(-1)]) {
      if (!near?.tiles) continue;
      const known = new Set(near.tiles.map(([index]) => index));
      const more = step(layer, tiles.filter(([index]) => !known.has(index)));
      near.tiles.push(...more.tiles);
      near.bytes += more.bytes;
    }
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

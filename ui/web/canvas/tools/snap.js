// A snapping lasso: between clicks it follows the picture's edges, which the server finds while the pointer moves.

import { say } from "../text.js";
import { Polygon } from "./shapes.js";

const REACH = 8; // CSS pixels around the pointer within which it snaps to an edge
const MOST_REACH = 64; // picture pixels

const pair = ({ x, y }) => [x, y];
const point = ([x, y]) => ({ x, y });

export class SnapLasso extends Polygon {
  constructor(parts, how) {
    super(parts, how);
    Object.assign(this, { selections: parts.selections, note: parts.note });
    this.reset();
  }

  // paths[i]: from points[i] to points[i + 1]; wire: from the last point to the pointer.
  reset() {
    Object.assign(this, { paths: [], wire: null, turn: Promise.resolve(), waiting: 0, run: Symbol("of this outline"), following: false });
  }

  get reach() {
    return Math.min((REACH * this.view.ratio) / this.view.scale, MOST_REACH);
  }

  down(at, how = {}) {
    if (!this.open) {
      this.begin(at, how);
      this.reset();
      return this.settle(0, at, at);
    }
    const [first, last] = [this.points[0], this.points.at(-1)];
    if (this.points.length > 2 && (this.near(at, first) || this.near(at, last))) return this.close();
    if (this.near(at, last)) return;
    this.points.push(at);
    this.paths.push([last, at]);
    this.wire = null;
    if (!how.joined) this.settle(this.points.length - 1, null, at);
    this.redraw();
  }

  // Snap a corner to a nearby edge, and the path to it along the edge; in order, as each begins where the last one ends.
  settle(index, from, to) {
    const { run } = this;
    this.waiting++;
    this.turn = this.turn.then(async () => {
      if (this.run !== run || index >= this.points.length) return;
      const path = await this.follow(from ?? this.points[index - 1], to, this.reach);
      if (!path || this.run !== run || index >= this.points.length) return;
      this.points[index] = path.at(-1);
      if (index) this.paths[index - 1] = path;
      this.redraw();
    }).finally(() => { if (this.run === run) this.waiting--; });
  }

  async follow(from, to, reach) {
    try {
      const found = await this.selections.ask({ tool: "edge", points: [pair(from), pair(to)], reach });
      return found?.path.map(point);
    } catch (error) {
      this.note(say(error.message));
      return null;
    }
  }

  hover(at) {
    if (!this.open || this.closing) return;
    this.next = at;
    if (!this.following) this.followPointer();
    this.redraw();
  }

  // As fast as answers arrive, always to the latest position of the pointer.
  async followPointer() {
    const { run } = this;
    this.following = true;
    while (this.next && this.run === run && !this.closing) {
      if (this.waiting) await this.turn;
      const [to, count] = [this.next, this.points.length];
      if (!to || this.run !== run) break;
      const path = await this.follow(this.points.at(-1), to, this.reach);
      if (this.run !== run) return;
      if (path && this.points.length === count) {
        this.wire = path;
        this.redraw();
      }
      if (this.next === to) break;
    }
    if (this.run === run) this.following = false;
  }

  async close() {
    if (this.closing) return;
    const { run } = this;
    this.next = this.wire = null;
    this.closing = true;
    await this.turn;
    const back = this.run === run && await this.follow(this.points.at(-1), this.points[0], 0);
    if (this.run !== run) return;
    this.points = [...this.paths, back || []].flat();
    this.closing = false;
    this.paths = [];
    this.fill();
    this.reset();
  }

  cancel() {
    this.closing = false;
    super.cancel();
    this.reset();
  }

  key(key) {
    if (key === "Backspace" && this.open) {
      this.paths.pop();
      this.wire = null;
    }
    return super.key(key);
  }

  get line() {
    return [this.points[0], ...this.paths.flat(), ...(this.wire ?? (this.next ? [this.next] : []))];
  }
}

// Shapes that are filled once closed: rectangle, ellipse, lasso and polygon.

import { around, rect } from "../raster.js";

const NEAR = 6; // device pixels; points closer than this are the same

class Shape {
  constructor({ document, settings, view }, { name }) {
    Object.assign(this, { document, settings, view: view(), name, points: [] });
  }

  get open() {
    return this.points.length > 0;
  }

  begin(point, { erase = false, alt = false } = {}) {
    this.points = [point];
    this.takes = erase || alt || this.settings.get("takes");
    this.view.guide(this);
  }

  redraw() {
    this.view.redrawGuides();
  }

  // Fill the path drawn by trace(pen, points).
  fill() {
    const points = this.points;
    this.end();
    const area = this.area(points);
    if (area.x2 <= area.x1 || area.y2 <= area.y1) return;
    const { settings, document } = this;
    const edit = document.begin({ value: this.takes ? 0 : 255, erase: this.takes, strength: settings.get("opacity"),
      colour: settings.ink });
    edit.trace(area, (pen) => this.trace(pen, points));
    document.commit();
  }

  end() {
    this.points = [];
    this.view.guide(null);
  }

  cancel() {
    this.end();
  }

  area(points) {
    return around(points, 1);
  }

  // Its outline while it is drawn.
  draw(pen, toDevice) {
    const points = this.points.map(toDevice);
    pen.beginPath();
    this.trace(pen, points);
    outline(pen);
  }
}

export function outline(pen, dash = []) {
  pen.setLineDash([]);
  pen.lineWidth = 3;
  pen.strokeStyle = "rgb(0 0 0 / 0.6)";
  pen.stroke();
  pen.lineWidth = 1;
  pen.strokeStyle = "#fff";
  pen.setLineDash(dash);
  pen.stroke();
}

// From corner to corner; with Shift a square or circle.
class Box extends Shape {
  down(point, how) {
    this.begin(this.snap(point), how);
  }

  move(points, { shift = false } = {}) {
    let { x, y } = points.at(-1);
    const [from] = this.points;
    if (shift) {
      const side = Math.max(Math.abs(x - from.x), Math.abs(y - from.y));
      [x, y] = [from.x + Math.sign(x - from.x) * side, from.y + Math.sign(y - from.y) * side];
    }
    this.points[1] = this.snap({ x, y });
    this.redraw();
  }

  up() {
    if (this.points.length === 2) this.fill();
    else this.end();
  }

  snap({ x, y }) {
    return { x, y };
  }
}

export class Rectangle extends Box {
  snap({ x, y }) { // to whole pixels, for sharp edges
    return { x: Math.round(x), y: Math.round(y) };
  }

  area([a, b]) {
    return rect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y));
  }

  trace(pen, [a, b = a]) {
    pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
  }
}

export class Ellipse extends Box {
  trace(pen, [a, b = a]) {
    pen.ellipse((a.x + b.x) / 2, (a.y + b.y) / 2, Math.abs(b.x - a.x) / 2, Math.abs(b.y - a.y) / 2, 0, 0, 2 * Math.PI);
  }
}

const through = (pen, points) => {
  points.forEach(({ x, y }, i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
};

export class Lasso extends Shape {
  down(point, how) {
    this.begin(point, how);
  }

  move(points) {
    this.points.push(...points);
    this.redraw();
  }

  up() {
    if (this.points.length > 2) this.fill();
    else this.end();
  }

  trace(pen, points) {
    through(pen, points);
  }
}

// Corner by corner; closed by a click on the first one or a double click.
export class Polygon extends Shape {
  get corners() { // each set by a click, or by Enter
    return true;
  }

  down(point, how) {
    if (!this.open) return this.begin(point, how);
    const [first, last] = [this.points[0], this.points.at(-1)];
    if (this.points.length > 2 && (this.near(point, first) || this.near(point, last))) return this.close();
    if (!this.near(point, last)) this.points.push(point);
    this.redraw();
  }

  move(points) {
    this.hover(points.at(-1));
  }

  hover(point) {
    if (!this.open) return;
    this.next = point;
    this.redraw();
  }

  up() {}

  close() {
    this.next = null;
    if (this.points.length > 2) this.fill();
    else this.end();
  }

  cancel() {
    this.next = null;
    super.cancel();
  }

  key(key) {
    if (!this.open || !["Escape", "Enter", "Backspace"].includes(key)) return false;
    if (key === "Escape") this.cancel();
    else if (key === "Enter" && this.points.length > 2) this.close();
    else if (key === "Enter") return false;
    else if (this.points.length > 1) this.points.pop();
    else this.cancel();
    this.redraw();
    return true;
  }

  near(a, b) {
    return Math.hypot(a.x - b.x, a.y - b.y) * this.view.scale < NEAR;
  }

  trace(pen, points) {
    through(pen, points);
  }

  // Its outline so far, up to the pointer.
  get line() {
    return [...this.points, ...(this.next ? [this.next] : [])];
  }

  draw(pen, toDevice) {
    pen.beginPath();
    through(pen, this.line.map(toDevice));
    outline(pen);
    for (const { x, y } of this.points.map(toDevice)) {
      pen.beginPath();
      pen.rect(x - 3, y - 3, 6, 6);
      pen.fillStyle = "#fff";
      pen.fill();
      outline(pen);
    }
  }
}

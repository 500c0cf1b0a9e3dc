// Outpainting: drags the picture's edges outwards, so that its sides become multiples of 8.

import { label } from "../foresight.js";
import { rect } from "../raster.js";
import { say } from "../text.js";
import { outline } from "./shapes.js";

const STEP = 8; // pixels
const NEAR = 20, HANDLE = 5; // CSS pixels
const ROOM = 0.62; // of the stage's shorter side, taken by the picture while it is extended
export const SIDES = ["left", "top", "right", "bottom"];
const NONE = { left: 0, top: 0, right: 0, bottom: 0 };
const CURSORS = { left: "ew-resize", right: "ew-resize", top: "ns-resize", bottom: "ns-resize" };

export class Extend {
  constructor({ document, settings, view }, { name }) {
    Object.assign(this, { document, settings, view: view(), name, margins: { ...NONE }, held: null, listeners: new Set() });
  }

  get larger() {
    const { picture } = this.document;
    const { left, top, right, bottom } = this.margins;
    return picture && { width: left + picture.width + right, height: top + picture.height + bottom };
  }

  // The same as an area, and how much of the stage it takes, so that there is something beyond the edges to drag them to.
  get area() {
    const { larger: { width, height }, margins: { left, top } } = this;
    return rect(-left, -top, width - left, height - top);
  }

  get room() {
    return ROOM;
  }

  get grows() {
    return SIDES.some((side) => this.margins[side]);
  }

  set(side, pixels) {
    this.margins[side] = Math.max(Math.round(pixels) || 0, 0);
    this.told();
  }

  told() {
    this.view.redrawGuides();
    for (const listen of this.listeners) listen();
  }

  enter() {
    this.view.framed = this;
    this.view.guide(this);
    this.view.fit();
    this.told();
  }

  leave() {
    this.margins = { ...NONE };
    this.held = null;
    this.view.stage.style.cursor = "";
    this.view.framed = null;
    this.view.guide(null);
    this.view.fit();
    this.told();
  }

  // --- dragging

  // The sides near a point: one, two at a corner, or none.
  sidesAt({ x, y }) {
    const { view } = this;
    const near = (NEAR * view.ratio) / view.scale;
    const { x1, y1, x2, y2 } = this.area;
    if (x < x1 - near || x > x2 + near || y < y1 - near || y > y2 + near) return [];
    const nearer = (a, b, names) => (Math.min(Math.abs(a), Math.abs(b)) > near ? [] : [Math.abs(a) < Math.abs(b) ? names[0] : names[1]]);
    return [...nearer(x - x1, x - x2, ["left", "right"]), ...nearer(y - y1, y - y2, ["top", "bottom"])];
  }

  down(point) {
    const sides = this.sidesAt(point);
    this.held = sides.length ? { sides, from: point, margins: { ...this.margins } } : null;
  }

  move(points) {
    if (!this.held) return;
    const { sides, from, margins } = this.held;
    const { x, y } = points.at(-1);
    const by = { left: from.x - x, right: x - from.x, top: from.y - y, bottom: y - from.y };
    for (const side of sides) this.margins[side] = this.snapped(side, margins[side] + by[side]);
    this.told();
  }

  // Pixels to add at a side, so that the picture's width or height becomes a multiple of STEP.
  snapped(side, pixels) {
    const { picture } = this.document;
    const along = side === "left" || side === "right" ? ["width", "left", "right"] : ["height", "top", "bottom"];
    const other = picture[along[0]] + this.margins[side === along[1] ? along[2] : along[1]];
    if (pixels < STEP / 2) return 0;
    return Math.max(Math.round((other + pixels) / STEP) * STEP - other, 0);
  }

  up() {
    if (this.held && !this.inReach) this.view.fit();
    this.held = null;
  }

  // Whether all edges can be dragged on.
  get inReach() {
    const { view, area: { x1, y1, x2, y2 } } = this;
    const [a, b, near] = [view.onScreen({ x: x1, y: y1 }), view.onScreen({ x: x2, y: y2 }), NEAR * view.ratio];
    return Math.min(a.x, a.y, view.width - b.x, view.height - b.y) >= near;
  }

  cancel() {
    if (this.held) this.margins = this.held.margins;
    this.held = null;
    this.told();
  }

  hover(point) {
    const sides = this.sidesAt(point);
    this.view.stage.style.cursor = sides.length === 2
      ? (sides.includes("left") === sides.includes("top") ? "nwse-resize" : "nesw-resize") : CURSORS[sides[0]] ?? "default";
  }

  // Escape restores the picture's edges.
  key(key) {
    if (key !== "Escape" || !this.grows) return false;
    this.margins = { ...NONE };
    this.told();
    return true;
  }

  // --- drawing it

  draw(pen, toDevice) {
    const { view, larger, settings, document: { picture } } = this;
    const { left, top } = this.margins;
    const [a, b] = [toDevice({ x: -left, y: -top }), toDevice({ x: larger.width - left, y: larger.height - top })];
    const [old, end] = [toDevice({ x: 0, y: 0 }), toDevice({ x: picture.width, y: picture.height })];
    pen.beginPath();
    pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
    pen.rect(old.x, old.y, end.x - old.x, end.y - old.y);
    pen.globalAlpha = settings.get("overlayOpacity");
    pen.fillStyle = settings.get("overlay");
    pen.fill("evenodd");
    pen.globalAlpha = 1;
    pen.beginPath();
    pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
    outline(pen);
    const size = HANDLE * view.ratio;
    const [middle, centre] = [(a.x + b.x) / 2, (a.y + b.y) / 2];
    for (const [x, y] of [[a.x, a.y], [middle, a.y], [b.x, a.y], [a.x, centre], [b.x, centre], [a.x, b.y], [middle, b.y], [b.x, b.y]]) {
      pen.beginPath();
      pen.rect(x - size, y - size, 2 * size, 2 * size);
      pen.fillStyle = "#fff";
      pen.fill();
      outline(pen);
    }
    label(pen, say(`${larger.width} × ${larger.height} instead of ${picture.width} × ${picture.height}`), a, view);
  }
}

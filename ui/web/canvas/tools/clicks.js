// Selects an object with a model: by clicks on it and beside it, and by a box around it; each refines the selection.

import { say } from "../text.js";
import { apply, corners, find } from "./object.js";
import { outline } from "./shapes.js";

const DRAGGED = 6; // device pixels; a longer drag draws a box
const MOST = 64; // points
const RADIUS = 5; // device pixels

export class ClickSelect {
  constructor({ document, settings, view, selections, note, optionsChanged }, { name }) {
    Object.assign(this, { document, settings, view: view(), selections, note, optionsChanged, name, models: null, drag: null, asked: null });
    this.forget();
  }

  // Finish this object; the next click selects another.
  forget() {
    this.points = []; // {x, y, wanted}
    this.box = null;
    this.version = null; // the document's version after the newest answer
    this.changed = false;
  }

  get options() {
    return this.models?.length ? ["model", "beside", "next", "opacity", "takes"] : ["advice"];
  }

  // The list of models may have changed.
  async enter() {
    this.models = await this.selections.models().catch(() => []);
    if (!this.models.includes(this.settings.get("model"))) this.settings.set("model", this.models[0] ?? "");
    this.optionsChanged();
  }

  down(point, { erase = false, alt = false, ctrl = false } = {}) {
    this.drag = [point, point];
    this.wanted = !(erase || alt || ctrl || this.settings.get("beside"));
    this.view.guide(this);
  }

  move(points) {
    if (!this.drag) return;
    this.drag[1] = points.at(-1);
    this.view.redrawGuides();
  }

  up() {
    const { drag, document: { picture } } = this;
    this.drag = null;
    if (!drag) return;
    if (this.version !== null && this.version !== this.document.version && !this.asked) this.forget(); // something else was changed
    if (!this.points.length && !this.box) this.takes = this.settings.get("takes");
    const [{ x, y }] = drag;
    if (this.isBox(drag)) this.box = drag;
    else if (x >= 0 && y >= 0 && x < picture.width && y < picture.height && this.points.length < MOST) this.points.push({ x, y, wanted: this.wanted });
    this.view.redrawGuides();
    if (this.points.length || this.box) this.ask();
  }

  isBox([a, b]) {
    return Math.hypot(a.x - b.x, a.y - b.y) * this.view.scale >= DRAGGED;
  }

  async ask() {
    if (!this.models?.length) return this.end();
    const of = (wanted) => this.points.filter((point) => point.wanted === wanted).map(({ x, y }) => [x, y]);
    if (this.version === null) this.version = this.document.version;
    const found = await find(this, { tool: "click", model: this.settings.get("model"), points: of(true), not_points: of(false),
      box: this.box && corners(this.box) });
    if (!found) return;
    if (this.version !== this.document.version) return this.end();
    if (this.changed) this.document.undo(); // each answer is one step
    const before = this.document.version;
    apply(this, found, this.takes);
    this.changed = this.document.version !== before;
    this.version = this.document.version;
  }

  end() {
    if (this.asked) this.note("");
    this.asked = this.drag = null;
    this.forget();
    this.view.guide(null);
  }

  // The next click selects another object.
  next() {
    this.end();
  }

  cancel() {
    this.drag = null;
    this.view.redrawGuides();
  }

  leave() {
    this.end();
  }

  key(key) {
    if (!this.points.length && !this.box) return false;
    if (key === "Escape" && this.changed && this.version === this.document.version) this.document.undo();
    if (key !== "Escape" && key.toLowerCase() !== "n") return false;
    this.end();
    return true;
  }

  draw(pen, toDevice) {
    for (const box of [this.box, this.drag && this.isBox(this.drag) ? this.drag : null].filter(Boolean)) {
      const [a, b] = box.map(toDevice);
      pen.beginPath();
      pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
      outline(pen);
    }
    for (const point of this.points) {
      const { x, y } = toDevice(point);
      pen.beginPath();
      pen.arc(x, y, RADIUS, 0, 2 * Math.PI);
      pen.fillStyle = point.wanted ? "#16a34a" : "#dc2626";
      pen.fill();
      outline(pen);
      pen.beginPath();
      pen.moveTo(x - 3, y);
      pen.lineTo(x + 3, y);
      if (point.wanted) {
        pen.moveTo(x, y - 3);
        pen.lineTo(x, y + 3);
      }
      pen.stroke();
    }
  }
}

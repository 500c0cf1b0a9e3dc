// Selects an object without a model: the server segments what is inside a box or under a rough stroke.

import { say } from "../text.js";
import { outline } from "./shapes.js";

const MOST = 4000; // points sent per stroke

const rounded = ({ x, y }) => [Math.round(x * 10) / 10, Math.round(y * 10) / 10];

// Add what was found to the layer, or remove it, as one step.
export function apply({ document, settings }, { area, numbers }, takes) {
  const edit = document.begin({ value: takes ? 0 : 255, erase: takes, strength: settings.get("opacity"), colour: settings.ink });
  edit.fill(area, numbers, area);
  document.commit();
}

// What the server finds for a tool's question; null if the tool has moved on, or on an error, which is shown. tool.asked marks
// the question it waits for; tool.end() gives it up.
export async function find(tool, question) {
  const asked = (tool.asked = Symbol("the latest question"));
  tool.note(say('Looking for the object…'));
  try {
    const found = await tool.selections.ask(question);
    if (!found || tool.asked !== asked) return null;
    tool.asked = null;
    tool.note(found.numbers.length ? "" : say('Nothing was found there.'));
    return found;
  } catch (error) {
    if (tool.asked !== asked) return null;
    tool.end();
    tool.note(say(error.message));
    return null;
  }
}

export const corners = ([a, b]) => [rounded(a), rounded(b)];

export class ObjectSelect {
  constructor({ document, settings, view, selections, note }, { name }) {
    Object.assign(this, { document, settings, view: view(), selections, note, name, points: [], asked: null });
  }

  get stroke() {
    return this.settings.get("outlines") === "stroke";
  }

  get ring() {
    return this.stroke ? { radius: this.settings.get("size") / 2 } : null;
  }

  get options() {
    return ["outlines", ...(this.stroke ? ["size"] : []), "opacity", "takes"];
  }

  down(point, { erase = false, alt = false } = {}) {
    this.asked = null;
    this.points = [point];
    this.takes = erase || alt || this.settings.get("takes");
    this.view.guide(this);
  }

  move(points) {
    if (!this.points.length) return;
    if (this.stroke) this.points.push(...points);
    else this.points[1] = points.at(-1);
    this.view.redrawGuides();
  }

  async up() {
    const { points, takes } = this;
    if (!points.length || (!this.stroke && points.length < 2)) return this.cancel();
    const every = Math.ceil(points.length / MOST);
    const question = this.stroke ? { tool: "stroke", radius: Math.max(this.settings.get("size") / 2, 0.5),
      points: points.filter((_, i) => i % every === 0 || i === points.length - 1).map(rounded) } : { tool: "box", box: corners(points) };
    const found = await find(this, question);
    if (!found) return;
    this.end();
    apply(this, found, takes);
  }

  end() {
    if (this.asked) this.note("");
    this.asked = null;
    this.points = [];
    this.view.guide(null);
  }

  cancel() {
    this.end();
  }

  leave() {
    this.cancel();
  }

  key(key) {
    if (key !== "Escape" || !this.points.length) return false;
    this.cancel();
    return true;
  }

  draw(pen, toDevice) {
    const points = this.points.map(toDevice);
    pen.beginPath();
    if (!this.stroke) {
      const [a, b = a] = points;
      pen.rect(a.x, a.y, b.x - a.x, b.y - a.y);
      return outline(pen);
    }
    points.forEach(({ x, y }, i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (points.length === 1) pen.lineTo(points[0].x + 0.01, points[0].y);
    pen.save();
    pen.lineWidth = this.settings.get("size") * this.view.scale;
    pen.lineCap = pen.lineJoin = "round";
    pen.strokeStyle = "rgb(255 255 255 / 0.5)";
    pen.stroke();
    pen.restore();
  }
}

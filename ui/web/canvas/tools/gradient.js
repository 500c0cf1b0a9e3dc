// A gradient: full mask at its start, none at its end.

import { outline } from "./shapes.js";

export class Gradient {
  constructor({ document, settings, view }, { name }) {
    Object.assign(this, { document, settings, view: view(), name, points: [] });
  }

  down(point, { erase = false, alt = false } = {}) {
    this.points = [point, point];
    this.takes = erase || alt || this.settings.get("takes");
    this.view.guide(this);
  }

  move(points) {
    this.points[1] = points.at(-1);
    this.view.redrawGuides();
  }

  up() {
    const [a, b] = this.points;
    this.cancel();
    const [dx, dy] = [b.x - a.x, b.y - a.y];
    const length = dx * dx + dy * dy;
    if (length < 1) return;
    const { document, document: { layer }, settings } = this;
    const edit = document.begin({ value: this.takes ? 0 : 255, erase: this.takes, strength: settings.get("opacity"), colour: settings.ink });
    edit.cover(layer.bounds, ({ cover, bounds }, part) => {
      for (let y = part.y1; y < part.y2; y++) {
        let at = (y - bounds.y1) * (bounds.x2 - bounds.x1) + part.x1 - bounds.x1;
        for (let x = part.x1; x < part.x2; x++, at++) {
          const t = ((x + 0.5 - a.x) * dx + (y + 0.5 - a.y) * dy) / length;
          cover[at] = Math.round(255 * Math.min(Math.max(1 - t, 0), 1));
        }
      }
    });
    document.commit();
  }

  cancel() {
    this.points = [];
    this.view.guide(null);
  }

  draw(pen, toDevice) {
    const [a, b] = this.points.map(toDevice);
    pen.beginPath();
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    outline(pen);
    for (const [{ x, y }, colour] of [[a, "#fff"], [b, "#000"]]) {
      pen.beginPath();
      pen.arc(x, y, 5, 0, 2 * Math.PI);
      pen.fillStyle = colour;
      pen.fill();
      outline(pen);
    }
  }
}

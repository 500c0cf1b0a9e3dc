// Brush and eraser: strokes with a round tip; opacity applies once per stroke, even where it crosses itself.

export class Brush {
  constructor({ document, settings, view }, { name, erase }) {
    Object.assign(this, { document, settings, view, name, erase, last: null });
  }

  // The diameter in picture pixels.
  get size() {
    const { scale, ratio } = this.view();
    return this.settings.get("size") * (this.settings.get("brushUnit") === "screen" ? ratio / scale : 1);
  }

  get ring() {
    return { radius: this.size / 2, hardness: this.settings.get("hardness") };
  }

  // point: {x, y, pressure} on the picture, pressure 0 to 1; joined: draws a straight line from the end of the last stroke.
  down(point, { joined = false, erase = false } = {}) {
    const { settings, document } = this;
    const strength = settings.get("opacity");
    const away = this.erase || erase;
    const edit = document.begin({ value: away ? 0 : 255, strength, erase: away, colour: settings.ink });
    const start = this.tip(point);
    edit.stroke(joined && this.last ? this.last : start, start, settings.get("hardness"));
    this.last = start;
  }

  move(points) {
    const { edit } = this.document;
    if (!edit) return; // undone meanwhile
    for (const point of points) {
      const next = this.tip(point);
      edit.stroke(this.last, next, this.settings.get("hardness"));
      this.last = next;
    }
  }

  up() {
    this.document.commit();
  }

  cancel() {
    this.document.cancel();
  }

  tip({ x, y, pressure = 1 }) {
    return { x, y, radius: (this.size / 2) * pressure };
  }
}

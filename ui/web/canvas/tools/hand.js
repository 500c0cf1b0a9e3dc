// Drags the picture where more of it is there than is seen; arrow keys do the same.

const STEP = 48; // CSS pixels by an arrow key
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Hand {
  constructor({ view }, { name }) {
    Object.assign(this, { view, name, from: null });
  }

  down(point) {
    this.from = this.view().larger ? point : null;
  }

  // What was under the pointer stays under it.
  move(points) {
    if (!this.from) return;
    const [view, to] = [this.view(), points.at(-1)];
    view.pan((to.x - this.from.x) * view.scale, (to.y - this.from.y) * view.scale);
  }

  up() {
    this.from = null;
  }

  cancel() {
    this.from = null;
  }

  key(name) {
    const arrow = ARROWS[name];
    if (!arrow) return false;
    const step = STEP * this.view().ratio;
    this.view().pan(arrow[0] * step, arrow[1] * step);
    return true;
  }
}

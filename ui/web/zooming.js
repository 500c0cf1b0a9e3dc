// Zoom and pan in device pixels, the same on a canvas and around a result: how far they go, by wheel, and by two fingers.
//
// view: has width and height, scale, pan(x, y), zoom(scale, x, y), and device(event), the point under a pointer.

export const MARGIN = 12; // CSS pixels around a fitted picture
const BAR = 48; // CSS pixels that the zoom's bar takes, beside a fitted picture or below it
const MOST = 32; // device pixels per picture pixel
const FITTED_MOST = 8;
const LEAST = 32; // device pixels of the picture's longer side, unless it is smaller
const KEEP = 48; // CSS pixels of the picture that always stay visible
const LINE = 16; // CSS pixels per line of wheel movement
const FAST = 0.0016; // zoom per CSS pixel of wheel movement

// The scale at which something of this size fits into a room, in device pixels, or into a share of it.
export function fitting(size, room, share = 0) {
  const [width, height] = [room.width, room.height].map((side) => (share ? side * share : side - 2 * MARGIN * devicePixelRatio));
  return Math.max(Math.min(width / size.width, height / size.height, FITTED_MOST), 0.001);
}

// How wide a picture with this aspect can be in a room.
export function widest(aspect, { width, height }) {
  const margins = 2 * MARGIN * devicePixelRatio;
  return Math.min(width - margins, (height - margins) * aspect);
}

// Where a fitted picture of this height begins in a room with a middle, in device pixels from the top.
export function topIn({ height: room, middle }, height) {
  return Math.min(middle - height / 2, room - MARGIN * devicePixelRatio - height);
}

// The room beside a view's zoom bar or above it, whichever lets a picture be larger.
export function besideBar({ width, height }, aspect) {
  const bar = BAR * devicePixelRatio;
  const [beside, above] = [{ width: width - bar, height }, { width, height: height - bar }];
  return { ...(widest(aspect, beside) >= widest(aspect, above) ? beside : above), middle: height / 2 };
}

// Where a picture that is `width` wide begins in such a view, and whether the bar stands upright, beside it.
export function leftOfBar(view, width) {
  const [bar, margin] = [BAR * devicePixelRatio, MARGIN * devicePixelRatio];
  const upright = width <= view.width - bar - 2 * margin;
  return { x: Math.min((view.width - width) / 2, view.width - width - margin - (upright ? bar : 0)), upright };
}

// The nearest scale that a picture may have.
export function limited(scale, { width, height }) {
  return Math.min(Math.max(scale, Math.min(1, LEAST / Math.max(width, height))), MOST);
}

// [x, y]: the nearest place for a picture's corner where some of the picture is visible.
export function inSight(view, { width, height }, scale, x, y) {
  const keep = KEEP * devicePixelRatio;
  return [Math.min(Math.max(x, keep - width * scale), view.width - keep), Math.min(Math.max(y, keep - height * scale), view.height - keep)];
}

export function turnWheel(view, event) {
  event.preventDefault();
  const unit = event.deltaMode ? LINE : 1;
  if (event.shiftKey) return view.pan(-(event.deltaX || event.deltaY) * unit, 0);
  // a pinch on a touchpad arrives as a wheel event with Ctrl, in smaller steps
  return view.zoom(view.scale * Math.exp(-event.deltaY * unit * FAST * (event.ctrlKey ? 6 : 1)), ...view.device(event));
}

// The fingers on a view: two of them zoom and pan it, until all are lifted.
export class Fingers {
  constructor(view) {
    Object.assign(this, { view, events: new Map(), pinch: null });
  }

  // Whether it is not the only finger.
  down(event) {
    if (event.pointerType !== "touch") return false;
    this.events.set(event.pointerId, event);
    if (this.events.size === 2) this.pinch = this.spread();
    return this.events.size > 1;
  }

  // Whether it is part of a pinch, as below.
  move(event) {
    if (this.events.has(event.pointerId)) this.events.set(event.pointerId, event);
    if (this.pinch && this.events.size > 1) {
      const [before, now] = [this.pinch, this.spread()];
      this.view.pan(now.x - before.x, now.y - before.y);
      this.view.zoom((this.view.scale * now.apart) / Math.max(before.apart, 1), now.x, now.y);
      this.pinch = now;
    }
    return Boolean(this.pinch);
  }

  up(event) {
    const pinched = Boolean(this.pinch);
    this.events.delete(event.pointerId);
    if (!this.events.size) this.pinch = null;
    return pinched;
  }

  spread() {
    const [a, b] = [...this.events.values()].map((event) => this.view.device(event));
    return { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, apart: Math.hypot(a[0] - b[0], a[1] - b[1]) };
  }
}

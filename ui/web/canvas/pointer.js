// Input on the stage: tools by mouse, pen, one finger or keyboard; pan and zoom by wheel, space bar and two fingers.

import { Fingers, turnWheel } from "../zooming.js";

const STEP = 8; // CSS pixels that an arrow key moves the tool; with Shift one picture pixel
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pointers {
  // tool(): the chosen one. ring: the element that shows its position and size.
  constructor(view, { stage, tool, ring, document }) {
    Object.assign(this, { view, stage, tool, ring, document, fingers: new Fingers(view), drawing: null, panning: null, held: false, at: null, keyed: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event));
    stage.addEventListener("pointerleave", () => !this.drawing && this.hover(null));
    stage.addEventListener("wheel", (event) => document.picture && turnWheel(view, event), { passive: false });
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("blur", () => this.penUp());
    view.listeners.add(() => this.showRing());
  }

  down(event) {
    if (!this.document.picture || event.target.closest("button, input, label")) return;
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    this.penUp();
    if (this.fingers.down(event)) {
      if (this.drawing) this.tool().cancel();
      this.drawing = null;
      return;
    }
    if (event.button === 1 || this.held) {
      this.panning = this.view.device(event);
      this.stage.classList.add("panning");
    } else if (event.button === 0 || event.button === 2 || event.button === 5) {
      this.drawing = event.pointerId;
      this.hover(event);
      this.tool().down(this.point(event), { joined: event.shiftKey, erase: event.button !== 0, alt: event.altKey,
        ctrl: event.ctrlKey || event.metaKey });
    }
  }

  move(event) {
    if (this.fingers.move(event)) return;
    if (this.panning) {
      const [x, y] = this.view.device(event);
      this.view.pan(x - this.panning[0], y - this.panning[1]);
      this.panning = [x, y];
      return;
    }
    this.hover(event.target.closest("button") ? null : event);
    if (this.drawing !== event.pointerId) {
      if (this.drawing === null) this.tool().hover?.(this.point(event));
      return;
    }
    // all positions of the pointer since the last frame; some browsers give none
    const passed = event.getCoalescedEvents?.() ?? [];
    this.tool().move((passed.length ? passed : [event]).map((each) => this.point(each)), { shift: event.shiftKey, alt: event.altKey });
  }

  up(event) {
    if (this.fingers.up(event)) return;
    this.stage.classList.remove("panning");
    this.panning = null;
    if (this.drawing !== event.pointerId) return;
    this.drawing = null;
    if (event.type === "pointercancel") this.tool().cancel();
    else this.tool().up({ shift: event.shiftKey, alt: event.altKey });
    if (event.pointerType === "touch") this.hover(null);
  }

  point(event) {
    const pressure = event.pointerType === "pen" && event.pressure ? event.pressure : 1;
    return { ...this.view.pointer(event), pressure };
  }

  // --- the keyboard: arrows move the tool, Enter presses and releases it

  key(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || !this.document.picture) return;
    const corner = event.key === "Enter" && this.keyed && this.tool().corners;
    if (!corner && this.tool().key?.(event.key)) {
      event.preventDefault();
      event.stopPropagation(); // or Escape would interrupt a job
      return;
    }
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== "Enter") return;
    event.preventDefault();
    const { picture } = this.document;
    this.at ??= { x: picture.width / 2, y: picture.height / 2 };
    if (arrow) {
      this.keyed = true;
      const step = event.shiftKey ? 1 : (STEP * this.view.ratio) / this.view.scale;
      this.at = { x: Math.min(Math.max(this.at.x + arrow[0] * step, 0), picture.width),
        y: Math.min(Math.max(this.at.y + arrow[1] * step, 0), picture.height) };
      if (this.pen) this.tool().move([this.at], {});
      else this.tool().hover?.(this.at);
    } else if (this.pen) {
      this.penUp();
    } else {
      this.pen = !corner;
      this.tool().down(this.at, { alt: event.altKey });
      if (corner) this.tool().up({});
    }
    this.showRing();
  }

  penUp() {
    if (!this.pen) return;
    this.pen = false;
    this.tool().up({});
  }

  // --- the tool's position

  hover(event) {
    this.keyed = false;
    this.at = event && this.view.pointer(event);
    this.showRing();
  }

  showRing() {
    const size = this.tool()?.ring;
    this.ring.hidden = !this.at || !size || !this.document.picture || Boolean(this.panning);
    this.stage.classList.toggle("ringed", Boolean(size) && !this.held);
    if (this.ring.hidden) return;
    const [ratio, radius] = [this.view.ratio, (size.radius * this.view.scale) / this.view.ratio];
    const [x, y] = [this.at.x * this.view.scale + this.view.x, this.at.y * this.view.scale + this.view.y];
    Object.assign(this.ring.style, { width: `${2 * radius}px`, height: `${2 * radius}px`,
      transform: `translate(${x / ratio - radius}px, ${y / ratio - radius}px)` });
    this.ring.classList.toggle("small", radius < 3);
    this.ring.classList.toggle("set-down", Boolean(this.pen));
  }
}

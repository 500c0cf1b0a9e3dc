// The frame around a result: zoom and pan in device pixels, by wheel, drag, pinch and keys.

import { beside, join, resized, room, tell } from "../link.js";
import { Fingers, besideBar, fitting, inSight, leftOfBar, limited, topIn, turnWheel, widest } from "../zooming.js";

const TOUCH = matchMedia("(pointer: coarse)"); // then the zoom's bar always stands there
const SHARP = 2; // at this scale and above, pixels are shown as squares

export class Frame {
  // stage: the frame; sheet: the element in it that is placed like the picture, and that all pictures fill.
  constructor(stage, sheet) {
    Object.assign(this, { stage, sheet, size: null, scale: 1, x: 0, y: 0, fitted: true, fingers: new Fingers(this), drag: null, held: false });
    this.listeners = new Set();
    new ResizeObserver(() => this.resize()).observe(stage);
    stage.addEventListener("wheel", (event) => this.size && turnWheel(this, event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => this.up(event));
    stage.addEventListener("dblclick", (event) => !event.target.closest("button, .compared") && this.toggle(event));
    join(this);
  }

  get width() {
    return this.stage.clientWidth * devicePixelRatio;
  }

  get height() {
    return this.stage.clientHeight * devicePixelRatio;
  }

  // Whether the picture is larger than the frame: then dragging pans; otherwise it drags the picture elsewhere.
  get larger() {
    return Boolean(this.size) && (this.size.width * this.scale > this.width + 1 || this.size.height * this.scale > this.height + 1);
  }

  // Show a picture of this size: in the same place as a previous one of equal size, else like the source, else fitted.
  take(size) {
    const same = size && this.size && size.width === this.size.width && size.height === this.size.height;
    this.size = size;
    if (!size || same) return this.place(this.scale, this.x, this.y, this.fitted, true);
    this.fit(true);
    const shown = this.shown() && beside(this);
    return shown ? this.follow(shown, true) : null;
  }

  resize() {
    if (this.size && this.width) {
      if (this.fitted || !this.seen) this.fit(true);
      else this.place(this.scale, this.x + (this.width - this.seen[0]) / 2, this.y + (this.height - this.seen[1]) / 2, false, true);
      this.seen = [this.width, this.height];
    }
    resized(this);
    this.roomChanged();
  }

  // A job's preview takes the room that its result will.
  roomChanged() {
    if (this.fitted) this.fit(true);
    if (!this.width) return;
    const aspect = (this.shown() ?? beside(this))?.aspect ?? 1;
    const around = room(this, aspect);
    const width = widest(aspect, around);
    const top = topIn(around, width / aspect);
    const x = this.left(width);
    const insets = [top, this.width - x - width, this.height - top - width / aspect, x];
    this.stage.closest("#result").style.setProperty("--room", insets.map((inset) => `${inset / devicePixelRatio}px`).join(" "));
  }

  fit(quiet = false) {
    if (!this.size || !this.width) return;
    const { width, height } = this.size;
    const around = room(this, width / height);
    const scale = fitting(this.size, around);
    this.place(scale, this.left(width * scale), topIn(around, height * scale), true, quiet);
  }

  // Where a fitted picture that is `width` wide begins.
  left(width) {
    if (!TOUCH.matches) return (this.width - width) / 2;
    const { x, upright } = leftOfBar(this, width);
    this.stage.classList.toggle("upright", upright);
    return x;
  }

  centre(scale) {
    if (this.size) this.place(scale, (this.width - this.size.width * scale) / 2, (this.height - this.size.height * scale) / 2);
  }

  // 100 % around a point on the screen, or fitted again.
  toggle({ clientX, clientY }) {
    if (this.fitted) this.zoom(1, ...this.device({ clientX, clientY }));
    else this.fit();
  }

  zoom(scale, x = this.width / 2, y = this.height / 2) {
    if (!this.size) return;
    const to = limited(scale, this.size);
    this.place(to, x - ((x - this.x) / this.scale) * to, y - ((y - this.y) / this.scale) * to);
  }

  pan(x, y) {
    this.place(this.scale, this.x + x, this.y + y);
  }

  // quiet: linked views do not follow.
  place(scale, x, y, fitted = false, quiet = false) {
    const { size, sheet, stage } = this;
    if (size) {
      [x, y] = inSight(this, size, scale, x, y);
      const css = (pixels) => `${Math.round(pixels) / devicePixelRatio}px`;
      Object.assign(sheet.style, { left: css(x), top: css(y), width: css(size.width * scale), height: css(size.height * scale) });
    }
    Object.assign(this, { scale, x, y, fitted, seen: [this.width, this.height] });
    sheet.classList.toggle("sharp", scale >= SHARP);
    stage.classList.toggle("larger", this.larger);
    for (const listen of this.listeners) listen();
    if (!quiet) tell(this);
  }

  // --- beside other views

  usable(aspect) {
    const { width, height } = this;
    return TOUCH.matches ? besideBar(this, aspect) : { width, height, middle: height / 2 };
  }

  shown() {
    if (!this.size || !this.stage.offsetParent || !this.width) return null;
    const { size: { width, height }, scale } = this;
    return { aspect: width / height, width: width * scale, x: (this.width / 2 - this.x) / (width * scale),
      y: (this.height / 2 - this.y) / (height * scale), fitted: this.fitted };
  }

  follow({ width, x, y, fitted }, quiet = false) {
    if (fitted) return this.fit(quiet);
    const scale = width / this.size.width;
    return this.place(scale, this.width / 2 - x * width, this.height / 2 - y * this.size.height * scale, false, quiet);
  }

  // --- pointers

  device({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect();
    return [(clientX - box.left) * devicePixelRatio, (clientY - box.top) * devicePixelRatio];
  }

  down(event) {
    if (!this.size || event.target.closest("button, .compared")) return;
    this.fingers.down(event);
    if (!(this.larger || this.held || event.button === 1) || event.button === 2 || this.fingers.pinch) return;
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    this.stage.classList.add("panning");
    this.drag = this.device(event);
  }

  move(event) {
    if (this.fingers.move(event) || !this.drag) return;
    const [x, y] = this.device(event);
    this.pan(x - this.drag[0], y - this.drag[1]);
    this.drag = [x, y];
  }

  up(event) {
    this.fingers.up(event);
    this.drag = null;
    this.stage.classList.remove("panning");
  }
}

// Previews what Generate will do, computed by the server: the mask's edge as it will act, and the area that is processed. Asked
// for a moment after a change, never during a stroke.

import { make } from "./bar.js";
import { coloursOf } from "./settings.js";
import { say } from "./text.js";
import { outline } from "./tools/shapes.js";

const WAIT = 300; // milliseconds without a change
const PATIENCE = 1000, GLANCE = 30; // milliseconds that Generate waits for one, and from look to look
const LATE = 20000; // milliseconds to wait for an answer
const LABEL = 12, PAD = 6, LINE = 20; // CSS pixels
const CLOSED = "#generate-"; // a mode's button, disabled while a job runs

export class Foresight {
  // trigger(event): tells Python, which answers through take(), or runs the islands.
  constructor(canvas, trigger) {
    Object.assign(this, { canvas, trigger, answer: null, outdated: false, waiting: 0, timer: 0 });
    this.offer = make("div", { className: "offer", hidden: true }, make("button", { type: "button", className: "word primary", onclick: () => this.runIslands() }));
    this.offer.setAttribute("role", "status");
    canvas.stage.append(this.offer);
    canvas.view.backdrop = (pen) => this.draw(pen);
    canvas.document.addEventListener("picture", () => this.forget());
    canvas.document.addEventListener("history", () => this.changed());
    canvas.document.addEventListener("pixels", () => this.stale());
    canvas.settings.addEventListener("change", ({ detail }) => {
      if (detail === "overlay") this.colour();
      if (detail === "foresee") this.switched();
    });
    new ResizeObserver(() => this.changed()).observe(canvas.stage);
  }

  get on() {
    return this.canvas.foresees && this.canvas.settings.get("foresee");
  }

  // --- asking

  settingsChanged() {
    this.outdated = true;
    this.changed();
  }

  // The answer also says how a mask file lies over the picture, which is shown in any case.
  get wanted() {
    return this.on || (this.canvas.foresees && this.canvas.sources.isFile);
  }

  changed() {
    clearTimeout(this.timer);
    if (this.wanted) this.timer = setTimeout(() => this.ask(), WAIT);
  }

  // Asks nothing more and waits for what was asked: Gradio's client can lose an event, such as Generate's, that is sent while
  // the server ends the stream of the one before.
  async pause() {
    clearTimeout(this.timer);
    for (const end = Date.now() + PATIENCE; this.waiting && Date.now() < end;) await new Promise((done) => setTimeout(done, GLANCE));
  }

  ask() {
    const { document, pointers, root } = this.canvas;
    if (!document.picture || !root.offsetParent) return; // asked for when it becomes visible
    if (document.edit || pointers.drawing !== null || pointers.pen || Date.now() - this.waiting < LATE) return this.changed();
    if (this.answer?.version === document.version && !this.outdated) return this.show();
    Object.assign(this, { asked: document.version, outdated: false, waiting: Date.now() });
    this.trigger("input");
  }

  async take(foreseen) {
    try {
      await this.use(foreseen);
    } finally {
      this.waiting = 0;
    }
  }

  async use(foreseen) {
    const { document } = this.canvas;
    if (!document.picture || this.asked !== document.version || !this.wanted) return this.changed();
    if (foreseen.laid) await this.canvas.sources.lay(foreseen.laid);
    const effect = foreseen.edge && await bitmapOf(foreseen.edge.png);
    if (this.asked !== document.version) return effect?.close();
    this.answer?.effect?.close();
    this.answer = { ...foreseen, effect, version: this.asked };
    this.show();
  }

  // --- showing

  show() {
    if (!this.on) return;
    this.colour();
    this.canvas.view.redraw();
    this.showOffer();
  }

  // Shows the mask as it will act instead of as painted.
  colour() {
    const { view, settings } = this.canvas;
    const { effect, edge, inverted = false } = (this.on && this.answer) || {};
    view.inverted = inverted ? settings.get("overlay") : null;
    view.effect = effect && this.answer.version === this.canvas.document.version
      ? { canvas: tinted(effect, coloursOf(settings.get("overlay"))), box: edge.box } : null;
    view.redraw();
  }

  showOffer() {
    const { offer, answer } = this;
    const apart = this.on && answer?.together && this.canvas.chosen !== "extend" ? answer.frames.length : 0;
    offer.hidden = !apart;
    if (apart) offer.firstChild.textContent = say(`Run the ${apart} areas that are far apart one after the other`);
  }

  // During a stroke the last preview is out of date.
  stale() {
    this.canvas.view.effect = null;
    this.changed();
  }

  forget() {
    this.answer?.effect?.close();
    Object.assign(this, { answer: null, waiting: 0, outdated: true });
    Object.assign(this.canvas.view, { effect: null, inverted: null });
    this.showOffer();
    this.changed();
  }

  switched() {
    if (this.on) return this.settingsChanged();
    clearTimeout(this.timer);
    this.colour();
    this.showOffer();
  }

  runIslands() {
    const { id, document: { picture } } = this.canvas;
    const generate = document.querySelector(CLOSED + id.replace("-editor", "").replace("-", "_"));
    if (!picture || generate?.disabled) return this.canvas.note(say('A picture is being made; wait until it is done.'));
    this.trigger("submit");
  }

  // --- frames, over the picture

  draw(pen) {
    const { answer, canvas: { view, document: { picture } } } = this;
    if (!this.on || !answer?.frames.length || !picture || this.canvas.chosen === "extend") return;
    const { frames, together, size: [width, height] } = answer;
    const whole = ([x1, y1, x2, y2]) => x1 === 0 && y1 === 0 && x2 === picture.width && y2 === picture.height;
    if (!answer.onlyMasked && whole(frames[0]) && width === picture.width && height === picture.height) return; // nothing to show
    if (together) this.frame(pen, together, [2, 6]);
    frames.forEach((frame, i) => {
      const [x1, y1, x2, y2] = frame;
      if (answer.onlyMasked || !whole(frame)) this.frame(pen, frame, [8, 5]);
      const text = say(`${width} × ${height} from ${x2 - x1} × ${y2 - y1}`);
      label(pen, frames.length > 1 ? `${i + 1} · ${text}` : text, view.onScreen({ x: x1, y: y1 }), view);
    });
  }

  frame(pen, [x1, y1, x2, y2], dash) {
    const { view } = this.canvas;
    const [a, b] = [view.onScreen({ x: x1, y: y1 }), view.onScreen({ x: x2, y: y2 })];
    pen.beginPath();
    pen.rect(Math.round(a.x) + 0.5, Math.round(a.y) + 0.5, Math.round(b.x - a.x) - 1, Math.round(b.y - a.y) - 1);
    outline(pen, dash.map((part) => part * view.ratio));
  }
}

async function bitmapOf(address) {
  return createImageBitmap(await (await fetch(address)).blob(), { colorSpaceConversion: "none" });
}

// A grey bitmap as one colour whose opacity is the grey's brightness.
function tinted(bitmap, [red, green, blue]) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const image = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  const plain = red | (green << 8) | (blue << 16);
  const shown = new Uint32Array(image.data.buffer);
  for (let at = 0; at < shown.length; at++) shown[at] = plain | (image.data[4 * at] << 24);
  pen.putImageData(image, 0, 0);
  return canvas;
}

// A line of text above a point, or below it where there is no room; kept within the canvas.
export function label(pen, text, { x, y }, view) {
  const { ratio, width } = view;
  pen.font = `${LABEL * ratio}px ${getComputedStyle(view.stage).fontFamily}`;
  const [wide, high] = [pen.measureText(text).width + 2 * PAD * ratio, LINE * ratio];
  const left = Math.min(Math.max(x, 0), Math.max(width - wide, 0));
  const top = y >= high + 4 * ratio ? y - high - 4 * ratio : Math.max(y, 0) + 4 * ratio;
  pen.beginPath();
  pen.roundRect(left, top, wide, high, 4 * ratio);
  pen.fillStyle = "rgb(24 24 27 / 0.85)";
  pen.fill();
  pen.fillStyle = "#fafafa";
  pen.textBaseline = "middle";
  pen.fillText(text, left + PAD * ratio, top + high / 2);
}

// Compares a result with its source: a slider between the two, their difference, or the source while a key or button is held.

import { choice, make } from "../canvas/bar.js";
import { say } from "../locale.js";

const STRENGTH = 10; // amplifies the difference, most of which would be invisible
const STEP = 0.02; // of the picture's width, per arrow key press
export const HOLD = "Backquote"; // the key left of 1, whatever the keyboard layout

export class Compare {
  // sheet: the element that the pictures fill. picture(): the result's <img>.
  constructor(stage, sheet, { picture }) {
    Object.assign(this, { stage, sheet, picture, how: null, source: null, held: false, share: 0.5 });
    this.handle = make("div", { className: "handle compared", tabIndex: 0 });
    this.handle.setAttribute("role", "slider");
    this.handle.setAttribute("aria-label", say('Between source and result'));
    this.handle.addEventListener("pointerdown", (event) => this.begin(event));
    this.handle.addEventListener("pointermove", (event) => this.drag(event));
    this.handle.addEventListener("keydown", (event) => this.key(event));
    this.modes = choice(say('How to compare'), [["slider", say('Slider')], ["difference", say('Difference')]],
      { value: () => this.how, act: (how) => this.open(how) });
    this.modes.classList.add("modes", "compared");
    this.said = make("div", { className: "said" });
    this.said.setAttribute("role", "status");
    stage.append(this.modes, this.said);
    this.update();
  }

  // The shown result's source with a remark on the two; null: not known yet.
  async take(source) {
    if (source && this.source === source) return;
    this.source = source;
    this.before?.remove();
    this.difference?.remove();
    this.before = this.difference = null;
    if (source) {
      const before = make("img", { className: "before", alt: say('Source'), draggable: false, src: source.address });
      await before.decode().catch(() => null);
      if (this.source !== source) return;
      this.before = before;
      this.sheet.append(before);
      if (this.how === "difference") this.subtract();
    }
    this.update();
  }

  open(how) {
    this.how = how;
    if (how === "difference" && this.before && !this.difference) this.subtract();
    this.update();
  }

  close() {
    this.open(null);
  }

  hold(held) {
    if (this.held === held) return;
    this.held = held;
    this.update();
  }

  // Bright where the two differ, channel by channel.
  subtract() {
    const picture = this.picture();
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    this.difference = make("canvas", { className: "difference", width, height });
    const pen = this.difference.getContext("2d");
    pen.drawImage(picture, 0, 0);
    pen.globalCompositeOperation = "difference";
    pen.drawImage(this.before, 0, 0, width, height);
    this.difference.style.filter = `brightness(${STRENGTH})`;
    this.sheet.append(this.difference);
  }

  update() {
    const { how, before, difference, handle, held, sheet, source, share } = this;
    const shown = before ? how : null;
    this.stage.classList.toggle("comparing", Boolean(shown));
    this.modes.hidden = !shown;
    this.modes.update();
    this.said.hidden = !shown && !(held && before);
    const strength = shown === "difference" && !held && say(`Difference, ${STRENGTH} times as strong`);
    this.said.textContent = held ? say('Source') : [strength, source?.remark && say(source.remark)].filter(Boolean).join(" · ");
    if (before) {
      before.hidden = !held && shown !== "slider";
      before.style.clipPath = held ? "none" : `inset(0 ${100 * (1 - share)}% 0 0)`;
    }
    if (difference) difference.hidden = held || shown !== "difference";
    const slides = shown === "slider" && !held;
    if (slides && !sheet.contains(handle)) sheet.append(handle); // moving the element would release the pointer
    if (!slides) handle.remove();
    handle.style.left = `${100 * share}%`;
    handle.setAttribute("aria-valuenow", Math.round(100 * share));
  }

  slide(share) {
    this.share = Math.min(Math.max(share, 0), 1);
    this.update();
  }

  begin(event) {
    event.preventDefault();
    this.handle.setPointerCapture(event.pointerId);
    this.handle.focus({ preventScroll: true });
  }

  drag(event) {
    if (!this.handle.hasPointerCapture(event.pointerId)) return;
    const box = this.sheet.getBoundingClientRect();
    this.slide((event.clientX - box.left) / box.width);
  }

  key(event) {
    const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation(); // must not select another result
    this.slide(this.share + by);
  }
}

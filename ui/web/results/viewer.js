// The viewer: connects frame, filmstrip and comparison, and shows the value of Python's Viewer.

import { make } from "../canvas/bar.js";
import { icon } from "../canvas/icons.js";
import { say } from "../locale.js";
import { Actions } from "./actions.js";
import { Compare, HOLD } from "./compare.js";
import { Frame } from "./frame.js";
import { Strip } from "./strip.js";
import { listenToSwipes } from "./swipe.js";

const NOTE = 5000; // milliseconds
const NEARER = 1.25; // per key press
const percent = (share) => `${Math.round(100 * share)} %`;

export class Viewer {
  // root: the .viewer; tell({ index, value }): reports a choice.
  constructor(root, tell) {
    Object.assign(this, { root, tell, column: root.closest("#result"), results: [], file: null, picture: null, sources: new Map(), taken: new Set(), looking: false });
    this.build();
    this.frame = new Frame(this.stage, this.sheet);
    this.compare = new Compare(this.stage, this.sheet, { picture: () => this.picture });
    this.actions = new Actions(this.column, this);
    this.listen();
    this.watchJobs();
  }

  build() {
    this.sheet = make("div", { className: "sheet" });
    this.last = make("div", { className: "last-preview", hidden: true }); // until the result itself is loaded
    this.empty = make("p", { className: "empty", textContent: say('What you make is shown here.') });
    this.zoomed = make("button", { type: "button", onclick: () => this.frame.centre(1) });
    this.zoomed.setAttribute("aria-label", say('Show at 100 %'));
    const fit = make("button", { type: "button", innerHTML: icon("fit"), title: say('Fit'), onclick: () => this.frame.fit() });
    fit.setAttribute("aria-label", say('Fit'));
    this.peek = make("button", { type: "button", innerHTML: icon("eye"), title: say('Hold to see the source') });
    this.peek.setAttribute("aria-label", say('Hold to see the source'));
    this.zoom = make("div", { className: "zoom" }, this.peek, this.zoomed, fit);
    this.note = make("div", { className: "note", hidden: true });
    this.note.setAttribute("role", "status");
    this.stage = make("div", { className: "frame", tabIndex: 0 }, this.empty, this.sheet, this.last, this.zoom, this.note);
    this.stage.setAttribute("role", "group");
    this.stage.setAttribute("aria-label", say('Result: arrow keys go to another, plus and minus zoom'));
    this.strip = new Strip({ select: (file) => this.choose(file), address });
    this.root.append(this.stage, this.strip.element);
    this.strip.element.addEventListener("keydown", (event) => this.key(event));
  }

  listen() {
    this.frame.listeners.add(() => {
      this.zoomed.textContent = percent(this.frame.scale);
      if (this.picture) this.picture.draggable = !this.frame.larger && !this.frame.held;
    });
    this.stage.addEventListener("keydown", (event) => this.key(event));
    for (const [name, held] of [["pointerdown", true], ["pointerup", false], ["pointerleave", false], ["pointercancel", false]]) {
      this.peek.addEventListener(name, () => this.hold(held));
    }
    listenToSwipes(this);
    this.peek.addEventListener("contextmenu", (event) => event.preventDefault()); // from a long press
    this.peek.addEventListener("keydown", (event) => [" ", "Enter"].includes(event.key) && this.hold(true));
    this.peek.addEventListener("keyup", () => this.hold(false));
    document.addEventListener("keydown", (event) => event.code === HOLD && !event.repeat && this.mayHold(event) && this.hold(true));
    document.addEventListener("keyup", (event) => event.code === HOLD && this.hold(false));
    window.addEventListener("blur", () => this.hold(false));
  }

  mayHold({ target, ctrlKey, metaKey, altKey }) {
    return this.root.offsetParent && !ctrlKey && !metaKey && !altKey && !target.closest?.("input:not([type=range]), textarea, [contenteditable], dialog");
  }

  watchJobs() {
    this.running = false;
    new MutationObserver(() => this.seeJob()).observe(this.column, { childList: true, subtree: true });
  }

  // When a job begins or ends: shows the one in progress, unless somebody is looking at another.
  seeJob() {
    const preview = this.column.querySelector("#stage img");
    if (preview) this.preview = preview.src;
    const runs = Boolean(this.column.querySelector("#stage .bar"));
    if (runs === this.running) return;
    this.running = runs;
    if (runs) {
      this.preview = null;
      this.frame.roomChanged();
      this.compare.close();
    } else if (this.preview && !this.looking) {
      this.last.style.backgroundImage = `url("${this.preview}")`;
      this.last.hidden = false;
      setTimeout(() => this.loading || (this.last.hidden = true), 300); // the job gave no picture
    }
    this.look(false);
  }

  look(looking) {
    this.looking = looking;
    this.column.toggleAttribute("data-looking", looking);
    this.strip.choose(this.column.querySelector("#stage .bar") && !looking ? null : this.file);
  }

  // value: as returned by Python's Viewer.postprocess.
  show({ results = [], selected = 0, comparison = null, shown = null }) {
    if (this.taken.has(shown)) return; // a repetition: see lingering() in ui/events.py
    if (shown) this.taken.add(shown);
    this.seeJob(); // a quick job may have begun just now, and its beginning closes a comparison
    const kept = this.looking && results.some(({ file }) => file === this.file) && results[selected]?.file !== this.file;
    this.results = results;
    this.strip.show(results);
    if (comparison) this.sources.set(comparison.file, { ...comparison, address: address(comparison.before) });
    // a result that somebody is looking at during a job stays, and the server is told
    if (kept) this.choose(this.file);
    else this.open(results[selected]?.file ?? null);
    if (comparison) this.compared(comparison);
    this.actions.update();
  }

  // The file before (-1) or after (1) the current one in the filmstrip, if any.
  neighbour(by) {
    return this.results[this.results.findIndex(({ file }) => file === this.file) + by]?.file ?? null;
  }

  get result() {
    return this.results.find(({ file }) => file === this.file) ?? null;
  }

  // Somebody chose a result; null: the one in progress.
  choose(file) {
    this.look(file !== null && Boolean(this.column.querySelector("#stage .bar")));
    if (file === null) return;
    if (file !== this.file) this.open(file);
    this.tell({ index: this.results.findIndex((result) => result.file === file), value: file });
  }

  async open(file) {
    const before = this.file;
    this.file = file;
    this.empty.hidden = Boolean(file);
    this.zoom.hidden = !file;
    this.look(this.looking);
    this.actions.update();
    if (!file) {
      this.picture?.remove();
      this.picture = null;
      this.frame.take(null);
      return this.compare.close();
    }
    if (file === before && this.picture) return (this.last.hidden = true);
    const picture = make("img", { className: "picture", alt: say('Result'), src: address(file) });
    const loading = (this.loading = picture);
    await picture.decode().catch(() => null);
    if (this.loading !== loading) return null;
    this.loading = null;
    if (!picture.naturalWidth) return this.tellNote(say('This picture could not be loaded: its copy is no longer there.'));
    if (this.picture) this.picture.replaceWith(picture);
    else this.sheet.prepend(picture);
    this.picture = picture;
    this.frame.take({ width: picture.naturalWidth, height: picture.naturalHeight });
    this.last.hidden = true;
    this.actions.update();
    return this.takeSource();
  }

  // --- compared

  takeSource() {
    const source = this.sources.get(this.file) ?? null;
    if (!source && (this.compare.how || this.compare.held)) this.askForSource();
    return this.compare.take(source);
  }

  // Asks the server, which knows the source; its answer arrives in show().
  askForSource() {
    if (this.asked === this.file || !this.file) return;
    this.asked = this.file;
    setTimeout(() => { this.asked = null; }, 2000); // in case it was refused
    this.actions.askForSource();
  }

  compared({ file, opening }) {
    this.asked = null;
    if (opening) this.compare.how ??= "slider";
    if (file === this.file && !this.loading) this.takeSource();
  }

  // The Compare button: turns the slider on and off.
  toggleCompare() {
    if (this.compare.how) return this.compare.close();
    this.compare.open("slider");
    return this.sources.has(this.file) ? null : this.askForSource();
  }

  hold(held) {
    if (held && !this.file) return;
    this.compare.hold(held);
    this.peek.setAttribute("aria-pressed", String(held));
    if (held && !this.sources.has(this.file)) this.askForSource();
  }

  tellNote(sentence) {
    this.note.textContent = sentence;
    this.note.hidden = false;
    clearTimeout(this.noted);
    this.noted = setTimeout(() => { this.note.hidden = true; }, NOTE);
  }

  // --- keys, while the frame or the filmstrip has focus

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.file || event.target.closest(".modes, .zoom")) return;
    const act = { "+": () => this.frame.zoom(this.frame.scale * NEARER), "-": () => this.frame.zoom(this.frame.scale / NEARER),
      0: () => this.frame.fit(), 1: () => this.frame.centre(1), Delete: () => this.actions.press("delete-result") }[event.key];
    if (!act && !this.strip.step(event.key, this.file)) return;
    act?.();
    event.preventDefault();
    event.stopPropagation(); // the canvas uses the same keys
  }
}

// The URL of a file in Gradio's cache.
export function address(file) {
  return new URL(`gradio_api/file=${file.split("/").map(encodeURIComponent).join("/")}`, document.baseURI).href;
}

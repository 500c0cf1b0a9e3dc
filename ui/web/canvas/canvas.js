// One canvas: puts document, view, tools and bars together, and does what people ask of it.

import { button, choice, colour, make, palette, slider, tooltips } from "./bar.js";
import { Document } from "./document.js";
import { icon } from "./icons.js";
import { greys } from "./masks.js";
import { fillHoles } from "./modify.js";
import { Panels } from "./panels.js";
import { Pointers } from "./pointer.js";
import { Settings, coloursOf } from "./settings.js";
import { Storage } from "./storage.js";
import { say } from "./text.js";
import { Brush } from "./tools/brush.js";
import { ColourSelect } from "./tools/colours.js";
import { Eyedropper } from "./tools/eyedropper.js";
import { Gradient } from "./tools/gradient.js";
import { Ellipse, Lasso, Polygon, Rectangle } from "./tools/shapes.js";
import { Transport, decode, load } from "./transport.js";
import { View } from "./view.js";

const FINER = 3; // sliders of sizes: as fine for small ones as people's eyes
const NOTE = 8000; // milliseconds
const PICTURE_TYPES = "image/*,.heic,.heif,.hif,.tif,.tiff,.avif";
const BRUSH = ["size", "hardness", "opacity"];
const SHAPE = ["opacity", "takes"];
const COLOURS = ["tolerance", ...SHAPE];
const OPTIONS = { brush: BRUSH, eraser: BRUSH, lasso: SHAPE, polygon: SHAPE, rectangle: SHAPE, ellipse: SHAPE, fill: COLOURS,
  colours: COLOURS, gradient: SHAPE, eyedropper: [] };
const INKS = ["#000000", "#ffffff", "#64748b", "#ef4444", "#f97316", "#facc15", "#22c55e", "#0ea5e9", "#6366f1", "#a16207"];
const percent = (share) => `${Math.round(100 * share)} %`;

const settings = new Settings(); // of all canvases

export class Canvas {
  // kind: "mask" or "paint", what is painted.
  constructor(root, id, kind) {
    Object.assign(this, { root, id, settings, kind, document: new Document(kind, coloursOf(settings.get("overlay"))) });
    this.transport = new Transport(id, this.document);
    this.storage = new Storage(id, () => ({ picture: this.transport.picture?.blob, layer: this.document.layer, shown: this.shown }));
    this.buildStage();
    this.view = new View(this.stage, this.document);
    this.tools = this.makeTools();
    this.buildBars();
    this.pointers = new Pointers(this.view, { stage: this.stage, ring: this.ring, tool: () => this.tools[this.chosen], document: this.document });
    this.choose("brush");
    this.listen();
    this.update();
  }

  makeTools() {
    const parts = { document: this.document, settings, view: () => this.view };
    const tools = {
      brush: new Brush(parts, { name: "brush" }), eraser: new Brush(parts, { name: "eraser", erase: true }),
      lasso: new Lasso(parts, { name: "lasso" }), polygon: new Polygon(parts, { name: "polygon" }),
      rectangle: new Rectangle(parts, { name: "rectangle" }), ellipse: new Ellipse(parts, { name: "ellipse" }),
      fill: new ColourSelect(parts, { name: "fill", touching: true }), colours: new ColourSelect(parts, { name: "colours", touching: false }),
      gradient: new Gradient(parts, { name: "gradient" }),
    };
    return this.kind === "mask" ? tools : { ...tools, eyedropper: new Eyedropper(parts, { name: "eyedropper" }) };
  }

  buildStage() {
    this.input = make("input", { type: "file", accept: PICTURE_TYPES, onchange: () => this.take(this.input.files[0]) });
    this.input.setAttribute("aria-label", say('Choose a picture'));
    this.ring = make("div", { className: "ring", hidden: true });
    this.empty = make("button", { type: "button", className: "empty", onclick: () => this.input.click() });
    this.empty.innerHTML = icon("picture");
    this.status = make("div", { className: "status", hidden: true });
    this.status.setAttribute("role", "status");
    this.stage = make("div", { className: "stage", tabIndex: 0 },
      make("div", { className: "sheet" }, ...["picture", "layer", "guides"].map((className) => make("canvas", { className })), this.ring), this.status);
    this.stage.setAttribute("role", "application");
    this.stage.setAttribute("aria-label", say('Canvas: arrow keys move the tool, Enter sets it down and lifts it'));
  }

  buildBars() {
    const act = (name) => () => this[name]();
    const masked = this.kind === "mask";
    const tool = (name, label, key) => button(name, label, { key, act: () => this.choose(name) });
    this.buttons = {
      brush: tool("brush", say('Brush'), "B"), eraser: tool("eraser", say('Eraser'), "E"),
      lasso: tool("lasso", say('Lasso'), "L"), polygon: tool("polygon", say('Polygon'), "P"),
      rectangle: tool("rectangle", say('Rectangle'), "R"), ellipse: tool("ellipse", say('Ellipse'), "O"),
      fill: tool("fill", say('Fill what has one colour'), "F"), colours: tool("colours", say('Select a colour everywhere'), "C"),
      gradient: tool("gradient", say('Gradient'), "G"), eyedropper: tool("eyedropper", say('Take a colour from the picture'), "I"),
      undo: button("undo", say('Undo'), { key: "Ctrl+Z", act: act("undo") }),
      redo: button("redo", say('Redo'), { key: "Ctrl+Shift+Z", act: act("redo") }),
      change: button("change", say('Grow, shrink, feather or smooth the mask'), { key: "M", act: act("change") }),
      invert: button("invert", say('Invert the mask'), { key: "I", act: act("invert") }),
      clear: button("clear", masked ? say('Clear the mask') : say('Clear what was painted'), { key: "Del", act: act("clear") }),
      more: button("more", say('Masks from elsewhere, and as files'), { act: act("more") }),
      open: button("picture", say('Choose another picture'), { act: () => this.input.click() }),
      remove: button("remove", say('Remove the picture'), { act: act("remove") }),
      look: button("eye", masked ? say('Hide or show the mask') : say('Hide or show what was painted'), { key: "V", act: act("look") }),
      fit: button("fit", say('Fit'), { key: "0", act: () => this.view.fit() }),
    };
    const { undo, redo, change, invert, clear, more, open, remove, look, fit } = this.buttons;
    const set = (name) => (value) => settings.set(name, value);
    this.sliders = {
      size: slider(say('Size'), { between: [1, () => this.largest], curve: FINER, key: "[ ]", value: () => settings.get("size"),
        show: (size) => `${Math.round(size)}`, act: (size) => settings.set("size", Math.round(size)) }),
      hardness: slider(say('Hardness'), { between: [0, () => 1], value: () => settings.get("hardness"), show: percent, act: set("hardness") }),
      tolerance: slider(say('Tolerance'), { between: [0, () => 255], curve: 2, value: () => settings.get("tolerance"),
        show: (value) => `${Math.round(value)}`, act: (value) => settings.set("tolerance", Math.round(value)) }),
      opacity: slider(say('Opacity'), { between: [0.01, () => 1], value: () => settings.get("opacity"), show: percent, act: set("opacity") }),
      takes: choice(say('What the tool does'), [[false, say('Add')], [true, say('Take away')]], { value: () => settings.get("takes"), act: set("takes") }),
      ink: palette(say('Colour to paint with'), INKS, { value: () => settings.get("ink"), act: set("ink") }),
      overlay: colour(say('Colour that the mask is shown in'), { value: () => settings.get("overlay"), act: set("overlay") }),
      overlayOpacity: slider(say('Mask'), { between: [0.1, () => 1], value: () => settings.get("overlayOpacity"), show: percent,
        act: set("overlayOpacity") }),
    };
    const { size, hardness, tolerance, opacity, takes, ink, overlay, overlayOpacity } = this.sliders;
    this.zoomed = make("button", { type: "button", className: "percent", onclick: () => this.view.centre(1) });
    this.zoomed.tip = () => [say('Show at 100 %'), "1"];
    const line = (...parts) => make("div", { className: "group" }, ...parts);
    const tools = make("div", { className: "tools" }, line(...Object.keys(this.tools).map((name) => this.buttons[name])), line(undo, redo),
      masked ? line(change, invert, clear, more) : line(clear), line(open, remove));
    tools.setAttribute("role", "toolbar");
    tools.setAttribute("aria-label", say('Tools'));
    const options = make("div", { className: "options" }, size, hardness, tolerance, opacity, takes, masked ? line(overlay, overlayOpacity) : ink,
      make("div", { className: "zoom" }, look, this.zoomed, fit));
    options.setAttribute("role", "group");
    options.setAttribute("aria-label", say('How the tool is set'));
    this.root.append(this.input, tools, this.stage, options, this.empty);
    this.panels = new Panels(this.root, this);
    tooltips(this.root);
    new ResizeObserver(([{ contentRect }]) => this.root.classList.toggle("wide", contentRect.width >= 560)).observe(this.root);
  }

  listen() {
    for (const name of ["picture", "history"]) {
      this.document.addEventListener(name, () => {
        this.update();
        this.storage.touch();
      });
    }
    this.view.listeners.add(() => { this.zoomed.textContent = percent(this.view.scale); });
    settings.addEventListener("change", ({ detail }) => {
      if (detail === "overlay") this.document.recolour(coloursOf(settings.get("overlay")));
      this.update();
    });
    this.root.addEventListener("dragover", (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      this.root.classList.add("dropping");
    });
    for (const name of ["dragleave", "drop"]) this.root.addEventListener(name, () => this.root.classList.remove("dropping"));
    this.root.addEventListener("drop", (event) => {
      const file = event.dataTransfer.files[0];
      if (!file) return;
      event.preventDefault();
      this.take(file);
    });
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keyup", (event) => event.key === " " && this.hold(false));
    window.addEventListener("blur", () => this.hold(false));
  }

  // --- what it shows

  // value: as Python's Canvas.postprocess gives it. Gradio may repeat one, after a reload too; `shown` tells each from the others.
  // opening: the page's last job, which what the browser has kept is newer than.
  async show({ picture, mask, shown, opening }) {
    if (!picture?.url || shown === this.shown || (opening && this.known)) return;
    this.shown = shown;
    const turn = (this.turn = Symbol("the newest wins"));
    this.root.setAttribute("aria-busy", "true");
    try {
      const [blob, painted] = await Promise.all([load(picture.url), mask && load(mask.url)]);
      const bitmap = await decode(blob);
      const values = painted && await greys(painted, bitmap);
      if (this.turn !== turn) return bitmap.close();
      this.open(bitmap, { file: picture, blob }, values);
      if (values) this.transport.holdLayer(mask);
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.root.removeAttribute("aria-busy");
    }
  }

  // What this browser has kept, or what Python has shown after that.
  async begin(value) {
    const turn = (this.turn = Symbol("the newest wins"));
    const channels = this.kind === "mask" ? 1 : 4;
    const kept = await this.storage.restore(channels);
    if (this.turn !== turn) return;
    this.known = Boolean(kept);
    this.shown = kept?.shown;
    if (value.picture?.url && value.shown !== this.shown && !(value.opening && kept)) return this.show(value);
    const bitmap = kept?.picture && await decode(kept.picture).catch(() => null);
    if (!bitmap) return;
    if (this.turn !== turn) return bitmap.close();
    const fits = kept.numbers.length === bitmap.width * bitmap.height * channels;
    this.open(bitmap, { blob: kept.picture }, fits ? kept.numbers : null);
  }

  // A file of the person's.
  async take(file) {
    this.input.value = "";
    if (!file) return;
    const turn = (this.turn = Symbol("the newest wins"));
    this.root.setAttribute("aria-busy", "true");
    try {
      const bitmap = await decode(file);
      if (this.turn !== turn) return bitmap.close();
      this.open(bitmap, { blob: file });
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.root.removeAttribute("aria-busy");
    }
  }

  open(bitmap, source, mask = null) {
    this.quiet();
    this.known = true;
    this.document.open(bitmap, mask);
    this.transport.hold(source);
    const longer = Math.max(bitmap.width, bitmap.height);
    if (!settings.get("size") || settings.get("size") > this.largest) settings.set("size", Math.max(8, Math.round(longer / 10)));
  }

  // Nothing of what was begun on the last picture goes on.
  quiet() {
    this.pointers.at = this.pointers.pen = null;
    this.tools[this.chosen].cancel();
    this.tools[this.chosen].leave?.();
    this.panels.close();
  }

  remove() {
    this.quiet();
    this.turn = null;
    this.transport.hold(null);
    this.document.clear();
  }

  get largest() {
    const { picture } = this.document;
    return picture ? Math.max(64, Math.max(picture.width, picture.height)) : 512;
  }

  update() {
    const { picture, history } = this.document;
    this.root.classList.toggle("is-empty", !picture);
    this.empty.lastChild.nodeType === Node.TEXT_NODE && this.empty.lastChild.remove();
    this.empty.hidden = Boolean(picture);
    if (!picture) this.empty.append(say('Drop a picture here, or click to choose one'));
    const { undo, redo, look } = this.buttons;
    undo.disabled = !history.past.length;
    redo.disabled = !history.future.length;
    look.setAttribute("aria-pressed", String(!this.hidden));
    for (const control of Object.values(this.sliders)) control.update();
    this.stage.querySelector("canvas.layer").style.opacity = this.hidden ? 0 : this.kind === "mask" ? settings.get("overlayOpacity") : 1;
    this.pointers.showRing();
  }

  // What went wrong, which must be seen; and what was done, which is enough to see for a while.
  tell(sentence) {
    alert(say(sentence));
  }

  note(sentence) {
    this.status.textContent = sentence;
    this.status.hidden = false;
    clearTimeout(this.noted);
    this.noted = setTimeout(() => { this.status.hidden = true; }, NOTE);
  }

  // --- what people do

  choose(name) {
    this.pointers.penUp();
    if (this.chosen && this.chosen !== name) {
      this.tools[this.chosen].cancel();
      this.tools[this.chosen].leave?.();
    }
    this.chosen = name;
    for (const tool of Object.keys(this.tools)) this.buttons[tool].setAttribute("aria-pressed", String(tool === name));
    const shown = OPTIONS[name];
    for (const option of ["size", "hardness", "tolerance", "opacity", "takes"]) this.sliders[option].hidden = !shown.includes(option);
    this.pointers.showRing();
  }

  change() {
    this.panels.toggleChange(this.buttons.change);
  }

  more() {
    this.panels.toggleMore(this.buttons.more);
  }

  fillHoles() {
    const { layer } = this.document;
    this.rewrite((numbers) => fillHoles(numbers, layer.width, layer.height));
  }

  // numbers: a mask of the picture's size that takes the place of what is there.
  replaceMask(numbers) {
    this.rewrite((all) => all.set(numbers));
  }

  undo() {
    this.panels.close();
    this.document.undo();
  }

  redo() {
    this.panels.close();
    this.document.redo();
  }

  invert() {
    this.rewrite((numbers) => numbers.forEach((value, i) => { numbers[i] = 255 - value; }));
  }

  clear() {
    this.rewrite((numbers) => numbers.fill(0));
  }

  rewrite(change) {
    const { document } = this;
    this.panels.close();
    if (document.layer) document.rewrite(change);
  }

  look() {
    this.hidden = !this.hidden;
    this.update();
  }

  hold(held) {
    if (this.pointers.held === held) return;
    this.pointers.held = held;
    this.stage.classList.toggle("held", held);
    this.pointers.showRing();
  }

  resizeBrush(by) {
    const size = settings.get("size");
    const step = Math.max(1, Math.round(size * 0.1));
    settings.set("size", Math.min(Math.max(size + by * step, 1), this.largest));
  }

  harden(by) {
    settings.set("hardness", Math.min(Math.max(Math.round(settings.get("hardness") * 10 + by) / 10, 0), 1));
  }

  // Keys of the page: they act on the canvas that is on show, unless somebody types.
  key(event) {
    if (!this.document.picture || !this.root.offsetParent || event.target.closest?.("textarea, select, [contenteditable], dialog[open]")) return;
    const field = event.target.closest?.("input");
    if (field && !["range", "checkbox", "radio", "color", "button"].includes(field.type)) return;
    const acts = event.ctrlKey || event.metaKey ? this.commands : event.altKey ? {} : this.keys;
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.key === " " && !this.pointers.at && event.target !== document.body)) return; // or it presses what has the focus
    event.preventDefault();
    act(event);
  }

  commands = {
    z: ({ shiftKey }) => (shiftKey ? this.redo() : this.undo()),
    y: () => this.redo(),
  };

  keys = {
    b: () => this.choose("brush"),
    e: () => this.choose("eraser"),
    l: () => this.choose("lasso"),
    p: () => this.choose("polygon"),
    r: () => this.choose("rectangle"),
    o: () => this.choose("ellipse"),
    f: () => this.choose("fill"),
    c: () => this.choose("colours"),
    g: () => this.choose("gradient"),
    m: () => this.kind === "mask" && this.change(),
    i: () => (this.kind === "mask" ? this.invert() : this.choose("eyedropper")),
    v: () => this.look(),
    0: () => this.view.fit(),
    1: () => this.view.centre(1),
    "+": () => this.view.zoom(this.view.scale * 1.25),
    "-": () => this.view.zoom(this.view.scale / 1.25),
    "[": () => this.resizeBrush(-1),
    "]": () => this.resizeBrush(1),
    "{": () => this.harden(-1),
    "}": () => this.harden(1),
    Delete: () => this.clear(),
    " ": () => this.hold(true),
  };
}

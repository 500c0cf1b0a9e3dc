// The canvas as a whole: puts document, view, tools and bar together in an element, and tells the page what it holds.

import { button, colour, make, slider, tooltips } from "./bar.js";
import { Document } from "./document.js";
import { Pointers } from "./pointer.js";
import { Settings, coloursOf } from "./settings.js";
import { say } from "./text.js";
import { Brush } from "./tools/brush.js";
import { Transport, decode, load } from "./transport.js";
import { View } from "./view.js";
import { icon } from "./icons.js";

const STYLE = new URL("canvas.css", import.meta.url);
const FINER = 3; // sliders of sizes: as fine for small ones as people's eyes
const PICTURE_TYPES = "image/*,.heic,.heif,.hif,.tif,.tiff,.avif";
const percent = (share) => `${Math.round(100 * share)} %`;

const settings = new Settings(); // of all canvases
const canvases = new Map();

// For Gradio's events: values of canvases as they are on the server, one after the other.
async function send(values, how) {
  const told = [];
  for (const value of values) told.push(canvases.has(value?.canvas) ? await canvases.get(value.canvas).transport.send(how) : value);
  return told;
}

// Where Gradio calls: element has the .canvas, props.value what Python shows in it, watch() tells when that changes.
export async function mount(element, props, watch) {
  await styled();
  const canvas = new Canvas(element.querySelector(".canvas"), props.value.canvas);
  canvases.set(canvas.id, canvas);
  (window.palimpsest ??= {}).canvases = { send, of: (id) => canvases.get(id) };
  watch("value", () => canvas.show(props.value));
  if (props.value.picture) canvas.show(props.value);
}

function styled() {
  const there = document.querySelector(`link[href="${STYLE}"]`);
  if (there) return there.sheet ? null : new Promise((done) => there.addEventListener("load", done));
  return new Promise((done) => {
    document.head.append(make("link", { rel: "stylesheet", href: STYLE, onload: done, onerror: done }));
  });
}

class Canvas {
  constructor(root, id) {
    Object.assign(this, { root, id, settings, document: new Document(coloursOf(settings.get("overlay"))) });
    this.transport = new Transport(id, this.document);
    this.build();
    this.view = new View(this.stage, this.document);
    const parts = { document: this.document, settings, layer: () => this.document.mask };
    this.tools = { brush: new Brush(parts, { name: "brush" }), eraser: new Brush(parts, { name: "eraser", erase: true }) };
    this.pointers = new Pointers(this.view, { stage: this.stage, ring: this.ring, tool: () => this.tools[this.chosen], document: this.document });
    this.choose("brush");
    this.listen();
    this.update();
  }

  build() {
    const act = (name) => () => this[name]();
    this.buttons = {
      brush: button("brush", say('Brush'), { key: "B", act: () => this.choose("brush") }),
      eraser: button("eraser", say('Eraser'), { key: "E", act: () => this.choose("eraser") }),
      undo: button("undo", say('Undo'), { key: "Ctrl+Z", act: () => this.document.undo() }),
      redo: button("redo", say('Redo'), { key: "Ctrl+Shift+Z", act: () => this.document.redo() }),
      invert: button("invert", say('Invert the mask'), { key: "I", act: act("invert") }),
      clear: button("clear", say('Clear the mask'), { key: "Del", act: act("clearMask") }),
      open: button("picture", say('Choose another picture'), { act: () => this.input.click() }),
      remove: button("remove", say('Remove the picture'), { act: act("remove") }),
      look: button("eye", say('Hide or show the mask'), { key: "V", act: act("look") }),
      fit: button("fit", say('Fit'), { key: "0", act: () => this.view.fit() }),
    };
    const { brush, eraser, undo, redo, invert, clear, open, remove, look, fit } = this.buttons;
    this.sliders = {
      size: slider(say('Size'), { between: [1, () => this.largest], curve: FINER, key: "[ ]", value: () => settings.get("size"),
        show: (size) => `${Math.round(size)}`, act: (size) => settings.set("size", Math.round(size)) }),
      hardness: slider(say('Hardness'), { between: [0, () => 1], value: () => settings.get("hardness"), show: percent,
        act: (share) => settings.set("hardness", share) }),
      opacity: slider(say('Opacity'), { between: [0.01, () => 1], value: () => settings.get("opacity"), show: percent,
        act: (share) => settings.set("opacity", share) }),
      overlay: colour(say('Colour that the mask is shown in'), { value: () => settings.get("overlay"), act: (hex) => settings.set("overlay", hex) }),
      overlayOpacity: slider(say('Mask'), { between: [0.1, () => 1], value: () => settings.get("overlayOpacity"), show: percent,
        act: (share) => settings.set("overlayOpacity", share) }),
    };
    const { size, hardness, opacity, overlay, overlayOpacity } = this.sliders;
    this.zoomed = make("button", { type: "button", className: "percent", onclick: () => this.view.centre(1) });
    this.zoomed.tip = () => [say('Show at 100 %'), "1"];
    this.input = make("input", { type: "file", accept: PICTURE_TYPES, onchange: () => this.take(this.input.files[0]) });
    this.input.setAttribute("aria-label", say('Choose a picture'));
    this.ring = make("div", { className: "ring", hidden: true });
    this.empty = make("button", { type: "button", className: "empty", onclick: () => this.input.click() });
    this.empty.innerHTML = icon("picture");
    this.stage = make("div", { className: "stage", tabIndex: 0 },
      make("div", { className: "sheet" }, ...["picture", "mask", "guides"].map((className) => make("canvas", { className })), this.ring));
    this.stage.setAttribute("role", "application");
    this.stage.setAttribute("aria-label", say('Picture and mask: arrow keys move the tool, Enter sets it down and lifts it'));
    const line = (...parts) => make("div", { className: "group" }, ...parts);
    const tools = make("div", { className: "tools" }, line(brush, eraser), line(undo, redo), line(invert, clear), line(open, remove));
    tools.setAttribute("role", "toolbar");
    tools.setAttribute("aria-label", say('Tools'));
    const options = make("div", { className: "options" }, size, hardness, opacity, line(overlay, overlayOpacity),
      make("div", { className: "zoom" }, look, this.zoomed, fit));
    options.setAttribute("role", "group");
    options.setAttribute("aria-label", say('How the tool is set'));
    this.root.append(this.input, tools, this.stage, options, this.empty);
    tooltips(this.root);
    new ResizeObserver(([{ contentRect }]) => this.root.classList.toggle("wide", contentRect.width >= 560)).observe(this.root);
  }

  listen() {
    this.document.addEventListener("picture", () => this.update());
    this.document.addEventListener("history", () => this.update());
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

  // value: as Python's Canvas.postprocess gives it.
  async show({ picture, mask }) {
    if (!picture) return this.remove();
    const turn = (this.turn = Symbol("the newest wins"));
    this.root.setAttribute("aria-busy", "true");
    try {
      const [bitmap, numbers] = [await decode(await load(picture.url)), mask && await load(mask.url)];
      const values = numbers && await greys(numbers, bitmap);
      if (this.turn !== turn) return bitmap.close();
      this.open(bitmap, { file: picture }, values);
      if (values) this.transport.holdMask(mask);
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.root.removeAttribute("aria-busy");
    }
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
    this.pointers.at = null;
    this.document.open(bitmap, mask);
    this.transport.hold(source);
    const longer = Math.max(bitmap.width, bitmap.height);
    if (!settings.get("size") || settings.get("size") > this.largest) settings.set("size", Math.max(8, Math.round(longer / 10)));
  }

  remove() {
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
    const mask = this.stage.querySelector("canvas.mask");
    mask.style.opacity = this.hidden ? 0 : settings.get("overlayOpacity");
    this.pointers.showRing();
  }

  tell(sentence) {
    alert(say(sentence));
  }

  // --- what people do

  choose(name) {
    this.pointers.penUp();
    this.chosen = name;
    for (const tool of Object.keys(this.tools)) this.buttons[tool].setAttribute("aria-pressed", String(tool === name));
    this.pointers.showRing();
  }

  invert() {
    const { document } = this;
    if (document.mask) document.rewrite(document.mask, (numbers) => numbers.forEach((value, i) => { numbers[i] = 255 - value; }));
  }

  clearMask() {
    const { document } = this;
    if (document.mask) document.rewrite(document.mask, (numbers) => numbers.fill(0));
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
    z: ({ shiftKey }) => (shiftKey ? this.document.redo() : this.document.undo()),
    y: () => this.document.redo(),
  };

  keys = {
    b: () => this.choose("brush"),
    e: () => this.choose("eraser"),
    i: () => this.invert(),
    v: () => this.look(),
    0: () => this.view.fit(),
    1: () => this.view.centre(1),
    "+": () => this.view.zoom(this.view.scale * 1.25),
    "-": () => this.view.zoom(this.view.scale / 1.25),
    "[": () => this.resizeBrush(-1),
    "]": () => this.resizeBrush(1),
    "{": () => this.harden(-1),
    "}": () => this.harden(1),
    Delete: () => this.clearMask(),
    " ": () => this.hold(true),
  };
}

// The numbers of a mask's file at the picture's size.
async function greys(blob, { width, height }) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const pen = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const colours = pen.getImageData(0, 0, width, height).data;
  return Uint8ClampedArray.from({ length: width * height }, (_, i) => colours[4 * i]);
}

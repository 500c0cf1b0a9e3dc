// One canvas: connects document, view, tools and bars, and carries out what people ask for.

import { tooltips } from "./bar.js";
import { layOut, makeButtons, makeSliders, percent } from "./controls.js";
import { Document } from "./document.js";
import { dropped, listenToDrops } from "./dropping.js";
import { Foresight } from "./foresight.js";
import { pack, unpack } from "./history.js";
import { listenToKeys } from "./keys.js";
import { fillHoles } from "./modify.js";
import { Panels } from "./panels.js";
import { Pointers } from "./pointer.js";
import { Selections } from "./selections.js";
import { Settings, coloursOf } from "./settings.js";
import { Sources } from "./sources.js";
import { buildFiles, buildStage } from "./stage.js";
import { Storage } from "./storage.js";
import { say } from "./text.js";
import { makeTools, optionsOf } from "./toolbox.js";
import { Transport, decode } from "./transport.js";
import { View } from "./view.js";

const OPTIONAL = ["outlines", "model", "advice", "beside", "size", "hardness", "tolerance", "opacity", "takes", "next",
  "extending"]; // per tool
const NOTE = 8000; // milliseconds
const WIDE = 560; // CSS pixels; in a wider canvas the tools stand beside the picture

const settings = new Settings(); // shared by all canvases

export class Canvas {
  // kind: "mask", "paint", or "picture": nothing can be painted. uploads: if the mask may be a file, sent to the server
  // unchanged: the prefix of its inputs' ids. foresees: whether Python previews what Generate will do. trigger(event, data):
  // tells Python.
  constructor(root, id, { kind, uploads, foresees }, trigger) {
    Object.assign(this, { root, id, settings, kind, uploads, foresees: Boolean(foresees), trigger, document: new Document(kind, coloursOf(settings.get("overlay"))) });
    this.transport = new Transport(id, this.document);
    this.sources = new Sources(this);
    this.storage = new Storage(id, () => ({ picture: this.transport.picture?.blob, layer: this.document.layer, shown: this.sources.shown,
      mask: uploads && this.transport.untouched?.blob, waiting: this.sources.waiting }));
    Object.assign(this, buildStage(kind, { take: (file) => this.take(file), takeMask: (file) => this.takeMask(file) }));
    this.view = new View(this.stage, this.document);
    this.tools = makeTools(kind, { document: this.document, settings, view: () => this.view, selections: new Selections(this.transport),
      note: (sentence) => this.note(sentence), optionsChanged: () => this.showOptions() });
    this.buildBars();
    this.pointers = new Pointers(this.view, { stage: this.stage, ring: this.ring, tool: () => this.tools[this.chosen], document: this.document });
    this.foresight = new Foresight(this, trigger);
    this.choose(Object.keys(this.tools)[0]);
    this.listen();
    this.update();
  }

  buildBars() {
    this.buttons = makeButtons(this);
    this.sliders = makeSliders(this, settings);
    const { tools, options, zoom, zoomed } = layOut(this, this.buttons, this.sliders);
    this.zoomed = zoomed;
    this.files = this.uploads ? buildFiles(this.uploads, this) : null;
    this.root.classList.toggle("uploads", Boolean(this.files));
    this.stage.append(zoom);
    this.root.append(...(this.files ? [this.files.row] : [this.input, this.masks]), ...[tools, this.stage, options, this.empty].filter(Boolean));
    this.panels = new Panels(this.root, this);
    tooltips(this.root);
    new ResizeObserver(([{ contentRect }]) => this.root.classList.toggle("wide", contentRect.width >= WIDE)).observe(this.root);
  }

  listen() {
    for (const name of ["picture", "history"]) {
      this.document.addEventListener(name, () => {
        this.update();
        this.storage.touch();
      });
    }
    this.document.addEventListener("picture", () => this.tools[this.chosen].enter?.()); // quiet() has made it leave the last one
    this.view.listeners.add(() => {
      this.zoomed.textContent = percent(this.view.scale);
      this.stage.classList.toggle("larger", this.view.larger);
    });
    settings.addEventListener("change", ({ detail }) => {
      if (detail === "overlay") this.document.recolour(coloursOf(settings.get("overlay")));
      this.update();
      this.showOptions();
    });
    this.document.addEventListener("pixels", () => this.hidden && this.look()); // new paint must be visible
    listenToDrops(this);
    listenToKeys(this);
  }

  // --- what is shown

  show(value) {
    if (value.foreseen) return this.foresight.take(value.foreseen);
    return this.sources.show(value);
  }

  begin(value) {
    return this.sources.begin(value);
  }

  take(file) {
    return this.sources.take(file);
  }

  takeMask(file) {
    return this.sources.takeMask(file);
  }

  // A file or a result, dropped here or beside it. takes: "picture" or "mask".
  async takeDropped(transfer, takes = "picture") {
    const file = await dropped(transfer).catch((error) => this.tell(error.message));
    return takes === "mask" ? this.takeMask(file) : this.take(file);
  }

  // The layer in its present state came from a file.
  holdLayer(source) {
    this.transport.holdLayer(source);
    this.update();
    this.storage.touch();
  }

  // Show what a job is about to use.
  async send(how) {
    const told = await this.transport.send(how);
    if (this.hidden && told[this.kind] && !how?.only) this.look();
    return told;
  }

  noteNoMask() {
    if (this.kind === "mask") this.note(say('The picture came without a mask.'));
  }

  open(bitmap, source, mask = null) {
    this.quiet();
    this.sources.known = true;
    this.document.open(bitmap, mask);
    this.transport.hold(source);
    this.trigger("upload");
    const longer = Math.max(bitmap.width, bitmap.height);
    if (!settings.get("size") || settings.get("size") > this.largest) settings.set("size", Math.max(8, Math.round(longer / 10)));
  }

  // Stop everything begun on the previous picture.
  quiet() {
    this.pointers.at = this.pointers.pen = null;
    this.tools[this.chosen].cancel();
    this.tools[this.chosen].leave?.();
    this.panels.close();
  }

  remove() {
    this.quiet();
    this.sources.turn = null;
    this.transport.hold(null);
    this.document.clear();
    this.trigger("clear");
  }

  get channels() {
    return { mask: 1, paint: 4, picture: 0 }[this.kind];
  }

  // The largest brush's size.
  get largest() {
    const { picture } = this.document;
    return picture && settings.get("brushUnit") === "picture" ? Math.max(64, Math.max(picture.width, picture.height)) : 512;
  }

  update() {
    const { picture, history } = this.document;
    this.root.classList.toggle("is-empty", !picture);
    this.empty.lastChild.nodeType === Node.TEXT_NODE && this.empty.lastChild.remove();
    this.empty.hidden = Boolean(picture);
    if (!picture) this.empty.append(say('Drop a picture here, paste one, or click to choose one'));
    const { undo, redo, look, foresee } = this.buttons;
    foresee.setAttribute("aria-pressed", String(this.foresight.on));
    undo.disabled = !history.past.length;
    redo.disabled = !history.future.length;
    look.setAttribute("aria-pressed", String(!this.hidden));
    for (const control of Object.values(this.sliders)) control.update?.();
    if (this.files) this.updateFiles();
    this.stage.querySelector("canvas.layer").style.opacity = this.hidden ? 0 : this.kind === "mask" ? settings.get("overlayOpacity") : 1;
    this.pointers.showRing();
  }

  updateFiles() {
    const { files, document: { picture, layer, version }, transport, sources } = this;
    files.picture.textContent = picture ? `${picture.width}×${picture.height}` : '—';
    files.mask.textContent = !layer ? (sources.waiting ? say('waits for the picture') : say('none'))
      : transport.untouched ? (sources.fit?.version === version ? sources.fit.text : say('unchanged')) : layer.blank ? say('none') : say('painted');
  }

  // An error, which stays until it is dismissed; and a note, which disappears after a while.
  tell(sentence) {
    alert(say(sentence));
  }

  note(sentence) {
    this.status.textContent = sentence;
    this.status.hidden = !sentence;
    clearTimeout(this.noted);
    this.noted = setTimeout(() => { this.status.hidden = true; }, NOTE);
  }

  // --- actions

  choose(name) {
    this.pointers.penUp();
    if (this.chosen && this.chosen !== name) {
      this.tools[this.chosen].cancel();
      this.tools[this.chosen].leave?.();
    }
    this.chosen = name;
    for (const tool of Object.keys(this.tools)) this.buttons[tool]?.setAttribute("aria-pressed", String(tool === name));
    this.tools[name].enter?.();
    if (this.buttons[name]) bringIntoSight(this.buttons[name]);
    this.showOptions();
    this.pointers.showRing();
    this.foresight.showOffer();
  }

  showOptions() {
    const shown = optionsOf(this.tools[this.chosen]);
    for (const option of OPTIONAL) {
      if (this.sliders[option]) Object.assign(this.sliders[option], { hidden: !shown.includes(option) }).update?.();
    }
  }

  // Finish the object being selected by clicks.
  nextObject() {
    this.tools.clicks.next();
  }

  change() {
    this.panels.toggleChange(this.buttons.change);
  }

  more() {
    this.panels.toggleMore(this.buttons.more);
  }

  set() {
    this.panels.toggleSettings(this.buttons.set);
  }

  fillHoles() {
    const { layer } = this.document;
    this.rewrite((numbers) => fillHoles(numbers, layer.width, layer.height));
  }

  // numbers: a mask of the picture's size, which replaces the present one.
  replaceMask(numbers) {
    this.rewrite((all) => all.set(numbers));
  }

  undo() {
    return this.travel("undo");
  }

  redo() {
    return this.travel("redo");
  }

  async travel(way) {
    const { document } = this;
    this.panels.close();
    const state = document.history.next(way)?.state;
    if (!state) return document.travel(way);
    await this.sources.open(async (current) => {
      const bitmap = await decode(state.source.blob);
      if (!current() || document.history.next(way)?.state !== state) return bitmap.close();
      this.quiet();
      document.history.pass(way, this.state());
      document.exchange(bitmap, unpack(state.numbers));
      this.transport.hold(state.source);
    });
  }

  // Replace the picture, as a step that can be undone. numbers: its layer.
  exchange(bitmap, source, numbers) {
    this.quiet();
    this.document.commit();
    this.document.history.addState(this.state());
    this.document.exchange(bitmap, numbers);
    this.transport.hold(source);
  }

  // Everything needed to return to this picture and its layer.
  state() {
    const { layer } = this.document;
    const numbers = pack(layer.data.slice(), layer.channels);
    return { source: this.transport.picture, numbers, bytes: numbers.bytes + this.transport.picture.blob.size };
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

  toggleForesight() {
    settings.set("foresee", !settings.get("foresee"));
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

  // unit: "picture" or "screen", the pixels that the size is measured in; the brush keeps its present size.
  measureBrushIn(unit) {
    if (unit === settings.get("brushUnit")) return;
    const shown = this.view.scale / this.view.ratio; // CSS pixels per picture pixel
    const size = settings.get("size") * (unit === "screen" ? shown : 1 / shown);
    settings.set("brushUnit", unit);
    if (size) settings.set("size", Math.max(1, Math.min(Math.round(size), this.largest)));
  }

  harden(by) {
    settings.set("hardness", Math.min(Math.max(Math.round(settings.get("hardness") * 10 + by) / 10, 0), 1));
  }
}

// Scroll a narrow toolbar until a button is visible, and nothing else.
function bringIntoSight(button) {
  const bar = button.closest(".tools");
  const [own, all] = [button, bar].map((element) => element.getBoundingClientRect());
  if (own.right > all.right) bar.scrollLeft += own.right - all.right;
  else if (own.left < all.left) bar.scrollLeft -= all.left - own.left;
}

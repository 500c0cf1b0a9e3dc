// The strip of reference pictures beside the canvas: Gradio's events get its pictures, and the browser keeps them over a reload.

import { button, make, tooltips } from "../canvas/bar.js";
import { dropped } from "../canvas/dropping.js";
import { answers } from "../canvas/index.js";
import { keep, kept } from "../canvas/storage.js";
import { decode, load, post, stillHeld } from "../canvas/transport.js";
import { say } from "../locale.js";

const MOVED = "application/x-palimpsest-reference"; // a picture of the strip, dragged to another place
const SIDE = 88; // of a thumbnail, in pixels of the screen

// Called by Gradio. element: contains .references; props.value: what Python shows in it; watch(): tells when that changes.
export async function mount(element, props, watch) {
  const strip = new References(element.querySelector(".references"), props.value.canvas);
  answers(strip.id, strip);
  await strip.begin();
  watch("value", () => strip.show(props.value));
  await strip.show(props.value);
}

class References {
  // pictures: [{blob, tile, draft}], in the order in which the model sees them; takes: how many it can see.
  constructor(root, id) {
    Object.assign(this, { root, id, pictures: [], chosen: null, takes: 0, shown: undefined, turn: Promise.resolve() });
    this.input = make("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.hif,.tif,.tiff,.avif",
      onchange: () => this.take([...this.input.files]) });
    this.input.setAttribute("aria-label", say('Choose reference pictures'));
    this.tiles = make("div", { className: "tiles" });
    this.hint = make("span", { className: "hint", textContent: say('Drop or paste pictures that the model should see too') });
    this.add = button("picture", say('Add a reference picture'), { act: () => this.input.click() });
    this.earlier = button("earlier", say('Move to the left'), { key: "Alt+←", act: () => this.move(this.place, this.place - 1) });
    this.later = button("later", say('Move to the right'), { key: "Alt+→", act: () => this.move(this.place, this.place + 1) });
    this.away = button("remove", say('Remove the reference picture'), { key: say('Delete'), act: () => this.remove(this.place) });
    root.tabIndex = 0;
    root.append(make("span", { className: "name", textContent: say('References') }), this.tiles, this.add, this.hint,
      make("span", { className: "actions" }, this.earlier, this.later, this.away), this.input);
    tooltips(root);
    this.listen();
    this.update();
  }

  listen() {
    const { root } = this;
    root.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
      event.stopPropagation(); // the canvas is not meant
      if (files.length) this.take(files);
    });
    root.addEventListener("dragover", (event) => {
      event.preventDefault();
      root.classList.add("dropping");
    });
    root.addEventListener("dragleave", (event) => !root.contains(event.relatedTarget) && root.classList.remove("dropping"));
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      root.classList.remove("dropping");
      this.drop(event);
    });
    root.addEventListener("keydown", (event) => this.press(event));
  }

  get place() {
    return this.pictures.indexOf(this.chosen);
  }

  async drop({ dataTransfer, target }) {
    if (dataTransfer.types.includes(MOVED)) {
      const to = this.pictures.findIndex(({ tile }) => tile.contains(target));
      return this.move(Number(dataTransfer.getData(MOVED)), to < 0 ? this.pictures.length - 1 : to);
    }
    const files = dataTransfer.files.length ? [...dataTransfer.files] : [await dropped(dataTransfer).catch(({ message }) => this.tell(message))];
    return this.take(files.filter(Boolean));
  }

  press(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], { place } = this;
    if (place < 0 || !event.target.classList.contains("tile")) return;
    if (event.key === "Delete" || event.key === "Backspace") this.remove(place);
    else if (step && event.altKey) this.move(place, place + step);
    else if (step) this.choose(this.pictures[place + step] ?? this.chosen);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.chosen?.tile.focus();
  }

  // --- pictures

  // value: as returned by Python's References.postprocess; `shown` identifies the files, which Gradio may repeat.
  show({ takes, files, added, shown }) {
    if (takes !== undefined) this.takes = takes;
    this.update();
    if (!files || shown === this.shown) return null;
    this.shown = shown;
    return this.inTurn(async () => {
      const blobs = await Promise.all(files.map(({ url }) => load(url)));
      if (!added) this.pictures = [];
      await this.accept(blobs);
      this.chosen = added ? this.pictures.at(-1) : null;
      this.changed();
    });
  }

  // What the browser has kept.
  begin() {
    return this.inTurn(async () => {
      const { blobs = [], shown } = (await kept(this.id).catch(() => null)) ?? {};
      this.shown = shown;
      await this.accept(blobs, { most: Infinity });
      this.update();
    });
  }

  // Files from the user.
  take(files) {
    this.input.value = "";
    return this.inTurn(async () => {
      await this.accept(files);
      this.changed();
    });
  }

  async accept(blobs, { most = this.takes } = {}) {
    for (const blob of blobs) {
      if (this.pictures.length >= most) return this.tell(say(`The model takes at most ${most} reference pictures.`));
      const bitmap = await decode(blob);
      this.pictures.push(this.picture(blob, bitmap));
      bitmap.close();
    }
    return null;
  }

  picture(blob, bitmap) {
    const scale = SIDE / Math.min(bitmap.width, bitmap.height);
    const view = make("canvas", { width: SIDE, height: SIDE }), [width, height] = [bitmap.width * scale, bitmap.height * scale];
    view.getContext("2d").drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    const picture = { blob };
    picture.tile = make("button", { type: "button", className: "tile", draggable: true, onclick: () => this.choose(picture === this.chosen ? null : picture),
      ondragstart: ({ dataTransfer }) => dataTransfer.setData(MOVED, String(this.pictures.indexOf(picture))) }, view, make("span"));
    return picture;
  }

  choose(picture) {
    this.chosen = picture;
    this.update();
  }

  move(from, to) {
    if (from < 0 || to < 0 || to >= this.pictures.length) return;
    this.pictures.splice(to, 0, ...this.pictures.splice(from, 1));
    this.changed();
  }

  remove(place) {
    if (place < 0) return;
    this.pictures.splice(place, 1);
    this.chosen = this.pictures[Math.min(place, this.pictures.length - 1)] ?? null;
    this.changed();
  }

  // One thing after the other, or a slow file would come after those that were added later.
  inTurn(act) {
    this.turn = this.turn.then(act).catch(({ message }) => this.tell(message));
    return this.turn;
  }

  changed() {
    this.update();
    keep(this.id, { blobs: this.pictures.map(({ blob }) => blob), shown: this.shown }).catch(() => { /* lost at the next reload */ });
  }

  update() {
    const { pictures, chosen, place, takes } = this;
    this.root.hidden = !takes;
    document.body.dataset.references = takes ? "yes" : "";
    const tiles = pictures.map(({ tile }) => tile); // one that is moved loses the focus
    if (tiles.some((tile, i) => tile !== this.tiles.children[i]) || tiles.length < this.tiles.children.length) this.tiles.replaceChildren(...tiles);
    pictures.forEach((picture, i) => {
      picture.tile.lastChild.textContent = i + 2;
      picture.tile.setAttribute("aria-label", say(`Reference: picture ${i + 2}`));
      picture.tile.setAttribute("aria-pressed", String(picture === chosen));
    });
    this.add.hidden = pictures.length >= takes;
    this.hint.hidden = pictures.length > 0;
    this.earlier.parentElement.hidden = place < 0;
    this.earlier.disabled = place <= 0;
    this.later.disabled = place === pictures.length - 1;
  }

  tell(sentence) {
    this.update();
    alert(say(sentence));
  }

  // --- for Gradio's events

  async send({ only } = {}) {
    const told = { canvas: this.id, files: [] };
    if (only || !this.takes) return told; // without a wait for what the browser has kept
    await this.turn;
    try {
      const held = await stillHeld(this.pictures.map(({ draft }) => draft).filter(Boolean));
      for (const picture of this.pictures) {
        if (!held.includes(picture.draft)) picture.draft = (await post(picture.blob, "reference")).draft;
        told.files.push({ draft: picture.draft });
      }
    } catch (error) {
      told.problem = error.message;
    }
    return told;
  }
}

// Opens pictures and masks in a canvas: from Python, from the browser's storage, or from the user's files.

import { greys, imported } from "./masks.js";
import { encode } from "./png.js";
import { say } from "./text.js";
import { decode, load } from "./transport.js";

const FITS = {
  stretched: (size) => [say(`${size}, stretched`), say("The mask has other proportions than the picture, so it is stretched to it.")],
  cropped: (size) => [say(`${size}, cropped`), say("The mask has other proportions than the picture; both are cropped, as Resize mode says.")],
  filled: (size) => [say(`${size}, edges filled`), say("The mask has other proportions than the picture; its edges are filled, as Resize mode says.")],
};

export class Sources {
  constructor(canvas) {
    Object.assign(this, { canvas, shown: undefined, known: false, turn: null, waiting: null }); // waiting: a mask without its picture
  }

  // value: as returned by Python's Canvas.postprocess. Gradio may repeat it, after a reload too; `shown` identifies it.
  // opening: it is the page's last job, so the browser's own storage is newer.
  async show({ picture, mask, shown, opening }) {
    if (!picture?.url || shown === this.shown || (opening && this.known)) return;
    this.shown = shown;
    await this.open(async (current) => {
      const [blob, painted] = await Promise.all([load(picture.url), mask && load(mask.url)]);
      const bitmap = await decode(blob);
      const values = painted && await this.numbers(painted, bitmap);
      if (!current()) return bitmap.close();
      this.canvas.open(bitmap, { file: picture, blob }, values);
      if (values) this.canvas.holdLayer({ file: mask, blob: painted });
      else await this.takeWaiting();
      if (this.canvas.document.layer?.blank) this.canvas.noteNoMask();
    });
  }

  // Restores what this browser has stored, unless Python has shown something later.
  async begin(value) {
    const turn = (this.turn = Symbol("the newest wins"));
    const { storage, channels } = this.canvas;
    const kept = await storage.restore(channels);
    if (this.turn !== turn) return;
    this.known = Boolean(kept);
    this.shown = kept?.shown;
    this.wait(kept?.waiting ?? null);
    if (value.picture?.url && value.shown !== this.shown && !(value.opening && kept)) return this.show(value);
    const bitmap = kept?.picture && await decode(kept.picture).catch(() => null);
    if (!bitmap) return;
    if (this.turn !== turn) return bitmap.close();
    const fits = kept.numbers?.length === bitmap.width * bitmap.height * channels;
    this.canvas.open(bitmap, { blob: kept.picture }, fits ? kept.numbers : null);
    if (fits && kept.mask) this.canvas.holdLayer({ blob: kept.mask });
  }

  // The numbers of a mask from Python: one of our own, or any file where masks are uploaded.
  async numbers(mask, bitmap) {
    return this.canvas.uploads ? (await imported(mask, bitmap)).numbers : greys(mask, bitmap);
  }

  // A picture file from the user.
  async take(file) {
    this.canvas.input.value = "";
    if (!file) return;
    await this.open(async (current) => {
      const [bitmap, mask] = await Promise.all([decode(file), this.maskToKeep()]);
      if (!current()) return bitmap.close();
      this.canvas.open(bitmap, { blob: file });
      this.waiting = mask;
      await this.takeWaiting();
    });
  }

  // Where picture and mask are separate files, a new picture keeps the mask.
  async maskToKeep() {
    const { uploads, document: { layer }, transport } = this.canvas;
    if (!uploads || !layer) return this.waiting;
    return transport.untouched?.blob ?? (layer.blank ? null : encode(layer.data, layer.width, layer.height));
  }

  async takeWaiting() {
    const mask = this.waiting;
    this.waiting = null;
    if (mask) await this.takeMask(mask);
  }

  // mask: a file without its picture, or null.
  wait(mask) {
    this.waiting = mask;
    this.canvas.update();
  }

  // A mask file from the user, stretched to the picture, or kept until there is one.
  async takeMask(file) {
    const { canvas, canvas: { document: { picture } } } = this;
    canvas.masks.value = "";
    if (!file) return;
    if (!picture) {
      this.wait(file);
      return canvas.storage.touch();
    }
    try {
      const { numbers, from } = await imported(file, picture);
      if (canvas.document.picture !== picture) return this.takeMask(file);
      canvas.replaceMask(numbers);
      if (canvas.uploads) canvas.holdLayer({ blob: file });
      const [was, now] = [from.replace("x", "×"), `${picture.width}×${picture.height}`];
      if (was !== now && !canvas.uploads) canvas.note(say(`The mask was stretched from ${was} to ${now}, the picture's size.`));
    } catch (error) {
      canvas.tell(error.message);
    }
  }

  // Whether the mask is a file that nothing was painted on.
  get isFile() {
    return Boolean(this.canvas.uploads && this.canvas.document.layer && this.canvas.transport.untouched);
  }

  // Show a mask file as it will be used. png: of the picture's size; fit: the rule; size: the file's own.
  async lay({ png, fit, size: [width, height] }) {
    const { canvas, canvas: { document, document: { picture, version } } } = this;
    const numbers = await greys(await load(png), picture);
    if (document.version !== version || !this.isFile) return;
    document.layOut(numbers);
    const [text, sentence] = FITS[fit](`${width}×${height}`);
    if (this.fit?.text !== text) canvas.note(sentence);
    this.fit = { version, text };
    canvas.update();
    canvas.storage.touch();
  }

  // act(current): opens something; current() is false once something newer has begun.
  async open(act) {
    const { canvas } = this;
    const turn = (this.turn = Symbol("the newest wins"));
    canvas.root.setAttribute("aria-busy", "true");
    try {
      await act(() => this.turn === turn);
    } catch (error) {
      canvas.tell(error.message);
    } finally {
      canvas.root.removeAttribute("aria-busy");
    }
  }
}

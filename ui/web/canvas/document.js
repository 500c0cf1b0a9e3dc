// The edited document: the untouched picture, a layer over it, and the undo history; dispatches events on changes.

import { Edit } from "./edit.js";
import { History } from "./history.js";
import { Layer } from "./layer.js";
import { join } from "./raster.js";

// Events: "picture", a new one or none; "pixels", with the layer's changed area as detail; "history".
export class Document extends EventTarget {
  // kind: "mask", shown in one colour, "paint", in colours of its own, or "picture", without a layer.
  constructor(kind, colour) {
    super();
    Object.assign(this, { kind, colour });
    this.picture = this.layer = null;
    this.history = new History();
    this.edit = null;
    this.version = this.versions = 0; // of the layer: undo and redo restore the number of that state; and the number of versions so far
  }

  renew() {
    this.version = ++this.versions;
  }

  // bitmap: upright; numbers: the layer's initial content, if any.
  open(bitmap, numbers = null) {
    this.history = new History();
    this.exchange(bitmap, numbers);
  }

  // Replace picture and layer, keeping the history.
  exchange(bitmap, numbers = null) {
    this.close();
    this.picture = bitmap;
    this.layer = this.kind === "picture" ? null : new Layer(bitmap.width, bitmap.height, this.kind === "mask" ? 1 : 4, this.colour);
    if (numbers) this.layer.data.set(numbers);
    this.renew();
    this.dispatchEvent(new Event("picture"));
    this.dispatchEvent(new Event("history"));
  }

  // The picture's RGBA pixels as shown; kept until forgetPixels().
  pixels() {
    if (!this.colours) {
      const { width, height } = this.picture;
      const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      pen.drawImage(this.picture, 0, 0);
      this.colours = pen.getImageData(0, 0, width, height).data;
    }
    return this.colours;
  }

  forgetPixels() {
    this.colours = null;
  }

  close() {
    this.forgetPixels();
    this.edit = null;
    this.picture?.close();
    this.layer?.close();
    this.picture = this.layer = null;
  }

  clear() {
    this.history = new History();
    this.close();
    this.renew();
    this.dispatchEvent(new Event("picture"));
    this.dispatchEvent(new Event("history"));
  }

  begin(paint) {
    this.commit();
    this.edit = new Edit(this.layer, paint, (area) => this.changed(area));
    return this.edit;
  }

  commit() {
    const edit = this.edit;
    if (!edit) return;
    this.edit = null;
    const changes = edit.changes;
    if (!changes.length) return;
    this.history.add(edit.layer, changes, this.version);
    this.renew();
    this.dispatchEvent(new Event("history"));
  }

  cancel() {
    const edit = this.edit;
    this.edit = null;
    edit?.cancel();
  }

  changed(area) {
    this.layer.rendering.update(area);
    this.dispatchEvent(new CustomEvent("pixels", { detail: area }));
  }

  // Change the whole layer at once: change(numbers) works on a copy.
  rewrite(change) {
    const numbers = this.layer.data.slice();
    change(numbers);
    this.begin({}).put(this.layer.bounds, numbers);
    this.commit();
  }

  undo() {
    this.travel("undo");
  }

  redo() {
    this.travel("redo");
  }

  travel(way) {
    this.cancel();
    const step = this.history[way](this.layer, this.version);
    if (!step) return;
    const area = step.changed.reduce((all, index) => join(all, this.layer.tileBounds(index)), null);
    this.version = step.version;
    this.changed(area);
    this.dispatchEvent(new Event("history"));
  }

  // Replaces the layer's numbers, which is no step of the history.
  layOut(numbers) {
    this.cancel();
    const edit = new Edit(this.layer, {}, (area) => this.changed(area));
    edit.put(this.layer.bounds, numbers);
    this.history.rebase(this.layer, edit.changes);
  }

  recolour(colour) {
    this.colour = colour;
    if (!this.layer || this.kind !== "mask") return;
    this.layer.colour = colour;
    this.changed(this.layer.bounds);
  }
}

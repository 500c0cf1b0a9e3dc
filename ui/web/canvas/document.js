// What is edited: the picture, untouched, the mask over it, and the way back; tells who listens what has changed.

import { Edit } from "./edit.js";
import { History } from "./history.js";
import { Layer } from "./layer.js";
import { join } from "./raster.js";

// Events: "picture", another one or none; "pixels", with `area` of a layer as detail; "history".
export class Document extends EventTarget {
  constructor(colour) {
    super();
    this.colour = colour;
    this.picture = this.mask = null;
    this.history = new History();
    this.edit = null;
    this.version = 0; // of the mask
  }

  // bitmap: upright; mask: {data} of its numbers, where there is one to begin with.
  open(bitmap, mask = null) {
    this.close();
    this.picture = bitmap;
    this.mask = new Layer(bitmap.width, bitmap.height, 1, this.colour);
    if (mask) {
      this.mask.data.set(mask);
      this.mask.show(this.mask.bounds);
    }
    this.version++;
    this.dispatchEvent(new Event("picture"));
    this.dispatchEvent(new Event("history"));
  }

  close() {
    this.edit = null;
    this.history = new History();
    this.picture?.close();
    this.mask?.close();
    this.picture = this.mask = null;
  }

  clear() {
    this.close();
    this.version++;
    this.dispatchEvent(new Event("picture"));
    this.dispatchEvent(new Event("history"));
  }

  begin(layer, paint) {
    this.commit();
    this.edit = new Edit(layer, paint, (area) => this.changed(layer, area));
    return this.edit;
  }

  commit() {
    const edit = this.edit;
    if (!edit) return;
    this.edit = null;
    const changes = edit.changes;
    if (!changes.length) return;
    this.history.add(edit.layer, changes);
    this.version++;
    this.dispatchEvent(new Event("history"));
  }

  cancel() {
    const edit = this.edit;
    this.edit = null;
    edit?.cancel();
  }

  changed(layer, area) {
    layer.show(area);
    this.dispatchEvent(new CustomEvent("pixels", { detail: { layer, area } }));
  }

  // Change all of a layer at once: change(numbers) works on a copy.
  rewrite(layer, change) {
    const numbers = layer.data.slice();
    change(numbers);
    this.begin(layer, {}).put(layer.bounds, numbers);
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
    const step = this.history[way]();
    if (!step) return;
    const area = step.changed.reduce((all, index) => join(all, step.layer.tileBounds(index)), null);
    this.version++;
    this.changed(step.layer, area);
    this.dispatchEvent(new Event("history"));
  }

  recolour(colour) {
    this.colour = colour;
    if (!this.mask) return;
    this.mask.recolour(colour);
    this.dispatchEvent(new CustomEvent("pixels", { detail: { layer: this.mask, area: this.mask.bounds } }));
  }
}

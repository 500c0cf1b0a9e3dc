// What is opened in a canvas, and from where: what Python shows, what the browser has kept, or a file of the person's.

import { greys } from "./masks.js";
import { decode, load } from "./transport.js";

export class Sources {
  constructor(canvas) {
    Object.assign(this, { canvas, shown: undefined, known: false, turn: null });
  }

  // value: as Python's Canvas.postprocess gives it. Gradio may repeat one, after a reload too; `shown` tells each from the others.
  // opening: the page's last job, which what the browser has kept is newer than.
  async show({ picture, mask, shown, opening }) {
    if (!picture?.url || shown === this.shown || (opening && this.known)) return;
    this.shown = shown;
    await this.open(async (current) => {
      const [blob, painted] = await Promise.all([load(picture.url), mask && load(mask.url)]);
      const bitmap = await decode(blob);
      const values = painted && await greys(painted, bitmap);
      if (!current()) return bitmap.close();
      this.canvas.open(bitmap, { file: picture, blob }, values);
      if (values) this.canvas.transport.holdLayer(mask);
    });
  }

  // What this browser has kept, or what Python has shown after that.
  async begin(value) {
    const turn = (this.turn = Symbol("the newest wins"));
    const { storage, channels } = this.canvas;
    const kept = await storage.restore(channels);
    if (this.turn !== turn) return;
    this.known = Boolean(kept);
    this.shown = kept?.shown;
    if (value.picture?.url && value.shown !== this.shown && !(value.opening && kept)) return this.show(value);
    const bitmap = kept?.picture && await decode(kept.picture).catch(() => null);
    if (!bitmap) return;
    if (this.turn !== turn) return bitmap.close();
    const fits = kept.numbers.length === bitmap.width * bitmap.height * channels;
    this.canvas.open(bitmap, { blob: kept.picture }, fits ? kept.numbers : null);
  }

  // A file of the person's.
  async take(file) {
    this.canvas.input.value = "";
    if (!file) return;
    await this.open(async (current) => {
      const bitmap = await decode(file);
      if (!current()) return bitmap.close();
      this.canvas.open(bitmap, { blob: file });
    });
  }

  // act(current): opens something, unless something newer has begun to, which current() says.
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

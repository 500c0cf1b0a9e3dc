// What opens over the canvas: how the mask is changed as a whole, seen as it is set; and where masks come from and go to.

import { choice, make, slider } from "./bar.js";
import { difference, imported, save, transparency } from "./masks.js";
import { MOST, Modify } from "./modify.js";
import { say } from "./text.js";

const RESULT = "#gallery img";

export class Panels {
  constructor(root, canvas) {
    Object.assign(this, { root, canvas, box: null });
    this.masks = make("input", { type: "file", accept: "image/*", tabIndex: -1, onchange: () => this.takeMask(this.masks.files[0]) });
    this.masks.className = "masks";
    this.masks.setAttribute("aria-label", say('Choose a mask'));
    root.append(this.masks);
    root.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.box) return;
      event.stopPropagation();
      this.close();
    });
    canvas.stage.addEventListener("pointerdown", () => this.close(), true);
  }

  show(name, opener, role, ...parts) {
    this.close();
    this.box = make("div", { className: `panel ${name}` }, ...parts);
    this.box.setAttribute("role", role);
    this.box.setAttribute("aria-label", opener.getAttribute("aria-label"));
    Object.assign(this, { open: name, opener });
    opener.setAttribute("aria-expanded", "true");
    this.root.append(this.box);
    this.box.querySelector("button, input")?.focus();
  }

  close() {
    if (!this.box) return;
    const { box, opener } = this;
    this.box = this.open = null;
    this.modify?.cancel();
    this.modify = null;
    const focused = box.contains(document.activeElement);
    box.remove();
    opener.removeAttribute("aria-expanded");
    if (focused) opener.focus();
  }

  // --- grow, shrink, feather, smooth

  toggleChange(opener) {
    if (this.open === "change" || !this.canvas.document.layer) return this.close();
    let [kind, amount] = ["grow", 8];
    const preview = () => {
      this.modify.preview(kind, amount);
      for (const part of parts) part.update();
    };
    const parts = [
      choice(say('Change'), [["grow", say('Grow')], ["shrink", say('Shrink')], ["feather", say('Feather')], ["smooth", say('Smooth')]],
        { value: () => kind, act: (chosen) => { kind = chosen; preview(); } }),
      slider(say('Amount'), { between: [0, () => MOST], curve: 2, value: () => amount, show: (value) => `${value} px`,
        act: (value) => { amount = Math.round(value); preview(); } }),
    ];
    const button = (text, act, className = "") => make("button", { type: "button", textContent: text, className: `word ${className}`, onclick: act });
    this.show("change", opener, "dialog", ...parts, make("div", { className: "row" },
      button(say('Fill holes'), () => {
        this.close();
        this.canvas.fillHoles();
      }), make("span", { className: "gap" }), button(say('Cancel'), () => this.close()),
      button(say('Apply'), () => {
        this.modify.apply();
        this.modify = null;
        this.close();
      }, "primary")));
    this.modify = new Modify(this.canvas.document);
    preview();
  }

  // --- in and out

  toggleMore(opener) {
    if (this.open === "more" || !this.canvas.document.layer) return this.close();
    const item = (text, act) => {
      const element = make("button", { type: "button", textContent: text, className: "word", onclick: () => {
        this.close();
        this.try(act);
      } });
      element.setAttribute("role", "menuitem");
      return element;
    };
    this.show("more", opener, "menu", item(say('Mask from a file'), () => this.masks.click()),
      item(say('Mask from the clipboard'), () => this.paste()),
      item(say("Mask from the picture's transparency"), () => this.takeTransparency()),
      item(say('Mask from what the result has changed'), () => this.takeDifference()),
      item(say('Save the mask as PNG'), () => save(this.canvas.document.layer)));
  }

  async try(act) {
    try {
      await act();
    } catch (error) {
      this.canvas.tell(error.message);
    }
  }

  async takeMask(file) {
    this.masks.value = "";
    if (!file) return;
    await this.try(async () => {
      const { picture } = this.canvas.document;
      const { numbers, from } = await imported(file, picture).catch(() => {
        throw new Error(say('The mask is not a picture that can be read.'));
      });
      this.canvas.replaceMask(numbers);
      const sizes = [from, picture].map(({ width, height }) => `${width}×${height}`);
      if (sizes[0] !== sizes[1]) this.canvas.note(say(`The mask was stretched from ${sizes[0]} to ${sizes[1]}, the picture's size.`));
    });
  }

  async paste() {
    if (!navigator.clipboard?.read) throw new Error(say('This browser does not hand over the clipboard here; save the mask as a file.'));
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return this.takeMask(await item.getType(type));
    }
    throw new Error(say('There is no picture in the clipboard.'));
  }

  takeTransparency() {
    const { document } = this.canvas;
    const numbers = transparency(document.picture, document.pixels());
    document.forgetPixels();
    if (!numbers.some(Boolean)) throw new Error(say('The picture is nowhere transparent.'));
    this.canvas.replaceMask(numbers);
  }

  async takeDifference() {
    const { document: { picture }, document } = this.canvas;
    const result = window.document.querySelector(RESULT);
    if (!result) throw new Error(say('There is no result yet to compare with.'));
    const numbers = await difference(picture, document.pixels(), result.src);
    document.forgetPixels();
    if (document.picture === picture) this.canvas.replaceMask(numbers);
  }
}

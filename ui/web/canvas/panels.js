// Panels over the canvas: changes of the whole mask, with a live preview; and importing and exporting masks.

import { choice, make, slider } from "./bar.js";
import { difference, save, transparency } from "./masks.js";
import { MOST, Modify } from "./modify.js";
import { say } from "./text.js";

const RESULT = "#gallery img.picture"; // the result on show

const word = (text, act, className = "") => make("button", { type: "button", textContent: text, className: `word ${className}`, onclick: act });

export class Panels {
  constructor(root, canvas) {
    Object.assign(this, { root, canvas, box: null });
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
    this.show("change", opener, "dialog", ...parts, this.confirm(word(say('Fill holes'), () => {
      this.close();
      this.canvas.fillHoles();
    })));
    this.modify = new Modify(this.canvas.document);
    preview();
  }

  // The last row of a panel that previews a change.
  confirm(...others) {
    return make("div", { className: "row" }, ...others, make("span", { className: "gap" }), word(say('Cancel'), () => this.close()),
      word(say('Apply'), () => {
        this.modify.apply();
        this.modify = null;
        this.close();
      }, "primary"));
  }

  // --- the canvas's settings

  toggleSettings(opener) {
    if (this.open === "settings") return this.close();
    const { settings } = this.canvas;
    const unit = choice(say('Brush size counts'), [["picture", say('Pixels of the picture')], ["screen", say('Pixels of the screen')]], {
      value: () => settings.get("brushUnit"),
      act: (chosen) => {
        this.canvas.measureBrushIn(chosen);
        unit.update();
      },
    });
    this.show("settings", opener, "dialog", make("div", { textContent: say('Brush size counts') }), unit,
      make("div", { className: "row" }, make("span", { className: "gap" }), word(say('Close'), () => this.close(), "primary")));
  }

  // --- import and export

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
    this.show("more", opener, "menu", item(say('Mask from a file'), () => this.canvas.masks.click()),
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


  async paste() {
    if (!navigator.clipboard?.read) throw new Error(say('This browser does not hand over the clipboard here; save the mask as a file.'));
    for (const item of await navigator.clipboard.read()) {
      const type = item.types.find((name) => name.startsWith("image/"));
      if (type) return this.canvas.takeMask(await item.getType(type));
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
    const { differences, from } = await difference(picture, document.pixels(), result.src);
    document.forgetPixels();
    if (document.picture !== picture) return;
    this.setThreshold(differences);
    const [was, now] = [from, picture].map(({ width, height }) => `${width}×${height}`);
    if (was !== now) this.canvas.note(say(`The result was stretched from ${was} to ${now}, the picture's size; all of it differs a little.`));
  }

  // A threshold for differences, with a live preview: unchanged areas of a model's picture may be off by a few values.
  setThreshold(differences) {
    const { document, settings } = this.canvas;
    const preview = () => {
      const threshold = settings.get("threshold");
      document.cancel();
      document.begin({}).put(document.layer.bounds, differences.map((value) => (value > threshold ? 255 : 0)));
      limit.update();
    };
    const limit = slider(say('Differences of more than'), { between: [0, () => 255], curve: 2, value: () => settings.get("threshold"),
      show: (value) => `${Math.round(value)}`, act: (value) => { settings.set("threshold", Math.round(value)); preview(); } });
    this.show("difference", this.canvas.buttons.more, "dialog", limit, this.confirm());
    this.modify = { apply: () => document.commit(), cancel: () => document.cancel() };
    preview();
  }
}

// The buttons that act on the selected result. Gradio builds them and Python answers most; this handles those of the browser.

import { make } from "../canvas/bar.js";
import { say } from "../locale.js";

const ASKED = "asked"; // marks a click on Compare that only fetches the source

export class Actions {
  // column: the element with viewer, buttons and menus.
  constructor(column, viewer) {
    Object.assign(this, { column, viewer });
    this.facts = column.querySelector("#result-title .facts");
    this.menu = this.popover("#result-menu", () => column.querySelector("#result-more"));
    this.text = this.popover("#result-infotext", () => this.facts);
    column.addEventListener("click", (event) => this.click(event), true);
    this.update();
  }

  press(id) {
    this.column.querySelector(`#${id}`)?.click();
  }

  askForSource() {
    const button = this.column.querySelector("#compare");
    button.dataset.asked = ASKED;
    button.click();
  }

  click(event) {
    const { viewer } = this;
    const acts = { compare: () => viewer.toggleCompare(), "download-result": () => this.download(), "copy-result": () => this.copy(),
      "result-more": () => this.menu.togglePopover() };
    const button = event.target.closest("button");
    if (button === this.facts) return this.text.togglePopover();
    if (button?.dataset.asked) return delete button.dataset.asked;
    if (acts[button?.id] && viewer.file) {
      event.stopPropagation(); // or Gradio would ask the server
      event.preventDefault();
      acts[button.id]();
      this.update();
    } else if (this.menu.contains(button)) {
      this.menu.hidePopover();
    }
    return null;
  }

  // Makes one of Gradio's elements a popover below the button that opens it.
  popover(selector, opener) {
    const element = this.column.querySelector(selector);
    element.popover = "auto";
    element.addEventListener("toggle", ({ newState }) => {
      opener().setAttribute("aria-expanded", String(newState === "open"));
      if (newState === "open") this.put(element, opener().getBoundingClientRect());
    });
    element.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation()); // or it would interrupt a job
    return element;
  }

  put(element, { left, right, bottom }) {
    const { offsetWidth: width, offsetHeight: height } = element;
    const x = left + width <= innerWidth - 8 ? left : Math.max(8, Math.min(right, innerWidth - 8) - width);
    element.style.left = `${x}px`;
    element.style.top = `${Math.max(8, Math.min(bottom + 4, innerHeight - height - 8))}px`;
  }

  update() {
    const { viewer: { result, picture, compare } } = this;
    this.column.toggleAttribute("data-results", Boolean(result));
    const pressed = (id, on) => this.column.querySelector(`#${id}`)?.setAttribute("aria-pressed", String(Boolean(on)));
    pressed("compare", compare?.how);
    pressed("favour-result", result?.favourite);
    const size = picture && result ? `${picture.naturalWidth} × ${picture.naturalHeight}` : "";
    const seed = result && result.seed !== null ? say(`Seed ${result.seed}`) : "";
    const between = size && seed ? " · " : "";
    this.facts.replaceChildren(...[size, between, seed].map((textContent) => make("span", { textContent })));
    if (!result) this.menu.matches(":popover-open") && this.menu.hidePopover();
  }

  download() {
    const { result, picture } = this.viewer;
    make("a", { href: picture.src, download: result.name }).click();
  }

  async copy() {
    const { viewer } = this;
    if (!navigator.clipboard?.write) return viewer.tellNote(say('The browser copies pictures only on this machine or over https.'));
    try {
      const blob = fetch(viewer.picture.src).then((answer) => answer.blob()).then((file) => file);
      await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
      return viewer.tellNote(say('Copied.'));
    } catch {
      return viewer.tellNote(say('The browser did not let the picture be copied.'));
    }
  }
}

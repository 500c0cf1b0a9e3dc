// Finds options in Settings by their label, their name for requests or their sentence, in the browser's language or English.
// What has no hit is hidden, groups too; a group with one is opened, and closed again when the search is over.

import { whenThere } from "./appears.js";
import { say } from "./locale.js";

const SEARCH = "#settings-search";

class Search {
  constructor(root) {
    [this.field, this.count] = [root.querySelector("input"), root.querySelector("[role=status]")];
    this.options = JSON.parse(root.querySelector("[data-options]").dataset.options)
      .map(({ texts, ...option }) => ({ ...option, text: texts.flatMap((text) => [text, say(text)]).join("\n").toLowerCase() }));
    this.groups = [...new Set(this.options.map(({ group }) => group))];
    this.opened = new Set(); // groups that the search has opened
    this.sheet = document.head.appendChild(document.createElement("style"));
    this.field.addEventListener("input", () => this.search());
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.field.value) return;
      event.preventDefault();
      this.field.value = "";
      this.search();
    });
  }

  search() {
    const words = this.field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hits = this.options.filter(({ text }) => words.every((word) => text.includes(word)));
    const found = new Set(hits.map(({ group }) => group));
    const hidden = [...this.options.filter((option) => !hits.includes(option)).map(({ name }) => `option-${name}`),
      ...this.groups.filter((group) => !found.has(group))];
    // a group's options are made when it is first opened, so they are hidden by their names, there or not
    this.sheet.textContent = hidden.length ? `${hidden.map((id) => `#${id}`).join(",")} { display: none !important; }` : "";
    for (const group of this.groups) this.open(group, Boolean(words.length) && found.has(group));
    this.count.textContent = this.told(words, hits);
  }

  told(words, hits) {
    if (!words.length) return "";
    return hits.length ? say(`${hits.length} of ${this.options.length} settings`) : say(`No setting fits "${this.field.value.trim()}".`);
  }

  open(group, wanted) {
    const title = document.querySelector(`#${group} > button`);
    const isOpen = title?.classList.contains("open");
    if (!title || isOpen === wanted) return;
    if (wanted) this.opened.add(group);
    else if (!this.opened.delete(group)) return; // somebody else has opened it
    title.click();
  }
}

export function searchSettings() {
  whenThere(SEARCH, (root) => {
    if (root.querySelector("input")) new Search(root);
    else whenThere(`${SEARCH} input`, () => new Search(root)); // Gradio fills it later
  });
}

// Finds options in Settings by label, API name or sentence, in the browser's language or in English.
// Hides options and groups without a match. Opens a group with a match, and closes it after the search.

import { whenThere } from "./appears.js";
import { say } from "./locale.js";

const SEARCH = "#settings-search";

class Search {
  constructor(root) {
    [this.field, this.count] = [root.querySelector("input"), root.querySelector("[role=status]")];
    this.options = JSON.parse(root.querySelector("[data-options]").dataset.options)
      .map(({ texts, ...option }) => ({ ...option, text: texts.flatMap((text) => [text, say(text)]).join("\n").toLowerCase() }));
    this.groups = [...new Set(this.options.map(({ group }) => group))];
    this.opened = new Set(); // groups opened by the search
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
    // a group's options are created when it is first opened, so they are hidden by a rule for their names
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
    else if (!this.opened.delete(group)) return; // opened by somebody else
    title.click();
  }
}

export function searchSettings() {
  whenThere(SEARCH, (root) => {
    if (root.querySelector("input")) new Search(root);
    else whenThere(`${SEARCH} input`, () => new Search(root)); // Gradio fills it later
  });
}

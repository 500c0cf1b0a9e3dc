// Menus searched by typing: each word may be anywhere in a name, so "heun 2m" finds "DPM++ 2M SDE Heun".
// Gradio searches for the typed text as one piece, appended to the name already in the field. So it never sees the typing:
// its list stays complete, entries that do not match are hidden, and the chosen one gets the mousedown that Gradio expects.

import { say } from "./locale.js";

const MENU = "input[role=combobox][aria-autocomplete=list]";
const OWN_WORDS = "#style-name, #override-settings"; // these accept any text, listed or not
const OPTION = "[data-testid=dropdown-option]";
const STEPS = { ArrowDown: 1, ArrowUp: -1 };
const GRADIOS = ["ArrowDown", "ArrowUp", "Enter", "Escape", "Tab", "Home", "End"]; // other keys would make Gradio search for the field's text

const shown = new WeakMap(); // field → its text before typing
const focused = new WeakSet(); // fields that have just received focus

const menuOf = ({ target }) => (target.matches?.(MENU) && !target.closest(OWN_WORDS) ? target : null);
const listOf = (field) => document.getElementById(field.getAttribute("aria-controls"));
const fitting = (list) => [...list.querySelectorAll(`${OPTION}:not([data-unfit])`)];
const isSearched = (list) => list?.hasAttribute("data-searched");

function search(field, list) {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const option of list.querySelectorAll(OPTION)) {
    const name = option.ariaLabel.toLowerCase();
    option.toggleAttribute("data-unfit", !words.every((word) => name.includes(word)));
  }
  list.setAttribute("data-searched", fitting(list).length ? "" : say("Nothing fits."));
  lead(field, list, fitting(list)[0]);
}

// The option that Enter chooses.
function lead(field, list, option) {
  list.querySelector("[data-first]")?.removeAttribute("data-first");
  option?.setAttribute("data-first", "");
  option?.scrollIntoView({ block: "nearest" });
  if (option) field.setAttribute("aria-activedescendant", option.id);
}

function step(field, list, by) {
  const options = fitting(list);
  const at = options.findIndex((option) => option.hasAttribute("data-first"));
  lead(field, list, options[(at + by + options.length) % options.length]);
}

// A single-choice menu closes after a choice. A multiple-choice one stays open for another search.
function searchAnew(field, list) {
  if (document.activeElement !== field) return;
  field.value = "";
  list.removeAttribute("data-searched");
  lead(field, list);
  list.querySelectorAll("[data-unfit]").forEach((option) => option.removeAttribute("data-unfit"));
}

function type(event) {
  const field = menuOf(event);
  if (!field || !event.isTrusted) return;
  event.stopImmediatePropagation();
  if (listOf(field)) return search(field, listOf(field));
  // closed by Escape: an arrow key opens it
  field.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  requestAnimationFrame(() => requestAnimationFrame(() => listOf(field) && search(field, listOf(field))));
}

function press(event) {
  const field = menuOf(event);
  if (!field || !event.isTrusted || event.ctrlKey || event.metaKey || event.altKey) return;
  const list = listOf(field);
  if (event.key === "Escape" && list) {
    event.preventDefault(); // it only closes the menu, and does not interrupt a job
    giveBack(event);
    field.select();
  } else if (isSearched(list) && (event.key in STEPS || event.key === "Enter")) {
    event.preventDefault();
    event.stopImmediatePropagation();
    const first = list.querySelector("[data-first]");
    if (event.key in STEPS) step(field, list, STEPS[event.key]);
    else if (first) {
      first.dispatchEvent(new MouseEvent("mousedown", { bubbles: true, cancelable: true }));
      searchAnew(field, list);
    }
  } else if (!GRADIOS.includes(event.key) && !(event.key === "Backspace" && field.value === "")) {
    event.stopImmediatePropagation();
  }
}

function giveBack(event) {
  const field = menuOf(event);
  if (field && shown.has(field)) field.value = shown.get(field);
  shown.delete(field);
}

export function searchMenus() {
  document.addEventListener("beforeinput", (event) => {
    const field = menuOf(event);
    if (field && !shown.has(field)) shown.set(field, field.value);
  }, true);
  document.addEventListener("input", type, true);
  document.addEventListener("keydown", press, true);
  document.addEventListener("focusout", giveBack, true);
  // a click or tap selects the name, as Tab does, so that typing replaces it
  document.addEventListener("focusin", (event) => menuOf(event) && focused.add(event.target), true);
  document.addEventListener("click", (event) => {
    if (focused.delete(event.target) && document.activeElement === event.target) event.target.select();
  }, true);
  document.addEventListener("mousedown", (event) => {
    const list = event.target.closest?.("[data-searched]");
    const field = list && document.querySelector(`[aria-controls="${list.id}"]`);
    if (field && event.isTrusted) setTimeout(() => searchAnew(field, list));
  }, true);
}

// Global keys: Ctrl+Enter generates, Escape interrupts, / searches, ? lists all keys.

import { visible } from "./visible.js";

const SEARCHES = "#settings-search input, #history-words :is(input, textarea)";
const TYPING = "input, textarea, [contenteditable]";

export function pressKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      visible("button[id^=generate-]:not([disabled])")?.click();
    } else if (event.key === "Escape") {
      // unless it closed a menu or a search
      if (!event.defaultPrevented && !document.querySelector("dialog[open]")) visible("#interrupt:not([disabled])")?.click();
    } else if (!event.target.closest(TYPING)) {
      if (event.key === "?") document.querySelector("#keys dialog").showModal();
      if (event.key === "/" && visible(SEARCHES)) {
        event.preventDefault();
        visible(SEARCHES).focus();
        visible(SEARCHES).select();
      }
    }
  });
}

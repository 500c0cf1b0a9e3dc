// Keys that act anywhere on the page: Ctrl+Enter generates, Escape interrupts, ? lists all keys.

import { visible } from "./visible.js";

const TYPING = "input, textarea, [contenteditable]";

export function pressKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      visible("button[id^=generate-]:not([disabled])")?.click();
    } else if (event.key === "Escape") {
      if (!document.querySelector("dialog[open]")) visible("#interrupt:not([disabled])")?.click();
    } else if (event.key === "?" && !event.target.closest(TYPING)) {
      document.querySelector("#keys dialog").showModal();
    }
  });
}

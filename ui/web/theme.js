// Light or dark: as the system has it, until somebody chooses the other by the ◐ of the header. The browser remembers that.

import { remember, remembered } from "./kept.js";

const SWITCH = "#theme-switch";
const SYSTEM = matchMedia("(prefers-color-scheme: dark)");

const named = (dark) => (dark ? "dark" : "light");
const isDark = () => document.body.classList.contains("dark");
const chosen = () => (["light", "dark"].includes(remembered("theme")) ? remembered("theme") : null);

// Gradio sets its class by the system, when it starts and whenever that changes; what was chosen comes after it.
function hold() {
  if (chosen()) document.body.classList.toggle("dark", chosen() === "dark");
  document.documentElement.style.colorScheme = named(isDark());
}

function turn() {
  const wanted = named(!isDark());
  // what the system has needs no remembering, and follows it again
  remember("theme", wanted === named(SYSTEM.matches) ? null : wanted);
  document.body.classList.toggle("dark", wanted === "dark");
}

export function switchTheme() {
  if (!new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", SYSTEM.matches);
  hold();
  if (chosen()) document.body.style.background = `var(--bg${isDark() ? "-dark" : ""})`; // until Gradio has its own
  new MutationObserver(hold).observe(document.body, { attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(SWITCH)) turn();
  });
}

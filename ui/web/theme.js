// Light or dark: follows the system until somebody chooses the other with the header's ◐. The browser remembers the choice.

import { remember, remembered } from "./kept.js";

const SWITCH = "#theme-switch";
const SYSTEM = matchMedia("(prefers-color-scheme: dark)");

const named = (dark) => (dark ? "dark" : "light");
const isDark = () => document.body.classList.contains("dark");
const chosen = () => (["light", "dark"].includes(remembered("theme")) ? remembered("theme") : null);

// Gradio sets its class from the system's theme, at the start and on each change; the choice is applied after that.
function hold() {
  if (chosen()) document.body.classList.toggle("dark", chosen() === "dark");
  document.documentElement.style.colorScheme = named(isDark());
}

function turn() {
  const wanted = named(!isDark());
  // choosing the system's own theme means following the system again
  remember("theme", wanted === named(SYSTEM.matches) ? null : wanted);
  document.body.classList.toggle("dark", wanted === "dark");
}

export function switchTheme() {
  if (!new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", SYSTEM.matches);
  hold();
  if (chosen()) document.body.style.background = `var(--bg${isDark() ? "-dark" : ""})`; // until Gradio sets its own
  new MutationObserver(hold).observe(document.body, { attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(SWITCH)) turn();
  });
}

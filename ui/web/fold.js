// Folds the settings panel with a button. The browser remembers it; on a phone it is a sheet, closed at first.

import { whenThere } from "./appears.js";
import { remember, remembered } from "./kept.js";

const BUTTON = "#fold-settings";
const PHONE = matchMedia("(max-width: 699px)");

function fold(folded) {
  const workspace = document.querySelector("#workspace");
  if (workspace) workspace.dataset.settings = folded ? "folded" : "shown";
  for (const button of document.querySelectorAll(BUTTON)) button.setAttribute("aria-expanded", !folded);
}

export function foldSettings() {
  const show = () => fold(PHONE.matches || remembered("settings-panel") === "folded");
  whenThere("#workspace", show);
  whenThere(BUTTON, show);
  PHONE.addEventListener("change", show);
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.(BUTTON)) return;
    const folded = document.querySelector("#workspace")?.dataset.settings !== "folded";
    if (!PHONE.matches) remember("settings-panel", folded ? "folded" : null);
    fold(folded);
  });
}

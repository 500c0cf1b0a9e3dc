// Has the server convert pictures that browsers cannot show to PNG. PNG info and the canvas take files as they are.

import { INPUTS, put } from "./inputs.js";
import { say } from "./locale.js";

const UNSHOWN = /\.(heic|heif|hif|tiff?)$/i;

const takesAll = (input) => input.id === "png-info-picture" || input.closest(".canvas") || input.querySelector(".canvas");
const unshown = (files, input) => (input && !takesAll(input) ? [...(files ?? [])] : []).find(({ name }) => UNSHOWN.test(name));

async function showable(file) {
  const answer = await fetch(new URL("shown-picture", document.baseURI), { method: "POST", body: file });
  if (answer.ok) return new File([await answer.blob()], file.name.replace(UNSHOWN, ".png"), { type: "image/png" });
  alert(say((await answer.json().catch(() => ({}))).detail ?? `${answer.status} ${answer.statusText}`));
}

async function instead(event, file, input) {
  event.preventDefault();
  event.stopImmediatePropagation();
  const shown = await showable(file);
  if (shown) put(shown, input);
}

export function showAnyPicture() {
  for (const name of ["change", "drop"]) {
    document.addEventListener(name, (event) => {
      const input = event.target.closest?.(INPUTS);
      const file = unshown(event.target.files ?? event.dataTransfer?.files, input);
      if (file) instead(event, file, input);
    }, true);
  }
}

// Dropped files and results: the canvas accepts them anywhere, and offers two areas where they may be a picture or a mask.

import { make } from "./bar.js";
import { say } from "./text.js";
import { load } from "./transport.js";

const RESULT = "application/x-palimpsest"; // the URL of one of the page's results

const holdsPicture = ({ types }) => [...types].some((type) => type === "Files" || type === RESULT);

// The file, or the result, that was dropped.
export async function dropped(transfer) {
  const address = transfer.getData(RESULT);
  return address ? load(address) : transfer.files[0];
}

export function listenToDrops(canvas) {
  const { root } = canvas;
  const zone = (takes, text) => make("div", { className: "zone", dataset: { takes }, textContent: text });
  const zones = make("div", { className: "zones", hidden: true }, zone("picture", say('As the picture')), zone("mask", say('As the mask')));
  root.append(zones);
  const show = (dropping) => {
    root.classList.toggle("dropping", dropping);
    zones.hidden = !dropping || canvas.kind !== "mask" || !(canvas.document.picture || canvas.uploads);
  };
  root.addEventListener("dragover", (event) => {
    if (!holdsPicture(event.dataTransfer)) return;
    event.preventDefault();
    show(true);
  });
  root.addEventListener("dragleave", (event) => !root.contains(event.relatedTarget) && show(false));
  root.addEventListener("drop", (event) => {
    const over = event.target.closest("[data-takes]");
    show(false);
    if (!holdsPicture(event.dataTransfer)) return;
    event.preventDefault();
    canvas.takeDropped(event.dataTransfer, over?.dataset.takes);
  });
}

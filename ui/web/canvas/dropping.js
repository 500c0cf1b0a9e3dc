// Dropped files and results: the canvas accepts them anywhere, and offers two areas where they may be a picture or a mask.

import { make } from "./bar.js";
import { say } from "./text.js";
import { load } from "./transport.js";

const RESULT = "application/x-palimpsest"; // the URL of one of the page's results

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
    if (![...event.dataTransfer.types].some((type) => type === "Files" || type === RESULT)) return;
    event.preventDefault();
    show(true);
  });
  root.addEventListener("dragleave", (event) => !root.contains(event.relatedTarget) && show(false));
  root.addEventListener("drop", async (event) => {
    const over = event.target.closest("[data-takes]");
    const [address, file] = [event.dataTransfer.getData(RESULT), event.dataTransfer.files[0]];
    show(false);
    if (!address && !file) return;
    event.preventDefault();
    const taken = address ? await load(address).catch((error) => canvas.tell(error.message)) : file;
    if (over?.dataset.takes === "mask") canvas.takeMask(taken);
    else canvas.take(taken);
  });
}

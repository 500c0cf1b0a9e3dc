// Pasted pictures go into the visible input; dragged results go into the input they are dropped on.

import { INPUTS, put } from "./inputs.js";
import { visible } from "./visible.js";

const DRAGGED = "application/x-palimpsest";
const RESULTS = "#gallery [data-address], #gallery img, #history-picture img"; // a thumbnail has the address of the full picture

export function takePictures() {
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((pasted) => pasted.type.startsWith("image/"));
    const input = visible(INPUTS);
    if (!file || !input) return;
    event.preventDefault();
    put(file, input);
  });
  document.addEventListener("dragstart", (event) => {
    const image = event.target.closest?.(RESULTS);
    if (image) event.dataTransfer.setData(DRAGGED, image.dataset.address ?? image.src);
  });
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes(DRAGGED) && event.target.closest?.(INPUTS)) event.preventDefault();
  }, true);
  document.addEventListener("drop", async (event) => {
    const [address, input] = [event.dataTransfer.getData(DRAGGED), event.target.closest?.(INPUTS)];
    if (!address || !input || event.target.closest(".canvas")) return; // the canvas asks whether it is a picture or a mask
    event.preventDefault();
    event.stopPropagation();
    const picture = await (await fetch(address)).blob();
    put(new File([picture], decodeURIComponent(address.split("/").pop()), { type: picture.type }), input);
  }, true);
}

// Pictures that are pasted, or dropped beside the canvas, go into the visible canvas; results can be dragged there.

const DRAGGED = "application/x-palimpsest";
const RESULTS = "#gallery [data-address], #gallery img, #history-picture img"; // a thumbnail has the address of the full picture
const OTHERS = ".canvas, .references, input, textarea, #batch-files, #batch-masks"; // these handle what is dropped on them

const inSight = () => window.palimpsest.canvases?.inSight();
const isPicture = ({ types }) => [...types].some((type) => type === "Files" || type === DRAGGED);

export function takePictures() {
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((pasted) => pasted.type.startsWith("image/"));
    if (!file || !inSight()) return;
    event.preventDefault();
    inSight().take(file);
  });
  document.addEventListener("dragstart", (event) => {
    const image = event.target.closest?.(RESULTS);
    if (image) event.dataTransfer.setData(DRAGGED, image.dataset.address ?? image.src);
  });
  // a browser would leave the page for the file
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      if (event.defaultPrevented || event.target.closest?.(OTHERS) || !isPicture(event.dataTransfer) || !inSight()) return;
      event.preventDefault();
      if (name === "drop") inSight().takeDropped(event.dataTransfer);
    });
  }
}

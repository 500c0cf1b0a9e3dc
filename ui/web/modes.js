// Tells the stylesheet what is open, as data attributes of the body: page, mode, and on narrow screens whether source
// or result is shown, which is set on the workspace too. A switch changes that; so does the end of a job.

import { whenThere } from "./appears.js";
import { progressBar } from "./progress.js";

const PAGES = ["make", "history", "png_info", "settings"];
const MODES = ["img2img", "sketch", "inpaint", "inpaint_sketch", "inpaint_upload", "batch"];
const STAGE = "#stage-switch [data-stage]";

const open = (ids) => ids.find((id) => document.querySelector(`[role=tab][data-tab-id="${id}"][aria-selected=true]`));

function turn(stage) {
  for (const element of document.querySelectorAll("body, #workspace")) element.dataset.stage = stage;
  document.querySelectorAll(STAGE).forEach(tell);
}

const tell = (button) => button.setAttribute("aria-pressed", button.dataset.stage === document.body.dataset.stage);

export function followModes() {
  const { dataset } = document.body;
  let worked = false;
  const look = () => {
    const [page, mode] = [open(PAGES), open(MODES)];
    if (page && page !== dataset.page) dataset.page = page;
    if (mode && mode !== dataset.mode) {
      if (dataset.mode) turn("source");
      dataset.mode = mode;
    }
    const works = Boolean(progressBar());
    if (worked && !works) turn("result");
    worked = works;
  };
  turn("source");
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributeFilter: ["aria-selected"] });
  whenThere("#workspace", () => turn(dataset.stage));
  whenThere(STAGE, tell);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(STAGE);
    if (button) turn(button.dataset.stage);
  });
}

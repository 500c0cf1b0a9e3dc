// Source or result, where the screen has room for one: tells the workspace which of them is shown. A switch changes that; so do
// another mode and the end of a job.

import { whenThere } from "./appears.js";
import { progressBar } from "./progress.js";

const MODES = ["img2img", "sketch", "inpaint", "inpaint_sketch", "inpaint_upload", "batch"];
const STAGE = "#stage-switch [data-stage]";

const openMode = () => MODES.find((mode) => document.querySelector(`[role=tab][data-tab-id="${mode}"][aria-selected=true]`));

export function followModes() {
  let [stage, mode, worked] = ["source", null, false];
  const show = (workspace) => { workspace.dataset.stage = stage; };
  const tell = (button) => button.setAttribute("aria-pressed", button.dataset.stage === stage);
  const turn = (to) => {
    stage = to;
    document.querySelectorAll("#workspace").forEach(show);
    document.querySelectorAll(STAGE).forEach(tell);
  };
  const look = () => {
    const open = openMode();
    if (open && open !== mode) {
      if (mode) turn("source");
      mode = open;
    }
    const works = Boolean(progressBar());
    if (worked && !works) turn("result");
    worked = works;
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributeFilter: ["aria-selected"] });
  whenThere("#workspace", show);
  whenThere(STAGE, tell);
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(STAGE);
    if (button) turn(button.dataset.stage);
  });
}

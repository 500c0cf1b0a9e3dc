// The stage: where the picture is seen and painted on, and what stands there while there is none.

import { make } from "./bar.js";
import { icon } from "./icons.js";
import { say } from "./text.js";

const PICTURE_TYPES = "image/*,.heic,.heif,.hif,.tif,.tiff,.avif";

// take(file): a picture that the person has chosen. {input, ring, empty, status, stage}: elements.
export function buildStage(take) {
  const input = make("input", { type: "file", accept: PICTURE_TYPES, onchange: () => take(input.files[0]) });
  input.setAttribute("aria-label", say('Choose a picture'));
  const ring = make("div", { className: "ring", hidden: true });
  const empty = make("button", { type: "button", className: "empty", onclick: () => input.click() });
  empty.innerHTML = icon("picture");
  const status = make("div", { className: "status", hidden: true });
  status.setAttribute("role", "status");
  const stage = make("div", { className: "stage", tabIndex: 0 },
    make("div", { className: "sheet" }, ...["picture", "layer", "guides"].map((className) => make("canvas", { className })), ring), status);
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", say('Canvas: arrow keys move the tool, Enter sets it down and lifts it'));
  return { input, ring, empty, status, stage };
}

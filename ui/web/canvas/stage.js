// The stage: shows the picture to paint on, or an invitation while there is none, and lets files be chosen.

import { make } from "./bar.js";
import { icon } from "./icons.js";
import { say } from "./text.js";

const PICTURE_TYPES = "image/*,.heic,.heif,.hif,.tif,.tiff,.avif";

// kind: the canvas's. take(file), takeMask(file): called with a chosen file. Returns elements {input, masks, ring, empty, status, stage}.
export function buildStage(kind, { take, takeMask }) {
  const [input, masks] = [[say('Choose a picture'), take], [say('Choose a mask'), takeMask]].map(([label, taken]) => {
    const field = make("input", { type: "file", accept: PICTURE_TYPES, onchange: () => taken(field.files[0]) });
    field.setAttribute("aria-label", label);
    return field;
  });
  masks.tabIndex = -1; // reached through the menu
  const ring = make("div", { className: "ring", hidden: true });
  const empty = make("button", { type: "button", className: "empty", onclick: () => input.click() });
  empty.innerHTML = icon("picture");
  const status = make("div", { className: "status", hidden: true });
  status.setAttribute("role", "status");
  const stage = make("div", { className: "stage", tabIndex: 0 },
    make("div", { className: "sheet" }, ...["picture", "layer", "guides"].map((className) => make("canvas", { className })), ring), status);
  stage.setAttribute("role", "application");
  stage.setAttribute("aria-label", kind === "picture" ? say('Picture: arrow keys move it, plus and minus zoom')
    : say('Canvas: arrow keys move the tool, Enter sets it down and lifts it'));
  return { input, masks, ring, empty, status, stage };
}

// The inputs for picture and mask file, side by side, each with its state: elements by name, and `row` around them.
// uploads: the prefix of their ids.
export function buildFiles(uploads, { input, masks }) {
  const choose = (name, label, field, hint) => {
    const told = make("output");
    const element = make("label", { id: `${uploads}-${name}`, dataset: { takes: name } }, make("span", { textContent: label }), told, field);
    field.tabIndex = 0;
    element.tip = () => [hint, ""];
    return { element, told };
  };
  const picture = choose("picture", say('Picture'), input, say('Choose a picture'));
  const mask = choose("mask", say('Mask'), masks, say('Choose a mask: white is where the picture should change'));
  return { picture: picture.told, mask: mask.told, row: make("div", { className: "files" }, picture.element, mask.element) };
}

// The bar below the stage while the picture is extended: pixels per side, the fill of the new area, and Apply.

import { colour, dropdown, make, number, slider } from "./bar.js";
import { say } from "./text.js";
import { SIDES } from "./tools/extend.js";
import { decode, larger } from "./transport.js";

const OVERLAP_MOST = 64; // pixels
const MOST = 8192; // the largest number of pixels per side; the server refuses what is too much

export function extendingControls(canvas, settings) {
  const tool = canvas.tools.extend;
  const names = { left: say('Left'), top: say('Top'), right: say('Right'), bottom: say('Bottom') };
  const sides = SIDES.map((side) => number(names[side], { between: [0, MOST], step: 8, value: () => tool.margins[side], act: (pixels) => tool.set(side, pixels) }));
  const fill = dropdown(say('Fill'), [["mirrored", say('Mirrored')], ["edge", say('Edge')], ["inpainted", say('Inpainted by OpenCV')],
    ["noise", say('Noise')], ["colour", say('Colour')]], { value: () => settings.get("fill"), act: (name) => settings.set("fill", name) });
  const plain = colour(say('Colour of the new area'), { value: () => settings.get("fillColour"), act: (hex) => settings.set("fillColour", hex) });
  const overlap = slider(say('Overlap'), { between: [0, () => OVERLAP_MOST], value: () => settings.get("overlap"), show: (pixels) => `${pixels} px`,
    act: (pixels) => settings.set("overlap", Math.round(pixels)) });
  overlap.tip = () => [say('How much of the old picture along the new edges is masked too'), ""];
  const apply = make("button", { type: "button", className: "word primary", textContent: say('Apply'), onclick: () => extend(canvas) });
  const cancel = make("button", { type: "button", className: "word", textContent: say('Cancel'), onclick: () => canvas.choose("brush") });
  const element = make("div", { className: "extending" }, ...sides, make("div", { className: "group" }, fill, plain), overlap, make("div", { className: "row" }, cancel, apply));
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", say('Extend the picture'));
  element.update = () => {
    for (const part of [...sides, fill, plain, overlap]) part.update();
    plain.hidden = settings.get("fill") !== "colour";
    apply.disabled = !tool.grows;
  };
  tool.listeners.add(element.update);
  return element;
}

// Replace the picture with the extended one, its new area masked; Undo restores the old one.
export async function extend(canvas) {
  const { document, settings, transport, tools: { extend: tool } } = canvas;
  const [margins, before] = [{ ...tool.margins }, { width: document.picture.width, height: document.picture.height }];
  await canvas.sources.open(async (current) => {
    const version = document.version;
    const { blob, draft, notes } = await larger(await transport.pictureDraft(), { ...margins, fill: settings.get("fill"), colour: settings.get("fillColour") });
    const bitmap = await decode(blob);
    if (!current() || document.version !== version) return bitmap.close();
    const numbers = masked(document.layer, margins, bitmap, settings.get("overlap"));
    canvas.exchange(bitmap, { blob, draft }, numbers);
    canvas.choose("brush");
    canvas.trigger("apply", { from: [before.width, before.height], to: [bitmap.width, bitmap.height] });
    if (notes.length) canvas.note(notes.map(say).join(" "));
  });
}

// The layer in the larger picture: 255 in the new area and on `overlap` pixels of the old picture beside it.
function masked(layer, { left, top, right, bottom }, { width, height }, overlap) {
  const numbers = new Uint8ClampedArray(width * height).fill(255);
  const inset = (side) => (side ? overlap : 0);
  const [x1, x2] = [inset(left), layer.width - inset(right)];
  for (let y = inset(top); y < layer.height - inset(bottom) && x1 < x2; y++) {
    numbers.set(layer.data.subarray(y * layer.width + x1, y * layer.width + x2), (y + top) * width + left + x1);
  }
  return numbers;
}

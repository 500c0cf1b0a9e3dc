// The buttons and sliders around the stage: their names, actions and order.

import { button, choice, colour, make, menu, palette, slider } from "./bar.js";
import { extendingControls } from "./extending.js";
import { say } from "./text.js";

const FINER = 3; // size sliders are finer for small sizes
const INKS = ["#000000", "#ffffff", "#64748b", "#ef4444", "#f97316", "#facc15", "#22c55e", "#0ea5e9", "#6366f1", "#a16207"];

export const percent = (share) => `${Math.round(100 * share)} %`;

export function makeButtons(canvas) {
  const act = (name) => () => canvas[name]();
  const masked = canvas.kind === "mask";
  const tool = (name, label, key) => button(name, label, { key, act: () => canvas.choose(name) });
  return {
    brush: tool("brush", say('Brush'), "B"), eraser: tool("eraser", say('Eraser'), "E"),
    lasso: tool("lasso", say('Lasso'), "L"), polygon: tool("polygon", say('Polygon'), "P"),
    snap: tool("snap", say('Lasso that snaps to edges'), "S"),
    rectangle: tool("rectangle", say('Rectangle'), "R"), ellipse: tool("ellipse", say('Ellipse'), "O"),
    fill: tool("fill", say('Fill what has one colour'), "F"), colours: tool("colours", say('Select a colour everywhere'), "C"),
    object: tool("object", say('Select an object by a box or a stroke'), "A"),
    clicks: tool("clicks", say('Select an object by clicks'), "W"),
    gradient: tool("gradient", say('Gradient'), "G"), eyedropper: tool("eyedropper", say('Take a colour from the picture'), "I"),
    extend: tool("extend", say('Extend the picture at its edges'), "X"),
    undo: button("undo", say('Undo'), { key: "Ctrl+Z", act: act("undo") }),
    redo: button("redo", say('Redo'), { key: "Ctrl+Shift+Z", act: act("redo") }),
    change: button("change", say('Grow, shrink, feather or smooth the mask'), { key: "M", act: act("change") }),
    invert: button("invert", say('Invert the mask'), { key: "I", act: act("invert") }),
    clear: button("clear", masked ? say('Clear the mask') : say('Clear what was painted'), { key: "Del", act: act("clear") }),
    more: button("more", say('Masks from elsewhere, and as files'), { act: act("more") }),
    open: button("picture", say('Choose another picture'), { act: () => canvas.input.click() }),
    remove: button("remove", say('Remove the picture'), { act: act("remove") }),
    look: button("eye", masked ? say('Hide or show the mask') : say('Hide or show what was painted'), { key: "V", act: act("look") }),
    foresee: button("foresee", say('Show what Generate will do'), { key: "H", act: act("toggleForesight") }),
    set: button("settings", say('How the canvas is set'), { act: act("set") }),
    fit: button("fit", say('Fit'), { key: "0", act: () => canvas.view.fit() }),
  };
}

export function makeSliders(canvas, settings) {
  const set = (name) => (value) => settings.set(name, value);
  return {
    size: slider(say('Size'), { between: [1, () => canvas.largest], curve: FINER, key: "[ ]", value: () => settings.get("size"),
      show: (size) => `${Math.round(size)}`, act: (size) => settings.set("size", Math.round(size)) }),
    hardness: slider(say('Hardness'), { between: [0, () => 1], value: () => settings.get("hardness"), show: percent, act: set("hardness") }),
    tolerance: slider(say('Tolerance'), { between: [0, () => 255], curve: 2, value: () => settings.get("tolerance"),
      show: (value) => `${Math.round(value)}`, act: (value) => settings.set("tolerance", Math.round(value)) }),
    opacity: slider(say('Opacity'), { between: [0.01, () => 1], value: () => settings.get("opacity"), show: percent, act: set("opacity") }),
    outlines: choice(say('Mark the object by'), [["box", say('Box')], ["stroke", say('Stroke')]],
      { value: () => settings.get("outlines"), act: set("outlines") }),
    model: menu(say('Segmentation model'), () => canvas.tools.clicks?.models ?? [], { value: () => settings.get("model"), act: set("model") }),
    advice: make("p", { className: "advice", textContent:
      say('To use this tool, put a SAM or SAM 2 checkpoint into models/sam: a folder with config.json and model.safetensors, as saved by transformers.') }),
    beside: choice(say('Clicks mark'), [[false, say('Part of it')], [true, say('Not part of it')]],
      { value: () => settings.get("beside"), act: set("beside") }),
    next: Object.assign(make("button", { type: "button", className: "word", textContent: say('Next object'), onclick: () => canvas.nextObject() }),
      { tip: () => [say('Start another object with the next click'), "N"] }),
    takes: choice(say('What the tool does'), [[false, say('Add')], [true, say('Take away')]], { value: () => settings.get("takes"), act: set("takes") }),
    ink: palette(say('Colour to paint with'), INKS, { value: () => settings.get("ink"), act: set("ink") }),
    overlay: colour(say('Colour that the mask is shown in'), { value: () => settings.get("overlay"), act: set("overlay") }),
    overlayOpacity: slider(say('Mask'), { between: [0.1, () => 1], value: () => settings.get("overlayOpacity"), show: percent,
      act: set("overlayOpacity") }),
    ...(canvas.kind === "mask" ? { extending: extendingControls(canvas, settings) } : {}),
  };
}

// {tools, options, zoom, zoomed}: the toolbar and the tools' settings, both null if nothing can be painted; what lies in the
// stage's corner, and its button that shows the zoom.
export function layOut(canvas, buttons, sliders) {
  const [masked, painted] = [canvas.kind === "mask", canvas.kind !== "picture"];
  const { undo, redo, change, invert, clear, more, open, remove, look, foresee, set, fit } = buttons;
  const { outlines, model, advice, beside, next, size, hardness, tolerance, opacity, takes, ink, overlay, overlayOpacity, extending } = sliders;
  const zoomed = make("button", { type: "button", className: "percent", onclick: () => canvas.view.centre(1) });
  zoomed.tip = () => [say('Show at 100 %'), "1"];
  const line = (...parts) => make("div", { className: "group" }, ...parts);
  const zoom = make("div", { className: "zoom" }, ...(canvas.foresees ? [foresee] : []), ...(painted ? [look] : [open, remove]), zoomed, fit,
    ...(painted ? [set] : []));
  if (!painted) return { tools: null, options: null, zoom, zoomed };
  const tools = make("div", { className: "tools" }, line(...Object.keys(canvas.tools).map((name) => buttons[name])), line(undo, redo),
    masked ? line(change, invert, clear, more) : line(clear), line(open, remove));
  tools.setAttribute("role", "toolbar");
  tools.setAttribute("aria-label", say('Tools'));
  const options = make("div", { className: "options" }, advice, outlines, model, beside, next, size, hardness,
    tolerance, opacity, takes, ...(masked ? [extending, line(overlay, overlayOpacity)] : [ink]));
  options.setAttribute("role", "group");
  options.setAttribute("aria-label", say('How the tool is set'));
  return { tools, options, zoom, zoomed };
}

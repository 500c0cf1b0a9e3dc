// The tools by name, and the settings that apply to each.

import { Brush } from "./tools/brush.js";
import { ClickSelect } from "./tools/clicks.js";
import { ColourSelect } from "./tools/colours.js";
import { Extend } from "./tools/extend.js";
import { Eyedropper } from "./tools/eyedropper.js";
import { Gradient } from "./tools/gradient.js";
import { Hand } from "./tools/hand.js";
import { ObjectSelect } from "./tools/object.js";
import { Ellipse, Lasso, Polygon, Rectangle } from "./tools/shapes.js";
import { SnapLasso } from "./tools/snap.js";

const BRUSH = ["size", "hardness", "opacity"];
const SHAPE = ["opacity", "takes"];
const COLOURS = ["tolerance", ...SHAPE];

const OPTIONS = { brush: BRUSH, eraser: BRUSH, lasso: SHAPE, polygon: SHAPE, snap: SHAPE, rectangle: SHAPE, ellipse: SHAPE, fill: COLOURS,
  colours: COLOURS, gradient: SHAPE, eyedropper: [], extend: ["extending"], hand: [] };

// The bar's settings that apply to a tool; some tools compute theirs, as they change.
export const optionsOf = (tool) => tool.options ?? OPTIONS[tool.name];

// kind: "mask", "paint" or "picture". parts: {document, settings, view(), selections, note(sentence), optionsChanged()}.
export function makeTools(kind, parts) {
  if (kind === "picture") return { hand: new Hand(parts, { name: "hand" }) };
  const tools = {
    brush: new Brush(parts, { name: "brush" }), eraser: new Brush(parts, { name: "eraser", erase: true }),
    lasso: new Lasso(parts, { name: "lasso" }), polygon: new Polygon(parts, { name: "polygon" }),
    snap: new SnapLasso(parts, { name: "snap" }),
    rectangle: new Rectangle(parts, { name: "rectangle" }), ellipse: new Ellipse(parts, { name: "ellipse" }),
    fill: new ColourSelect(parts, { name: "fill", touching: true }), colours: new ColourSelect(parts, { name: "colours", touching: false }),
    object: new ObjectSelect(parts, { name: "object" }), clicks: new ClickSelect(parts, { name: "clicks" }),
    gradient: new Gradient(parts, { name: "gradient" }),
  };
  return kind === "mask" ? { ...tools, extend: new Extend(parts, { name: "extend" }) } : { ...tools, eyedropper: new Eyedropper(parts, { name: "eyedropper" }) };
}

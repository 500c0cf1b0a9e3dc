// The tools by their names, and which settings act on each.

import { Brush } from "./tools/brush.js";
import { ColourSelect } from "./tools/colours.js";
import { Eyedropper } from "./tools/eyedropper.js";
import { Gradient } from "./tools/gradient.js";
import { Ellipse, Lasso, Polygon, Rectangle } from "./tools/shapes.js";

const BRUSH = ["size", "hardness", "opacity"];
const SHAPE = ["opacity", "takes"];
const COLOURS = ["tolerance", ...SHAPE];

export const OPTIONS = { brush: BRUSH, eraser: BRUSH, lasso: SHAPE, polygon: SHAPE, rectangle: SHAPE, ellipse: SHAPE, fill: COLOURS,
  colours: COLOURS, gradient: SHAPE, eyedropper: [] };

// kind: "mask" or "paint", what is painted. parts: {document, settings, view()}.
export function makeTools(kind, parts) {
  const tools = {
    brush: new Brush(parts, { name: "brush" }), eraser: new Brush(parts, { name: "eraser", erase: true }),
    lasso: new Lasso(parts, { name: "lasso" }), polygon: new Polygon(parts, { name: "polygon" }),
    rectangle: new Rectangle(parts, { name: "rectangle" }), ellipse: new Ellipse(parts, { name: "ellipse" }),
    fill: new ColourSelect(parts, { name: "fill", touching: true }), colours: new ColourSelect(parts, { name: "colours", touching: false }),
    gradient: new Gradient(parts, { name: "gradient" }),
  };
  return kind === "mask" ? tools : { ...tools, eyedropper: new Eyedropper(parts, { name: "eyedropper" }) };
}

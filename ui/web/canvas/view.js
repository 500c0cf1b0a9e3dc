// The view of the document: zoom, pan and device pixels, and conversion between window and picture coordinates.

import { besideBar, fitting, inSight, leftOfBar, limited, topIn } from "../zooming.js";
import { meet, rect } from "./raster.js";

const CHECKS = 8; // device pixels a side, of the checkerboard below transparent areas

export class View {
  // stage: contains a .sheet with the canvases; document: what is shown.
  constructor(stage, document) {
    Object.assign(this, { stage, document, sheet: stage.querySelector(".sheet"), scale: 1, x: 0, y: 0, width: 0, height: 0, exact: [0, 0], fitted: true });
    this.canvases = ["picture", "layer", "guides"].map((name) => stage.querySelector(`canvas.${name}`));
    [this.under, this.over, this.guides] = this.canvases.map((canvas) => canvas.getContext("2d"));
    this.listeners = new Set();
    this.shape = null; // a tool's drawing over everything: draw(pen, toDevice)
    this.backdrop = null; // drawn below that: backdrop(pen)
    this.effect = null; // {canvas, box} shown instead of the layer: the mask as it will act
    this.room = (aspect) => this.usable(aspect); // for a fitted picture; less where another view stands beside this one
    this.resized = () => {};
    this.framed = null; // {area, room}: what to fit instead of the picture, in its coordinates, and into which share of the stage
    this.inverted = null; // if set, the unmasked area is shown in this colour instead
    this.dirty = { picture: false, layer: null, guides: false };
    this.smaller = []; // the picture at half its size, a quarter, and so on
    new ResizeObserver((entries) => this.resize(entries.at(-1))).observe(stage);
    stage.addEventListener("pointerenter", () => this.align());
    document.addEventListener("picture", () => this.takePicture());
    document.addEventListener("pixels", ({ detail }) => this.redraw(detail));
  }

  get ratio() { // device pixels per CSS pixel
    const { width } = this.sheet.getBoundingClientRect();
    return width ? this.width / width : window.devicePixelRatio;
  }

  resize(entry) {
    const { width, height } = entry.contentRect;
    if (!width || !height) return this.resized(); // the tab is hidden
    const [x, y] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
    if (x === this.width && y === this.height) return;
    const centre = this.width ? this.at(this.width / 2, this.height / 2) : null;
    [this.width, this.height] = [x, y];
    for (const canvas of this.canvases) Object.assign(canvas, { width: x, height: y });
    Object.assign(this.sheet.style, { width: `${x / devicePixelRatio}px`, height: `${y / devicePixelRatio}px` });
    this.align();
    if (this.fitted || !centre) this.fit();
    else this.place(this.scale, x / 2 - centre.x * this.scale, y / 2 - centre.y * this.scale);
    this.resized();
  }

  // Align the sheet to device pixels: otherwise the browser draws it up to a pixel away from its stated position.
  align() {
    const box = this.sheet.getBoundingClientRect();
    for (const side of ["left", "top"]) {
      const now = parseFloat(this.sheet.style[side]) || 0;
      const shift = snapped(box[side] - now, devicePixelRatio);
      if (Math.abs(shift - now) > 0.01) this.sheet.style[side] = `${shift}px`;
    }
  }

  async takePicture() {
    for (const bitmap of this.smaller) bitmap.close();
    this.smaller = [];
    this.fit();
    let bitmap = this.document.picture;
    const picture = bitmap;
    while (bitmap && Math.min(bitmap.width, bitmap.height) > 512) {
      const [resizeWidth, resizeHeight] = [Math.ceil(bitmap.width / 2), Math.ceil(bitmap.height / 2)];
      bitmap = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "low" }); // the mean of four
      if (this.document.picture !== picture) return bitmap.close();
      this.smaller.push(bitmap);
    }
    this.place(this.scale, this.x, this.y, this.fitted);
  }

  fit() {
    const { document: { picture }, framed } = this;
    if (!picture || !this.width) return this.place(1, 0, 0, true);
    if (framed) return this.frame(framed);
    const room = this.room(picture.width / picture.height);
    const scale = fitting(picture, room);
    const { x, upright } = leftOfBar(this, picture.width * scale);
    this.stage.classList.toggle("upright", upright);
    return this.place(scale, x, topIn(room, picture.height * scale), true);
  }

  frame({ area: { x1, y1, x2, y2 }, room }) {
    const scale = fitting({ width: x2 - x1, height: y2 - y1 }, this, room);
    this.place(scale, (this.width - (x1 + x2) * scale) / 2, (this.height - (y1 + y2) * scale) / 2, true);
  }

  usable(aspect) {
    return besideBar(this, aspect);
  }

  centre(scale) {
    const { picture } = this.document;
    if (picture) this.place(scale, (this.width - picture.width * scale) / 2, (this.height - picture.height * scale) / 2);
  }

  // Zoom about a point in device pixels, by default the middle of the stage.
  zoom(scale, x = this.width / 2, y = this.height / 2) {
    const { picture } = this.document;
    const to = picture ? limited(scale, picture) : 1;
    const { x: px, y: py } = this.at(x, y);
    this.place(to, x - px * to, y - py * to);
  }

  // Whether the picture is larger than the stage.
  get larger() {
    const { picture } = this.document;
    return Boolean(picture) && (picture.width * this.scale > this.width + 1 || picture.height * this.scale > this.height + 1);
  }

  pan(x, y) {
    this.place(this.scale, this.exact[0] + x, this.exact[1] + y);
  }

  // At whole device pixels, so that a picture at 100 % is sharp; part of it always stays visible.
  place(scale, x, y, fitted = false) {
    const { picture } = this.document;
    if (picture) [x, y] = inSight(this, picture, scale, x, y);
    Object.assign(this, { scale, x: Math.round(x), y: Math.round(y), exact: [x, y], fitted });
    this.redraw();
    for (const listen of this.listeners) listen();
  }

  // Conversions between picture points, device pixels and window coordinates.
  at(x, y) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  device({ clientX, clientY }) {
    const box = this.sheet.getBoundingClientRect();
    return [(clientX - box.left) * (this.width / box.width), (clientY - box.top) * (this.height / box.height)];
  }

  pointer(event) {
    return this.at(...this.device(event));
  }

  client({ x, y }) {
    const box = this.sheet.getBoundingClientRect();
    return { x: box.left + (x * this.scale + this.x) * (box.width / this.width),
      y: box.top + (y * this.scale + this.y) * (box.height / this.height) };
  }

  // area: the part whose layer has changed; none: everything.
  redraw(area = null) {
    if (!this.asked) this.asked = requestAnimationFrame(() => this.draw());
    if (!area) Object.assign(this.dirty, { picture: true, layer: "all", guides: true });
    else if (this.dirty.layer !== "all") (this.dirty.layer ??= []).push(area);
  }

  guide(shape) {
    this.shape = shape;
    this.redrawGuides();
  }

  // A picture point in device pixels.
  onScreen({ x, y }) {
    return { x: x * this.scale + this.x, y: y * this.scale + this.y };
  }

  redrawGuides() {
    this.dirty.guides = true;
    if (!this.asked) this.asked = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.asked = 0;
    const { dirty, document } = this;
    this.dirty = { picture: false, layer: null, guides: false };
    if (dirty.picture) this.drawPicture(document.picture);
    if (dirty.layer) this.drawLayer(document.layer, dirty.layer === "all" ? null : dirty.layer);
    if (dirty.guides) {
      this.guides.clearRect(0, 0, this.width, this.height);
      if (document.picture) this.backdrop?.(this.guides);
      if (document.picture) this.shape?.draw(this.guides, (point) => this.onScreen(point));
    }
  }

  drawPicture(picture) {
    const { under, scale, x, y } = this;
    under.clearRect(0, 0, this.width, this.height);
    if (!picture) return;
    const [width, height] = [picture.width * scale, picture.height * scale];
    under.save();
    under.beginPath();
    under.rect(x, y, width, height);
    under.clip();
    under.fillStyle = checks(under);
    under.fillRect(x, y, width, height);
    under.restore();
    const shown = this.smaller.findLast((bitmap) => bitmap.width >= width) ?? picture;
    under.imageSmoothingEnabled = scale < 2;
    under.drawImage(shown, x, y, width, height);
  }

  drawMask(layer) {
    const { over, scale, x, y, effect } = this;
    if (effect) {
      const [x1, y1, x2, y2] = effect.box;
      over.imageSmoothingEnabled = (x2 - x1) * scale < 2 * effect.canvas.width || effect.canvas.width < x2 - x1;
      over.drawImage(effect.canvas, x1 * scale + x, y1 * scale + y, (x2 - x1) * scale, (y2 - y1) * scale);
      return;
    }
    if (this.inverted) {
      over.fillStyle = this.inverted;
      over.fillRect(x, y, layer.width * scale, layer.height * scale);
      over.globalCompositeOperation = "destination-out";
    }
    layer.rendering.draw(over, scale, x, y);
  }

  drawLayer(layer, areas) {
    const { over, scale, x, y } = this;
    const whole = { x1: 0, y1: 0, x2: this.width, y2: this.height };
    over.imageSmoothingEnabled = scale < 2;
    const [from, to] = [this.at(0, 0), this.at(this.width, this.height)];
    layer?.rendering.fit(scale, { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
    for (const area of areas ?? [null]) {
      const part = area ? meet({ x1: Math.floor(area.x1 * scale + x) - 2, y1: Math.floor(area.y1 * scale + y) - 2,
        x2: Math.ceil(area.x2 * scale + x) + 2, y2: Math.ceil(area.y2 * scale + y) + 2 }, whole) : whole;
      if (part.x2 <= part.x1 || part.y2 <= part.y1) continue;
      over.save();
      over.beginPath();
      over.rect(part.x1, part.y1, part.x2 - part.x1, part.y2 - part.y1);
      over.clip();
      over.clearRect(part.x1, part.y1, part.x2 - part.x1, part.y2 - part.y1);
      if (layer) this.drawMask(layer);
      over.restore();
    }
  }
}

// How far to move an element that begins at `edge`, in CSS pixels, to reach a device pixel, preferably a CSS pixel too.
function snapped(edge, ratio) {
  const near = Math.round(edge);
  const both = [0, 1, -1, 2, -2].map((by) => near + by).find((at) => Math.abs(at * ratio - Math.round(at * ratio)) < 0.05);
  return (both ?? Math.round(edge * ratio) / ratio) - edge;
}

let pattern;
function checks(context) {
  if (pattern) return pattern;
  const tile = Object.assign(document.createElement("canvas"), { width: 2 * CHECKS, height: 2 * CHECKS });
  const pen = tile.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, 2 * CHECKS, 2 * CHECKS);
  pen.fillStyle = "#d4d4d8";
  pen.fillRect(0, 0, CHECKS, CHECKS);
  pen.fillRect(CHECKS, CHECKS, CHECKS, CHECKS);
  pattern = context.createPattern(tile, "repeat");
  return pattern;
}

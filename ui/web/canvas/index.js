// Mounts canvases in Gradio's elements, and gives Gradio's events their content.

import { make } from "./bar.js";
import { Canvas } from "./canvas.js";
import { joinCanvas } from "../link.js";

const STYLE = new URL("canvas.css", import.meta.url);

const canvases = new Map();

// For Gradio's events: the canvases' values, uploaded one after the other.
async function send(values, how) {
  const told = [];
  for (const value of values) told.push(canvases.has(value?.canvas) ? await canvases.get(value.canvas).send(how) : value);
  return told;
}

// Widgets that decide how a mask acts have changed.
const settingsChanged = () => canvases.forEach((canvas) => canvas.foresight.settingsChanged());

// The visible canvas, if any.
const inSight = () => [...canvases.values()].find(({ root }) => root.offsetParent);

// Called by Gradio. element: contains .canvas; props.value: what Python shows in it; watch(): tells when that changes.
export async function mount(element, props, watch, trigger) {
  await styled();
  const root = element.querySelector(".canvas");
  const canvas = new Canvas(root, props.value.canvas, root.dataset, trigger);
  canvases.set(canvas.id, canvas);
  joinCanvas(canvas.view, canvas.document);
  (window.palimpsest ??= {}).canvases = { send, settingsChanged, inSight, of: (id) => canvases.get(id) };
  await canvas.begin(props.value);
  watch("value", () => canvas.show(props.value));
  canvas.show(props.value); // in case it has changed meanwhile
}

function styled() {
  const there = document.querySelector(`link[href="${STYLE}"]`);
  if (there) return there.sheet ? null : new Promise((done) => there.addEventListener("load", done));
  return new Promise((done) => {
    document.head.append(make("link", { rel: "stylesheet", href: STYLE, onload: done, onerror: done }));
  });
}

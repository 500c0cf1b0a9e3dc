// Mounts canvases in Gradio's elements, and gives Gradio's events their content.

import { make } from "./bar.js";
import { Canvas } from "./canvas.js";
import { joinCanvas } from "../link.js";

const STYLE = new URL("canvas.css", import.meta.url);

const canvases = new Map(), others = new Map();

// For Gradio's events: the canvases' values, uploaded one after the other. how: {only, job}: see ui/canvas.py.
async function send(values, how) {
  const asking = how?.job ? [...canvases.values()].map(({ foresight }) => foresight) : [];
  await Promise.all(asking.map((foresight) => foresight.pause()));
  const told = [];
  for (const value of values) {
    const part = canvases.get(value?.canvas) ?? others.get(value?.canvas);
    told.push(part ? await part.send(how) : value);
  }
  for (const foresight of asking) foresight.changed();
  return told;
}

// Another part that uploads what it holds, by the id in its value: it has the method send() too.
export const answers = (id, part) => others.set(id, part);

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
  if (element.closest("#source")) joinCanvas(canvas.view, canvas.document); // the result stands beside it
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

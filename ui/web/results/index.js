// Mounts the viewer in an element that Gradio created.

import { make } from "../canvas/bar.js";
import { Viewer } from "./viewer.js";

const STYLE = new URL("results.css", import.meta.url);
const PARTS = ["#result-title .facts", "#result-actions #result-more", "#result-menu", "#result-infotext"];

// Called by Gradio. element: contains .viewer; props.value: what Python shows in it; watch(): tells when that changes; select():
// tells Python what was chosen.
export async function mount(element, props, watch, select) {
  await Promise.all([styled(), built(element.closest("#result"))]);
  const viewer = new Viewer(element.querySelector(".viewer"), select);
  (window.palimpsest ??= {}).viewer = viewer;
  watch("value", () => viewer.show(props.value));
  viewer.show(props.value);
}

function styled() {
  return new Promise((done) => {
    document.head.append(make("link", { rel: "stylesheet", href: STYLE, onload: done, onerror: done }));
  });
}

// Gradio builds the neighbouring elements, in an order of its own.
function built(column) {
  const complete = () => PARTS.every((part) => column.querySelector(part));
  return new Promise((done) => {
    const watcher = new MutationObserver(() => complete() && end());
    const end = () => {
      watcher.disconnect();
      done();
    };
    watcher.observe(column, { childList: true, subtree: true });
    if (complete()) end();
  });
}

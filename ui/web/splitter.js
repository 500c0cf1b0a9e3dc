// The splitter between two panels: dragged, or moved by arrow keys; a double click or Enter resets it.
// The workspace's --split is the first panel's share of its width; the browser remembers it.

import { whenThere } from "./appears.js";
import { remember, remembered } from "./kept.js";
import { say } from "./locale.js";

const [LEAST, MOST] = [20, 80]; // percent
const [STEP, LEAP] = [2, 10];
const STRIP = "#splitter";

const workspace = () => document.querySelector("#workspace");
const inside = (share) => Math.min(MOST, Math.max(LEAST, share));

// The panels' positions, in the stylesheet's percentages.
function room() {
  const [box, style] = [workspace().getBoundingClientRect(), getComputedStyle(workspace())];
  const [left, right] = [parseFloat(style.paddingLeft), parseFloat(style.paddingRight)];
  return { left: box.left + left, width: box.width - left - right, gap: parseFloat(style.columnGap) || 0 };
}

const shareAt = (x) => inside(((x - room().left) / room().width) * 100);

// Where the panel before the splitter ends.
const edge = (strip) => strip.getBoundingClientRect().left - room().gap;
const placed = (strip) => shareAt(edge(strip));

// share: null for the layout's default
function split(share) {
  if (share === null) workspace().style.removeProperty("--split");
  else workspace().style.setProperty("--split", `${share.toFixed(2)}%`);
  document.querySelectorAll(STRIP).forEach(tell);
}

const tell = (strip) => strip.setAttribute("aria-valuenow", Math.round(placed(strip)));

function settle(share) {
  split(share);
  remember("split", share === null ? null : share.toFixed(2));
}

function drag(strip, event) {
  if (event.button !== 0) return;
  event.preventDefault();
  strip.focus();
  strip.setPointerCapture(event.pointerId);
  const offset = event.clientX - edge(strip);
  let share = null;
  const move = ({ clientX }) => {
    share = shareAt(clientX - offset);
    split(share);
  };
  strip.addEventListener("pointermove", move);
  strip.addEventListener("lostpointercapture", () => {
    strip.removeEventListener("pointermove", move);
    if (share !== null) settle(share); // otherwise it was only clicked
  }, { once: true });
}

function press(strip, event) {
  const step = event.shiftKey ? LEAP : STEP;
  const share = { ArrowLeft: placed(strip) - step, ArrowRight: placed(strip) + step, Home: LEAST, End: MOST, Enter: null }[event.key];
  if (share === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  settle(share === null ? null : inside(share));
}

export function splitPanels() {
  whenThere("#workspace", () => {
    const share = parseFloat(remembered("split"));
    if (share >= LEAST && share <= MOST) split(share);
  });
  whenThere(STRIP, (strip) => {
    const about = { role: "separator", tabindex: 0, "aria-orientation": "vertical", "aria-valuemin": LEAST, "aria-valuemax": MOST,
      "aria-label": say("Width of the panels"), title: say("Drag to change the width of the panels; double-click to reset it") };
    for (const [name, value] of Object.entries(about)) strip.setAttribute(name, value);
    strip.style.touchAction = "none";
    strip.addEventListener("pointerdown", (event) => drag(strip, event));
    strip.addEventListener("keydown", (event) => press(strip, event));
    strip.addEventListener("dblclick", () => settle(null));
    requestAnimationFrame(() => tell(strip)); // it is laid out by then
  });
}

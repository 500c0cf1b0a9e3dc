// The controls around the stage, each with a name, a key and a tooltip.

import { icon } from "./icons.js";
import { say } from "./text.js";

const WAIT = 500; // milliseconds before a tooltip appears

const make = (name, properties = {}, ...children) => {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(name), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
};

// A button with an icon. key: as shown to people.
export function button(name, label, { key = "", act, className = "" }) {
  const element = make("button", { type: "button", className, innerHTML: icon(name), onclick: act });
  element.setAttribute("aria-label", say(label));
  element.tip = () => [say(label), key];
  return element;
}

// A slider with its number. between: [least, most]; curve: how much finer it is at the low end; show: formats a value.
export function slider(label, { between: [least, most], value, act, curve = 1, show = String, key = "" }) {
  const toShare = (number) => ((number - least) / (most() - least)) ** (1 / curve);
  const toValue = (share) => least + share ** curve * (most() - least);
  const range = make("input", { type: "range", min: 0, max: 1000, oninput: () => act(toValue(range.value / 1000)) });
  const output = make("output");
  range.setAttribute("aria-label", say(label));
  const element = make("label", { className: "slider" }, make("span", { textContent: say(label) }), range, output);
  if (key) element.tip = () => [say(label), key];
  element.update = () => {
    const now = value();
    range.value = Math.round(1000 * toShare(Math.min(Math.max(now, least), most())));
    range.setAttribute("aria-valuetext", (output.textContent = show(now)));
    range.style.setProperty("--share", `${range.value / 10}%`);
  };
  return element;
}

// A group of buttons, one of them chosen. choices: [value, text] pairs.
export function choice(label, choices, { value, act }) {
  const buttons = choices.map(([each, text]) => make("button", { type: "button", textContent: text, onclick: () => act(each) }));
  const element = make("div", { className: "choice" }, ...buttons);
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  element.update = () => buttons.forEach((each, i) => each.setAttribute("aria-pressed", String(choices[i][0] === value())));
  element.update();
  return element;
}

// A menu of names, read anew at each update.
export function menu(label, names, { value, act }) {
  const select = make("select", { onchange: () => act(select.value) });
  select.setAttribute("aria-label", say(label));
  const element = make("label", { className: "menu" }, select);
  element.tip = () => [say(label), ""];
  element.update = () => {
    select.replaceChildren(...names().map((name) => make("option", { value: name, textContent: name })));
    select.value = value();
  };
  return element;
}

// A menu with a label. choices: [value, text] pairs.
export function dropdown(label, choices, { value, act }) {
  const select = make("select", { onchange: () => act(select.value) }, ...choices.map(([each, text]) => make("option", { value: each, textContent: text })));
  select.setAttribute("aria-label", label);
  const element = make("label", { className: "dropdown" }, make("span", { textContent: label }), select);
  element.update = () => { select.value = value(); };
  return element;
}

// A whole-number field.
export function number(label, { between: [least, most], step, value, act }) {
  const field = make("input", { type: "number", min: least, max: most, step, oninput: () => act(Math.min(field.valueAsNumber || 0, most)) });
  field.setAttribute("aria-label", label);
  const element = make("label", { className: "number" }, make("span", { textContent: label }), field);
  element.update = () => { if (field.valueAsNumber !== value() && !(field.value === "" && document.activeElement === field)) field.value = value(); };
  return element;
}

export function colour(label, { value, act }) {
  const input = make("input", { type: "color", value: value(), oninput: () => act(input.value) });
  input.setAttribute("aria-label", say(label));
  const element = make("label", { className: "colour" }, input);
  element.tip = () => [say(label), ""];
  element.update = () => { input.value = value(); };
  return element;
}

// Preset colours, and a picker for any other.
export function palette(label, colours, { value, act }) {
  const swatches = colours.map((each) => {
    const element = make("button", { type: "button", className: "swatch", onclick: () => act(each) });
    element.style.setProperty("--colour", each);
    element.setAttribute("aria-label", each);
    return element;
  });
  const any = colour(label, { value, act });
  const element = make("div", { className: "palette" }, any, ...swatches);
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  element.update = () => {
    any.update();
    swatches.forEach((swatch, i) => swatch.setAttribute("aria-pressed", String(colours[i] === value())));
  };
  return element;
}

// One tooltip for all elements with `tip`: shown after a moment's hover, and at once on keyboard focus.
export function tooltips(root) {
  const box = make("div", { className: "tooltip", hidden: true });
  box.setAttribute("role", "tooltip");
  root.append(box);
  let timer = 0;
  const hide = () => {
    clearTimeout(timer);
    box.hidden = true;
  };
  const show = (element) => {
    const [text, key] = element.tip();
    box.replaceChildren(text, ...(key ? [make("kbd", { textContent: key })] : []));
    box.hidden = false;
    const [at, all] = [element.getBoundingClientRect(), root.getBoundingClientRect()];
    const left = Math.min(Math.max(at.left + at.width / 2 - all.left - box.offsetWidth / 2, 4), all.width - box.offsetWidth - 4);
    const above = at.top - all.top - box.offsetHeight - 6;
    const beside = element.closest(".tools") && root.classList.contains("wide");
    box.style.left = `${beside ? at.right - all.left + 8 : left}px`;
    box.style.top = `${beside ? at.top - all.top + (at.height - box.offsetHeight) / 2 : above < 0 ? at.bottom - all.top + 6 : above}px`;
  };
  const over = (event, wait) => {
    let element = event.target;
    while (element && element !== root && !element.tip) element = element.parentElement;
    hide();
    if (element?.tip) timer = setTimeout(() => show(element), wait);
  };
  root.addEventListener("pointerover", (event) => event.pointerType !== "touch" && over(event, WAIT));
  root.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && over(event, 0));
  for (const name of ["pointerdown", "pointerleave", "focusout", "keydown"]) root.addEventListener(name, hide);
}

export { make };

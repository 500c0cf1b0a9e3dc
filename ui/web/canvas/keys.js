// The canvas's keys: they act on the visible canvas, unless somebody is typing.

const TYPED = "textarea, select, [contenteditable], dialog[open]";
const UNTYPED = ["range", "checkbox", "radio", "color", "button"]; // inputs that accept no letters

const commandsOf = (canvas) => ({
  z: ({ shiftKey }) => (shiftKey ? canvas.redo() : canvas.undo()),
  y: () => canvas.redo(),
});

const toolKeysOf = (canvas) => ({
  b: () => canvas.choose("brush"),
  e: () => canvas.choose("eraser"),
  l: () => canvas.choose("lasso"),
  p: () => canvas.choose("polygon"),
  s: () => canvas.choose("snap"),
  r: () => canvas.choose("rectangle"),
  o: () => canvas.choose("ellipse"),
  f: () => canvas.choose("fill"),
  c: () => canvas.choose("colours"),
  a: () => canvas.choose("object"),
  w: () => canvas.choose("clicks"),
  n: () => canvas.nextObject(),
  g: () => canvas.choose("gradient"),
  x: () => canvas.kind === "mask" && canvas.choose("extend"),
  h: () => canvas.toggleForesight(),
  m: () => canvas.kind === "mask" && canvas.change(),
  i: () => (canvas.kind === "mask" ? canvas.invert() : canvas.choose("eyedropper")),
  v: () => canvas.look(),
  "[": () => canvas.resizeBrush(-1),
  "]": () => canvas.resizeBrush(1),
  "{": () => canvas.harden(-1),
  "}": () => canvas.harden(1),
  Delete: () => canvas.clear(),
});

const viewKeysOf = (canvas) => ({
  0: () => canvas.view.fit(),
  1: () => canvas.view.centre(1),
  "+": () => canvas.view.zoom(canvas.view.scale * 1.25),
  "-": () => canvas.view.zoom(canvas.view.scale / 1.25),
  " ": () => canvas.hold(true),
});

export function listenToKeys(canvas) {
  const painted = canvas.kind !== "picture";
  const [keys, commands] = [{ ...(painted ? toolKeysOf(canvas) : {}), ...viewKeysOf(canvas) }, painted ? commandsOf(canvas) : {}];
  document.addEventListener("keydown", (event) => {
    if (!canvas.document.picture || !canvas.root.offsetParent || event.target.closest?.(TYPED)) return;
    const field = event.target.closest?.("input");
    if (field && !UNTYPED.includes(field.type)) return;
    const acts = event.ctrlKey || event.metaKey ? commands : event.altKey ? {} : keys;
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || (event.key === " " && !canvas.pointers.at && event.target !== document.body)) return; // or it presses the focused button
    event.preventDefault();
    act(event);
  });
  document.addEventListener("keyup", (event) => event.key === " " && canvas.hold(false));
  window.addEventListener("blur", () => canvas.hold(false));
}

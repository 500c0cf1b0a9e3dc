// Painting in black and white on what a control network sees; "Use as the picture" takes the strokes along.

const COLOURS = { white: "#fff", black: "#000" };
const INDEX = /^controlnet-(?:preview|paint)-(\d+)$/;

const unitOf = (element) => element?.closest("[id^=controlnet-preview-], [id^=controlnet-paint-]")?.id.match(INDEX)?.[1];
const barOf = (unit) => document.querySelector(`#controlnet-paint-${unit} .paint-bar`);
const pictureOf = (unit) => document.querySelector(`#controlnet-preview-${unit} img`);
const strokesOf = (unit) => document.querySelector(`#controlnet-preview-${unit} canvas.strokes`);
const brushOf = (unit) => barOf(unit)?.querySelector("[data-brush][aria-pressed=true]")?.dataset.brush;

export function paintPreviews() {
  document.addEventListener("click", ({ target }) => press(target.closest(".paint-bar button")));
  document.addEventListener("pointerdown", begin, true);
  // a picture could be dragged away instead
  document.addEventListener("dragstart", (event) => event.target.closest?.(".painting") && event.preventDefault(), true);
  // for the event of "Use as the picture", which cannot import
  (window.palimpsest ??= {}).painted = painted;
}

// A brush is chosen, or laid down again; or the strokes are removed.
function press(button) {
  if (!button) return;
  const unit = unitOf(button);
  if ("clear" in button.dataset) return strokesOf(unit)?.remove();
  const on = button.getAttribute("aria-pressed") !== "true";
  for (const each of barOf(unit).querySelectorAll("[data-brush]")) each.setAttribute("aria-pressed", String(on && each === button));
  document.querySelector(`#controlnet-preview-${unit}`).classList.toggle("painting", on);
}

function begin(event) {
  const unit = event.target.matches?.("img, canvas.strokes") ? unitOf(event.target) : undefined;
  const brush = unit !== undefined && brushOf(unit);
  if (!brush || event.button) return;
  event.preventDefault();
  event.stopPropagation();
  const strokes = strokesOf(unit) ?? laid(pictureOf(unit)), context = strokes.getContext("2d");
  Object.assign(context, { strokeStyle: COLOURS[brush], lineCap: "round", lineJoin: "round" });
  let last = at(strokes, event);
  const draw = (moved) => {
    context.lineWidth = Number(barOf(unit).querySelector("input").value) / scaleOf(strokes);
    const next = at(strokes, moved);
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...next);
    context.stroke();
    last = next;
  };
  draw(event);
  const stop = new AbortController();
  document.addEventListener("pointermove", draw, { signal: stop.signal });
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => stop.abort(), { signal: stop.signal });
}

// A sheet for strokes over a picture, with its pixels; gone as soon as another picture is shown.
function laid(picture) {
  const sheet = Object.assign(document.createElement("canvas"), { className: "strokes", width: picture.naturalWidth, height: picture.naturalHeight });
  const place = () => Object.assign(sheet.style, {
    objectFit: getComputedStyle(picture).objectFit, left: `${picture.offsetLeft}px`, top: `${picture.offsetTop}px`, width: `${picture.offsetWidth}px`, height: `${picture.offsetHeight}px` });
  place();
  new ResizeObserver(place).observe(picture);
  new MutationObserver(() => sheet.remove()).observe(picture, { attributeFilter: ["src"] });
  picture.after(sheet);
  return sheet;
}

// Screen pixels per pixel of the picture, which is shown whole.
function scaleOf(sheet) {
  const fits = Math.min(sheet.clientWidth / sheet.width, sheet.clientHeight / sheet.height);
  return sheet.style.objectFit === "scale-down" ? Math.min(fits, 1) : fits;
}

function at(sheet, { clientX, clientY }) {
  const box = sheet.getBoundingClientRect(), scale = scaleOf(sheet);
  return [(clientX - box.left - (box.width - sheet.width * scale) / 2) / scale, (clientY - box.top - (box.height - sheet.height * scale) / 2) / scale];
}

// A unit's preview with its strokes as the data URL of a PNG; "" if nothing was painted.
function painted(unit) {
  const [picture, strokes] = [pictureOf(unit), strokesOf(unit)];
  if (!picture || !strokes) return "";
  const whole = Object.assign(document.createElement("canvas"), { width: strokes.width, height: strokes.height });
  const context = whole.getContext("2d");
  context.drawImage(picture, 0, 0);
  context.drawImage(strokes, 0, 0);
  return whole.toDataURL("image/png");
}

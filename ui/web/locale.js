// The page in the browser's language: texts by a catalogue of ui/locale, wherever and whenever they appear.

const catalogues = JSON.parse(document.querySelector("#catalogues")?.textContent ?? "{}");
const language = [navigator.language, navigator.language.split("-")[0]].find((code) => code in catalogues);
const catalogue = catalogues[language] ?? {};

// texts with {} for any words or number: the longest first, because "{} must be {}, got {}" also matches "{}"
const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const patterns = Object.keys(catalogue).map((key) => key.split("{}")).filter((parts) => parts.length > 1)
  .sort((a, b) => b.join("").length - a.join("").length)
  .map((parts) => [new RegExp(`^${parts.map(literally).join("(.*?)")}$`, "s"), parts]);

// Translates an English text: as a whole, in parts joined by " · ", or around the values in place of {}.
// Names in quotes, and texts that the catalogue lacks, stay as they are.
export function say(text) {
  if (Object.hasOwn(catalogue, text)) return catalogue[text];
  if (text.includes(" · ")) return text.split(" · ").map(say).join(" · ");
  for (const [pattern, parts] of patterns) {
    const [, ...values] = text.match(pattern) ?? [];
    if (!values.length) continue;
    const said = values.map((value, i) => (parts[i].endsWith('"') ? value : say(value)));
    return catalogue[parts.join("{}")].split("{}").reduce((before, after, i) => before + said[i - 1] + after);
  }
  return text;
}

// never translated: typed text, names of files, models and styles, and menu entries, which requests and infotext use
const THEIRS = "textarea, input, code, pre, style, script, .token, .options, .file-preview, #picker .gallery, "
  + "#report td:first-child";
const SPOKEN = ["placeholder", "aria-label", "title"];

function localize(node) {
  if (node.nodeType === Node.TEXT_NODE) {
    const text = node.data.trim();
    if (!text || node.parentElement?.closest(THEIRS)) return;
    const said = say(text);
    if (said !== text) node.data = node.data.replace(text, () => said);
  } else if (node.nodeType === Node.ELEMENT_NODE) {
    for (const name of SPOKEN) {
      const [text, said] = [node.getAttribute(name), say(node.getAttribute(name) ?? "")];
      if (text && said !== text) node.setAttribute(name, said);
    }
    node.childNodes.forEach(localize);
  }
}

// Translate the page from now on. New elements are translated before they are painted.
export function speak() {
  if (!language) return;
  document.documentElement.lang = language;
  localize(document.body);
  new MutationObserver((changes) => changes.forEach((change) =>
    change.type === "childList" ? change.addedNodes.forEach(localize) : localize(change.target),
  )).observe(document.body, { subtree: true, childList: true, characterData: true, attributeFilter: SPOKEN });
  setInterval(localizeBoxes, 500);
}

// placeholders are not text nodes, and no event tells when Gradio sets them
function localizeBoxes() {
  for (const box of document.querySelectorAll("#png-info-text textarea, #png-info-receipt textarea")) {
    const said = say(box.value);
    if (said !== box.value) box.value = said;
  }
}

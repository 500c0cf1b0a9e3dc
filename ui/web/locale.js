// The page in the browser's language: texts by a catalogue of ui/locale, wherever and whenever they appear.

const catalogues = JSON.parse(document.querySelector("#catalogues")?.textContent ?? "{}");
const language = [navigator.language, navigator.language.split("-")[0]].find((code) => code in catalogues);
const catalogue = catalogues[language] ?? {};

// texts with {} in them, for any words or number: the longest first, as "{} must be {}, got {}" also fits "{}"
const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
const patterns = Object.keys(catalogue).map((key) => key.split("{}")).filter((parts) => parts.length > 1)
  .sort((a, b) => b.join("").length - a.join("").length)
  .map((parts) => [new RegExp(`^${parts.map(literally).join("(.*?)")}$`, "s"), parts]);

// An English text in the browser's language: whole, part by part where " · " joins them, or around what stands for {}.
// What stands in quotes is a name and stays; so does what no catalogue has.
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

// what people typed, names of files, models and styles, and what menus offer, as requests and infotext say it
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

// Translate the page from now on. What is added is translated before it is painted.
export function speak() {
  if (!language) return;
  document.documentElement.lang = language;
  localize(document.body);
  new MutationObserver((changes) => changes.forEach((change) =>
    change.type === "childList" ? change.addedNodes.forEach(localize) : localize(change.target),
  )).observe(document.body, { subtree: true, childList: true, characterData: true, attributeFilter: SPOKEN });
  setInterval(localizeBoxes, 500);
}

// sentences in boxes are no texts of the document, and nothing tells when Gradio sets them
function localizeBoxes() {
  for (const box of document.querySelectorAll("#png-info-text textarea, #png-info-receipt textarea")) {
    const said = say(box.value);
    if (said !== box.value) box.value = said;
  }
}

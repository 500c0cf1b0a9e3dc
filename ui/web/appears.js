// Acts on elements as Gradio creates them: when a tab is first opened, or again whenever their content changes.

const wanted = [];

function look() {
  for (const { selector, act, met } of wanted) {
    for (const element of document.querySelectorAll(selector)) {
      if (met.has(element)) continue;
      met.add(element);
      act(element);
    }
  }
}

// Calls act(element) for each matching element, as soon as it exists and before it is painted.
export function whenThere(selector, act) {
  if (!wanted.length) new MutationObserver(look).observe(document.body, { subtree: true, childList: true });
  wanted.push({ selector, act, met: new WeakSet() });
  look();
}

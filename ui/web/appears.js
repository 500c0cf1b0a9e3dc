// Elements as Gradio makes them: a tab's when it is first opened, some anew whenever what they show changes.

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

// act(element) for each element that fits, as soon as it is there and before it is painted.
export function whenThere(selector, act) {
  if (!wanted.length) new MutationObserver(look).observe(document.body, { subtree: true, childList: true });
  wanted.push({ selector, act, met: new WeakSet() });
  look();
}

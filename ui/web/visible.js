// The element that is seen, of those that Gradio keeps for other tabs.

export const visible = (selector) => [...document.querySelectorAll(selector)].find((element) => element.offsetParent);

// The visible one of several elements that Gradio keeps for different tabs.

export const visible = (selector) => [...document.querySelectorAll(selector)].find((element) => element.offsetParent);

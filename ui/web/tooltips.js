// Tooltips for what Gradio gives none: buttons that show a sign say their name, options the name that requests know them by.

import { say } from "./locale.js";

function nameAll() {
  const arrow = document.querySelector("#read-data:not([title])");
  if (arrow) arrow.title = arrow.ariaLabel = say("Read generation data from the prompt, or from the selected result if the prompt is empty");
  for (const button of document.querySelectorAll("button.sign:not([title]), #picker > button:not([title])")) {
    if (button.textContent.trim()) button.title = button.textContent.trim();
  }
  for (const option of document.querySelectorAll("[id^=option-]:not([title])")) option.title = option.id.replace("option-", "");
}

// Gradio makes a tab's widgets when it is first opened.
export function nameThings() {
  setInterval(nameAll, 500);
}

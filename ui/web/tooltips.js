// Tooltips that Gradio lacks: the name of an icon button, and an option's API name.

import { whenThere } from "./appears.js";
import { say } from "./locale.js";

export function nameThings() {
  whenThere("#read-data", (arrow) => {
    arrow.title = arrow.ariaLabel = say("Read generation data from the prompt, or from the selected result if the prompt is empty");
  });
  whenThere("button.sign, #picker > button", (button) => { button.title ||= button.textContent.trim(); });
  whenThere("[id^=option-]", (option) => { option.title = option.id.replace("option-", ""); });
}

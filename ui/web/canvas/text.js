// The canvas's texts in the page's language.

export { say } from "../locale.js";

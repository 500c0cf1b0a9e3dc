// Words of the canvas in the page's language.

export { say } from "../locale.js";

// Words of the canvas in the page's language.

export const say = (text) => window.palimpsest?.translate(text) ?? text;

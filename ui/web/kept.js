// What the browser remembers of how the page is set up: a text by its name, for as long as the browser lets it.

export function remembered(name) {
  try {
    return localStorage.getItem(`palimpsest-${name}`);
  } catch {
    return null; // nothing may be kept
  }
}

export function remember(name, text) {
  try {
    if (text === null) localStorage.removeItem(`palimpsest-${name}`);
    else localStorage.setItem(`palimpsest-${name}`, text);
  } catch {
    // it holds until the page is closed
  }
}

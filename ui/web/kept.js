// What the browser remembers of the page's set-up: a text for each name, for as long as the browser allows.

export function remembered(name) {
  try {
    return localStorage.getItem(`palimpsest-${name}`);
  } catch {
    return null; // the browser allows no storage
  }
}

export function remember(name, text) {
  try {
    if (text === null) localStorage.removeItem(`palimpsest-${name}`);
    else localStorage.setItem(`palimpsest-${name}`, text);
  } catch {
    // lasts until the page is closed
  }
}

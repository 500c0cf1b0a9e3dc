// The tools' settings: remembered by the browser; listeners are told of changes.

const KEPT = "palimpsest-canvas";
const FIRST = { size: 0, hardness: 0.8, opacity: 1, takes: false, tolerance: 24, ink: "#000000", overlay: "#f43f5e", overlayOpacity: 0.45,
  outlines: "box", model: "", beside: false, foresee: true, fill: "mirrored", fillColour: "#808080", overlap: 8,
  threshold: 8, brushUnit: "picture" }; // size 0: chosen from the picture's size

const stored = () => {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
};

export class Settings extends EventTarget {
  constructor() {
    super();
    this.values = { ...FIRST, ...stored() };
  }

  get(name) {
    return this.values[name];
  }

  get ink() {
    return coloursOf(this.get("ink"));
  }

  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    try {
      localStorage.setItem(KEPT, JSON.stringify(this.values));
    } catch { /* a browser that keeps nothing */ }
    this.dispatchEvent(new CustomEvent("change", { detail: name }));
  }
}

export const coloursOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

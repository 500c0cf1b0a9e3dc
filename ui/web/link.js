// Views of pictures that stand side by side zoom and pan together: source and result.
//
// A view has shown(): null where it shows nothing just now, or { aspect, width, x, y, fitted }: the picture's width by its
// height, its width on the screen in device pixels, which point of it is in the view's middle, in shares of the picture, and
// whether all of it is fitted in. And follow(shown), which shows the same. What is told so has no answer: nothing goes round.

const ALIKE = 0.01; // of an aspect: sources are cropped to multiples of 8
const views = new Set();
let telling = false;

export function join(view) {
  views.add(view);
}

// A view was moved: the others of its proportions follow.
export function tell(view) {
  if (telling) return;
  const shown = view.shown();
  if (!shown) return;
  telling = true;
  try {
    for (const other of views) if (other !== view && alike(other.shown(), shown)) other.follow(shown);
  } finally {
    telling = false;
  }
}

// What another view shows of a picture of these proportions; null where none does.
export function beside(view) {
  for (const other of views) {
    const shown = other === view ? null : other.shown();
    if (shown && alike(view.shown(), shown)) return shown;
  }
  return null;
}

// A canvas's View takes part. stage: its element.
export function joinCanvas(view, document) {
  const member = {
    shown() {
      const { picture } = document;
      if (!picture || !view.width || !view.stage.offsetParent) return null;
      const { x, y } = view.at(view.width / 2, view.height / 2);
      return { aspect: picture.width / picture.height, width: picture.width * view.scale, x: x / picture.width, y: y / picture.height,
        fitted: view.fitted };
    },
    follow({ width, x, y, fitted }) {
      if (fitted) return view.fit();
      const { picture } = document;
      const scale = width / picture.width;
      return view.place(scale, view.width / 2 - x * picture.width * scale, view.height / 2 - y * picture.height * scale);
    },
  };
  join(member);
  view.listeners.add(() => tell(member));
}

function alike(a, b) {
  return a && Math.abs(a.aspect / b.aspect - 1) < ALIKE;
}

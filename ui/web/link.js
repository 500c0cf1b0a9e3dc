// Links the views of source and result, which zoom and pan together.
//
// A view has shown(): null while it shows nothing, or { aspect, width, x, y, fitted }: the picture's width divided by its
// height, its width on the screen in device pixels, the point in the view's middle as shares of the picture, and whether it
// is fitted. And it has follow(shown), which shows the same and notifies nobody, so there are no loops.

const ALIKE = 0.01; // difference in aspect: sources are cropped to multiples of 8
const views = new Set();
let telling = false;

export function join(view) {
  views.add(view);
}

// A view has moved: the others with the same aspect follow.
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

// What another view shows of a picture with this aspect; null if there is none.
export function beside(view) {
  for (const other of views) {
    const shown = other === view ? null : other.shown();
    if (shown && alike(view.shown(), shown)) return shown;
  }
  return null;
}

// Link a canvas's View. stage: its element.
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

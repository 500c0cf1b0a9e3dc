// Links the views of source and result, which zoom and pan together and fit their pictures into the same room.
//
// A view has a stage and:
// usable(aspect)  {width, height, middle}, in device pixels: the room for a fitted picture whose width is `aspect` times its
//                 height, from the stage's top, and the height that its middle should have.
// shown()         null while it shows nothing, or { aspect, width, x, y, fitted }: the picture's aspect, its width on the screen
//                 in device pixels, the point in the view's middle as shares of the picture, and whether it is fitted.
// follow(shown)   shows the same and notifies nobody, so there are no loops.
// roomChanged()   is called when a neighbour has changed the room.

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

// What all visible views have room for, as `usable` says it, so that source and result are equally large and at one height.
export function room(view, aspect) {
  const rooms = [...views].filter((each) => each === view || each.stage.offsetParent).map((each) => each.usable(aspect));
  const least = (side) => Math.min(...rooms.map((each) => each[side]));
  return { width: least("width"), height: least("height"), middle: least("middle") };
}

// A view has another size.
export function resized(view) {
  telling = true;
  try {
    for (const other of views) if (other !== view && other.stage.offsetParent) other.roomChanged();
  } finally {
    telling = false;
  }
}

// What another view shows of a picture with this view's aspect, or with any if it shows none; null if there is none.
export function beside(view) {
  const own = view.shown();
  for (const other of views) {
    const shown = other === view ? null : other.shown();
    if (shown && (!own || alike(own, shown))) return shown;
  }
  return null;
}

// Link a canvas's View.
export function joinCanvas(view, document) {
  const member = {
    stage: view.stage,
    usable: (aspect) => view.usable(aspect),
    roomChanged() {
      if (view.fitted) view.fit();
    },
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
  view.room = (aspect) => room(member, aspect);
  view.resized = () => resized(member);
  view.listeners.add(() => tell(member));
  resized(member);
  member.roomChanged();
}

function alike(a, b) {
  return a && Math.abs(a.aspect / b.aspect - 1) < ALIKE;
}

// A finger's swipe goes to another result, as long as all of the picture is visible: left to the next, right to the previous one.

const FAR = 56; // CSS pixels that count as a swipe
const STIFF = 4; // how much less the picture follows where there is no further result

// viewer: the Viewer, built.
export function listenToSwipes(viewer) {
  const { stage, sheet, frame } = viewer;
  let finger = null; // {id, x, y} of where it was put down

  const shift = (event) => {
    const [x, y] = [event.clientX - finger.x, event.clientY - finger.y];
    return Math.abs(x) > Math.abs(y) ? x : 0;
  };
  const end = () => {
    finger = null;
    sheet.style.translate = "";
  };

  stage.addEventListener("pointerdown", (event) => {
    const { pointerType, isPrimary, pointerId: id, clientX: x, clientY: y } = event;
    if (finger) return end(); // a second one: they zoom
    if (pointerType === "touch" && isPrimary && viewer.file && !frame.larger && !event.target.closest("button, .compared")) finger = { id, x, y };
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.pointerId !== finger?.id) return;
    const by = shift(event);
    sheet.style.translate = `${viewer.neighbour(by < 0 ? 1 : -1) ? by : by / STIFF}px`;
  });
  stage.addEventListener("pointerup", (event) => {
    if (event.pointerId !== finger?.id) return;
    const by = shift(event);
    end();
    const file = Math.abs(by) > FAR && viewer.neighbour(by < 0 ? 1 : -1);
    if (file) viewer.choose(file);
  });
  stage.addEventListener("pointercancel", end); // the page scrolls
}

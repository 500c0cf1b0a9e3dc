// The eyedropper: takes the colour to paint with from the picture as shown.

const hex = (colour) => `#${[...colour].map((value) => Math.round(value).toString(16).padStart(2, "0")).join("")}`;

export class Eyedropper {
  constructor({ document, settings }, { name }) {
    Object.assign(this, { document, settings, name });
  }

  down(point) {
    this.move([point]);
  }

  move(points) {
    const { picture, layer } = this.document;
    const [x, y] = [Math.floor(points.at(-1).x), Math.floor(points.at(-1).y)];
    if (x < 0 || y < 0 || x >= picture.width || y >= picture.height) return;
    const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    pen.drawImage(picture, -x, -y);
    const under = pen.getImageData(0, 0, 1, 1).data;
    const over = layer.data.subarray((y * layer.width + x) * 4, (y * layer.width + x + 1) * 4);
    this.settings.set("ink", hex([0, 1, 2].map((i) => under[i] + ((over[i] - under[i]) * over[3]) / 255)));
  }

  up() {}

  cancel() {}
}

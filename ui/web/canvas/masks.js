// Masks from elsewhere, fitted to the picture, and the mask as a file.

import { encode } from "./png.js";
import { asMask, load } from "./transport.js";

const HALF = 128;
const HELD = 5000; // milliseconds for a download to begin

function colours(bitmap, width, height, smooth) {
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = smooth;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}

const numbersOf = ({ width, height }, number) => Uint8ClampedArray.from({ length: width * height }, (_, i) => number(4 * i));

// The numbers of one of our own masks, at the picture's size.
export async function greys(blob, picture) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const pixels = colours(bitmap, picture.width, picture.height, false);
  bitmap.close();
  return numbersOf(picture, (at) => pixels[at]);
}

// {numbers, from} of any picture file read as a mask by the server, stretched to the picture. from: its own size, such as "3x2".
export async function imported(blob, picture) {
  const { mask, from } = await asMask(blob, picture);
  return { numbers: await greys(mask, picture), from };
}

// The picture's transparency as a mask.
export const transparency = (picture, pixels) => numbersOf(picture, (at) => 255 - pixels[at + 3]);

// {differences, from} of another picture, given by URL and stretched to this one: its difference in the channel that differs
// most, 0 to 255. from: its own size.
export async function difference(picture, pixels, address) {
  const bitmap = await createImageBitmap(await load(address));
  const from = { width: bitmap.width, height: bitmap.height };
  const other = colours(bitmap, picture.width, picture.height, true);
  bitmap.close();
  const differences = numbersOf(picture, (at) => Math.max(Math.abs(pixels[at] - other[at]), Math.abs(pixels[at + 1] - other[at + 1]),
    Math.abs(pixels[at + 2] - other[at + 2])));
  return { differences, from };
}

export async function save({ data, width, height }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encode(data, width, height));
  link.download = "mask.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), HELD);
}

export { HALF };

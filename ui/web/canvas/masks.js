// Masks from elsewhere, fitted to the picture, and the mask as a file.

import { encode } from "./png.js";
import { load } from "./transport.js";

const HALF = 128;
const HELD = 5000; // milliseconds that a download has to begin

function colours(bitmap, width, height, smooth) {
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = smooth;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}

const numbersOf = ({ width, height }, number) => Uint8ClampedArray.from({ length: width * height }, (_, i) => number(4 * i));

// The numbers of a mask of ours at the picture's size.
export async function greys(blob, picture) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const pixels = colours(bitmap, picture.width, picture.height, false);
  bitmap.close();
  return numbersOf(picture, (at) => pixels[at]);
}

// {numbers, from} of any picture file as a mask: its opacity where it has transparency, else its brightness; stretched to
// the picture. from: its own size.
export async function imported(blob, picture) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const from = { width: bitmap.width, height: bitmap.height };
  const pixels = colours(bitmap, picture.width, picture.height, true);
  bitmap.close();
  let clear = false;
  for (let at = 3; at < pixels.length && !clear; at += 4) clear = pixels[at] < 255;
  const numbers = numbersOf(picture, clear ? (at) => pixels[at + 3]
    : (at) => (pixels[at] * 19595 + pixels[at + 1] * 38470 + pixels[at + 2] * 7471) / 65536);
  return { numbers, from };
}

// Where the picture is transparent.
export const transparency = (picture, pixels) => numbersOf(picture, (at) => 255 - pixels[at + 3]);

// Where another picture, at an address, differs from this one in any channel.
export async function difference(picture, pixels, address) {
  const bitmap = await createImageBitmap(await load(address));
  const other = colours(bitmap, picture.width, picture.height, true);
  bitmap.close();
  return numbersOf(picture, (at) => (pixels[at] === other[at] && pixels[at + 1] === other[at + 1] && pixels[at + 2] === other[at + 2] ? 0 : 255));
}

export async function save({ data, width, height }) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encode(data, width, height));
  link.download = "mask.png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), HELD);
}

export { HALF };

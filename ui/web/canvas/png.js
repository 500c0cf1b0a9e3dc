// Encodes raw numbers as a grey or RGBA PNG: exact, 8 bits, a few kilobytes for a mask; a canvas would write RGBA for greys.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0, COLOUR_WITH_ALPHA = 6, UP = 2;
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function chunk(kind, data) {
  const whole = new Uint8Array(data.length + 12);
  const view = new DataView(whole.buffer);
  view.setUint32(0, data.length);
  whole.set([...kind].map((letter) => letter.charCodeAt(0)), 4);
  whole.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < data.length + 8; i++) crc = CRC[(crc ^ whole[i]) & 255] ^ (crc >>> 8);
  view.setUint32(data.length + 8, ~crc >>> 0);
  return whole;
}

// `data`, width * height * channels numbers, as a Blob.
export async function encode(data, width, height, channels = 1) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, channels === 1 ? GREY : COLOUR_WITH_ALPHA], 8);
  const length = width * channels;
  const lines = new Uint8Array((length + 1) * height);
  for (let y = 0; y < height; y++) {
    const [from, to] = [y * length, y * (length + 1) + 1];
    if (!y) {
      lines.set(data.subarray(0, length), 1);
      continue;
    }
    lines[to - 1] = UP;
    for (let i = 0; i < length; i++) lines[to + i] = data[from + i] - data[from + i - length];
  }
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const body = new Uint8Array(await new Response(packed).arrayBuffer());
  return new Blob([Uint8Array.from(SIGNATURE), chunk("IHDR", header), chunk("IDAT", body), chunk("IEND", new Uint8Array())],
    { type: "image/png" });
}

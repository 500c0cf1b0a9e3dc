// Between canvas and server: downloads pictures by URL, and uploads picture and mask only when they are needed.

import { encode } from "./png.js";

const DRAFTS = new URL("canvas-drafts", document.baseURI);
const LARGER = new URL("larger-picture", document.baseURI);
const SHOWN = new URL("shown-picture", document.baseURI);
const MASK = new URL("shown-mask", document.baseURI);

const sentence = async (answer) => (await answer.json().catch(() => ({}))).detail ?? `${answer.status} ${answer.statusText}`;

// A file as an upright bitmap; the server converts what the browser cannot decode. Throws an Error with a sentence.
export async function decode(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    const answer = await fetch(SHOWN, { method: "POST", body: blob });
    if (!answer.ok) throw new Error(await sentence(answer));
    return createImageBitmap(await answer.blob(), { imageOrientation: "from-image" });
  }
}

// {mask, from} of any picture file: a PNG of the mask it stands for, stretched to a size; and its own size.
export async function asMask(blob, { width, height }) {
  const address = new URL(MASK);
  address.search = new URLSearchParams({ width, height });
  const answer = await fetch(address, { method: "POST", body: blob });
  if (!answer.ok) throw new Error(await sentence(answer));
  return { mask: await answer.blob(), from: answer.headers.get("palimpsest-size") };
}

export async function load(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(await sentence(answer));
  return answer.blob();
}

// Uploads a file; returns {draft, width, height}. kind: what it is, by api/drafts.py.
export async function post(blob, kind) {
  const address = new URL(DRAFTS);
  address.searchParams.set("kind", kind);
  const answer = await fetch(address, { method: "POST", body: blob });
  if (!answer.ok) throw new Error(await sentence(answer));
  return answer.json();
}

// {blob, draft, notes}: a draft's picture enlarged by `asked` pixels at each side, filled.
export async function larger(draft, asked) {
  const address = new URL(LARGER);
  for (const [name, value] of Object.entries({ picture: draft, ...asked })) address.searchParams.set(name, value);
  const answer = await fetch(address, { method: "POST" });
  if (!answer.ok) throw new Error(await sentence(answer));
  return { blob: await answer.blob(), draft: answer.headers.get("X-Draft"), notes: JSON.parse(answer.headers.get("X-Notes")) };
}

// Those of the drafts that the server still has.
export async function stillHeld(drafts) {
  if (!drafts.length) return [];
  const address = new URL(DRAFTS);
  for (const draft of drafts) address.searchParams.append("draft", draft);
  const answer = await fetch(address);
  return answer.ok ? answer.json() : [];
}

// Uploads one canvas's picture and paint: each part once, and again if the server no longer has it.
export class Transport {
  constructor(id, canvasDocument) {
    Object.assign(this, { id, document: canvasDocument, picture: null, layer: null, given: new Map() });
  }

  // source: {blob} from the user, or {file} on the server.
  hold(source) {
    this.picture = source;
    this.layer = null;
    this.given.clear();
  }

  // The layer in its present state came from a file: send that instead, now and whenever undo returns to this state.
  holdLayer(source) {
    this.given.set(this.document.version, { ...source, version: this.document.version });
  }

  // The file that the layer came from, if nothing has changed since.
  get untouched() {
    return this.given.get(this.document.version);
  }

  async send({ only } = {}) {
    const told = { canvas: this.id };
    if (!this.document.picture || !this.picture) return told;
    try {
      const held = await stillHeld([this.picture, this.layer, this.untouched].map((part) => part?.draft).filter(Boolean));
      if (only !== "painted") told.picture = await this.sent(this.picture, "picture", () => this.picture.blob, held);
      if (only !== "picture" && this.document.layer) told[this.document.kind] = await this.sendLayer(held);
    } catch (error) {
      told.problem = error.message;
    }
    return told;
  }

  // The name of a draft of the picture, even if the picture is a file on the server.
  async pictureDraft() {
    const part = this.picture.file ? (this.picture.copy ??= {}) : this.picture;
    const held = await stillHeld([part.draft].filter(Boolean));
    return (await this.sent(part, "picture", () => this.picture.blob, held)).draft;
  }

  async sendLayer(held) {
    const { kind, layer, version } = this.document;
    if (this.untouched) return this.sent(this.untouched, kind, () => this.untouched.blob, held);
    if (layer.blank) return null;
    if (this.layer?.version !== version) this.layer = { version };
    return this.sent(this.layer, kind, () => encode(layer.data, layer.width, layer.height, layer.channels), held);
  }

  async sent(part, kind, blob, held) {
    if (part.file) return part.file;
    if (!held.includes(part.draft)) part.draft = (await post(await blob(), kind)).draft;
    return { draft: part.draft };
  }
}

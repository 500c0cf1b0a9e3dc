// Stores a canvas's content in the browser over a reload and a restart: the picture's file, and the exact layer.

const NAME = "palimpsest", STORE = "canvases", VERSION = 1;
const QUIET = 400; // milliseconds without a change before it is kept

function opened() {
  return new Promise((done, fail) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => done(request.result);
    request.onerror = request.onblocked = () => fail(request.error);
  });
}

async function transact(mode, act) {
  const database = await opened();
  try {
    return await new Promise((done, fail) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => done(request.result);
      transaction.onerror = transaction.onabort = () => fail(transaction.error);
    });
  } finally {
    database.close();
  }
}

// Any other part's content, by its id.
export const keep = (id, content) => transact("readwrite", (store) => store.put(content, id));
export const kept = (id) => transact("readonly", (store) => store.get(id));

const through = (data, stream) => new Response(new Blob([data]).stream().pipeThrough(stream));

// One canvas's storage. A browser without storage, or without room, loses it at the next reload; nothing else suffers.
export class Storage {
  // snapshot(): the present {picture, layer, mask, waiting, shown}, the first two only if there is a picture; mask: the file
  // that the layer came from; waiting: a mask file without its picture.
  constructor(id, snapshot) {
    // tokens: picture → what identifies it, so that it is written once and not again with each stroke
    Object.assign(this, { id, snapshot, tokens: new WeakMap(), waiting: 0, last: Promise.resolve() });
    // when the page is left, store at once
    document.addEventListener("visibilitychange", () => document.hidden && this.waiting && this.flush());
  }

  // Something has changed: store it once nothing has changed for a while.
  touch() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.flush(), QUIET);
  }

  // One write at a time, or an older state could overwrite a newer one.
  flush() {
    clearTimeout(this.waiting);
    this.waiting = 0;
    this.last = this.last.then(() => this.keep());
  }

  async keep() {
    const { picture, layer, mask, waiting, shown } = this.snapshot();
    try {
      const packed = layer && await through(layer.data, new CompressionStream("deflate")).blob();
      await transact("readwrite", (store) => {
        if (picture) this.write(picture, store);
        return store.put({ empty: !picture, channels: layer?.channels ?? 0, layer: packed, mask, waiting, shown }, this.id);
      });
    } catch { /* see above */ }
  }

  // Store the picture under a key of its own, unless it is there; another tab may have replaced it.
  write(picture, store) {
    if (!this.tokens.has(picture)) this.tokens.set(picture, `${Date.now()} ${Math.random()}`);
    const [token, { token: key, picture: file }] = [this.tokens.get(picture), this.keys];
    const there = store.get(key);
    there.onsuccess = () => {
      if (there.result === token) return;
      store.put(picture, file);
      store.put(token, key);
    };
  }

  get keys() {
    return { token: `${this.id} token`, picture: `${this.id} picture` };
  }

  // The stored {picture, numbers, mask, waiting, shown}, without picture if there was none; undefined if nothing was ever stored.
  async restore(channels) {
    try {
      const [kept, stored, token] = await transact("readonly", (store) => {
        const requests = [this.id, this.keys.picture, this.keys.token].map((key) => store.get(key));
        return { get result() { return requests.map(({ result }) => result); } };
      });
      const picture = kept?.picture ?? (kept?.empty ? null : stored); // until 2026-11 all was in one
      if (!picture || kept.channels !== channels) return kept && { waiting: kept.waiting, shown: kept.shown };
      if (picture === stored) this.tokens.set(stored, token);
      const numbers = kept.layer && new Uint8ClampedArray(await through(kept.layer, new DecompressionStream("deflate")).arrayBuffer());
      return { picture, numbers, mask: kept.mask, waiting: kept.waiting, shown: kept.shown };
    } catch {
      return null;
    }
  }
}

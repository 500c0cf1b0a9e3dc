// The filmstrip: this visit's results as thumbnails, newest first, after the one in progress.

import { make } from "../canvas/bar.js";
import { say } from "../locale.js";

const KINDS = { grid: () => say('Grid'), mask: () => say('Mask'), interrupted: () => say('Interrupted') };

export class Strip {
  // select(file): called with the chosen one; null: the one in progress. address(file): a file's URL.
  constructor({ select, address }) {
    Object.assign(this, { select, address, tiles: new Map(), order: [] });
    this.live = make("button", { type: "button", className: "tile live", onclick: () => select(null) });
    this.live.setAttribute("aria-label", say('The picture that is being made'));
    this.element = make("div", { className: "strip" }, this.live);
    this.element.setAttribute("role", "listbox");
    this.element.setAttribute("aria-orientation", "horizontal");
    this.element.setAttribute("aria-label", say('Results of this visit, newest first'));
    this.element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element.addEventListener("dragstart", (event) => this.drag(event));
  }

  // results: as described by Python's Viewer. Tiles of results that remain are reused.
  show(results) {
    const before = this.tiles;
    this.order = results.map(({ file }) => file);
    this.tiles = new Map(results.map((result) => [result.file, before.get(result.file) ?? this.tile(result)]));
    for (const [file, tile] of before) if (!this.tiles.has(file)) tile.remove();
    results.forEach((result, i) => {
      const tile = this.tiles.get(result.file);
      const kind = KINDS[result.kind]?.();
      tile.setAttribute("aria-label", [say(`Result ${i + 1} of ${results.length}`), kind, result.favourite && say('Favourite')].filter(Boolean).join(" · "));
      tile.dataset.kind = result.kind;
      tile.classList.toggle("favourite", result.favourite);
      if (this.element.children[i + 1] !== tile) this.element.insertBefore(tile, this.element.children[i + 1] ?? null);
    });
  }

  tile({ file, thumbnail, name }) {
    const tile = make("button", { type: "button", className: "tile", tabIndex: -1, draggable: true, onclick: () => this.select(file) });
    tile.setAttribute("role", "option");
    if (thumbnail) tile.append(make("img", { loading: "lazy", decoding: "async", alt: "", draggable: false, src: this.address(thumbnail) }));
    Object.assign(tile.dataset, { file, name, address: this.address(file) });
    return tile;
  }

  // file: null for the one in progress.
  choose(file) {
    for (const [name, tile] of this.tiles) {
      tile.setAttribute("aria-selected", String(name === file));
      tile.tabIndex = name === file ? 0 : -1;
    }
    this.live.setAttribute("aria-current", String(file === null));
    this.tiles.get(file)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // Select another by keyboard. from: the file shown now.
  step(key, from) {
    const at = this.order.indexOf(from);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: this.order.length - 1 }[key];
    const file = this.order[to];
    if (to === undefined) return false;
    if (file && file !== from) {
      this.select(file);
      if (this.element.contains(document.activeElement)) this.tiles.get(file).focus();
    }
    return true;
  }

  wheel(event) {
    if (!event.deltaY || event.deltaX || this.element.scrollWidth <= this.element.clientWidth) return;
    event.preventDefault();
    this.element.scrollLeft += event.deltaY;
  }

  // Dragging out of the window gives the result, not its thumbnail.
  drag({ target, dataTransfer }) {
    const { name, address } = target.closest(".tile").dataset;
    if (!address) return;
    dataTransfer.setData("text/uri-list", address);
    dataTransfer.setData("DownloadURL", `image/png:${name}:${address}`); // onto the desktop, where the browser supports it
  }
}

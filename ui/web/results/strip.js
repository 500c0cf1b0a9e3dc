// The filmstrip: this visit's results as small pictures, newest first, and before them the one that is being made.

import { make } from "../canvas/bar.js";
import { say } from "../locale.js";

const KINDS = { grid: () => say('Grid'), mask: () => say('Mask'), interrupted: () => say('Interrupted') };

export class Strip {
  // select(file): one was chosen; null: the one that is being made. address(file): where a file is fetched.
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

  // results: as Python's Viewer describes them. Tiles of those that stay are kept.
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

  // file: null for the one that is being made.
  choose(file) {
    for (const [name, tile] of this.tiles) {
      tile.setAttribute("aria-selected", String(name === file));
      tile.tabIndex = name === file ? 0 : -1;
    }
    this.live.setAttribute("aria-current", String(file === null));
    this.tiles.get(file)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // From one to another by the keyboard. from: the file that is shown.
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

  // What is dragged out of the window is the result, not its small picture.
  drag({ target, dataTransfer }) {
    const { name, address } = target.closest(".tile").dataset;
    if (!address) return;
    dataTransfer.setData("text/uri-list", address);
    dataTransfer.setData("DownloadURL", `image/png:${name}:${address}`); // onto the desktop, where a browser does that
  }
}

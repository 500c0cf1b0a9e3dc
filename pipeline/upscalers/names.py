"""Upscalers by name: Pillow's, and the networks in the models folder, which work on a picture in tiles."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.geometry import Box, Size
from pipeline.models import Catalog, ModelFile, stamp
from pipeline.options import Options
from pipeline.tiles import combine, split, tile_boxes
from pipeline.upscaling import MAX_SIDE, UPSCALERS, Upscaler
from pipeline.weights import refuse_pickle

A1111_NAMES = {
    "RealESRGAN_x4plus": "R-ESRGAN 4x+", "RealESRGAN_x4plus_anime_6B": "R-ESRGAN 4x+ Anime6B", "RealESRGAN_x2plus": "R-ESRGAN 2x+",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3", "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
    "realesr-animevideov3": "R-ESRGAN AnimeVideo", "DAT_x2": "DAT x2", "DAT_x3": "DAT x3", "DAT_x4": "DAT x4"}
"""A file's name without extension → A1111's name for that upscaler; all others have the file's name."""
PASSES = 3
"""How often a network runs at most to reach a size."""

Run = Callable[[str, np.ndarray], np.ndarray]
"""(a network's name, a picture (h, w, 3) uint8) → the picture enlarged by the network's factor."""
Watch = Callable[[int, int], bool]
"""Called before each tile with (tiles done, tiles in all); False ends it, and the picture stays as it was."""


def no_networks(name: str, picture: np.ndarray) -> np.ndarray:
    raise ModelError(f'"{name}" cannot run here: there are no networks')


def go_on(done: int, tiles: int) -> bool:
    return True


@dataclass(frozen=True)
class NetworkUpscaler:
    """An upscaler that is a network, called like any other. Equal ones make equal pixels."""

    name: str
    state: tuple[int, int] | None
    """The file's size and time."""
    tile: int
    """Side in pixels; 0: the whole picture at once."""
    overlap: int
    run: Run = field(compare=False, repr=False)
    watch: Watch = field(compare=False, repr=False, default=go_on)
    option: str = "ESRGAN_tile_overlap"
    """The option that the overlap is from."""

    def __call__(self, image: Image.Image, size: Size) -> Image.Image:
        """`image` enlarged once or more often, until it covers `size` rounded down to multiples of 8."""
        image = image.convert("RGB")
        # A1111: at most three times; Lanczos does the rest
        for _ in range(PASSES):
            larger = self._once(image)
            if larger.size == image.size:
                break
            image = larger
            if image.width >= size.width // 8 * 8 and image.height >= size.height // 8 * 8:
                break
        return image

    def _once(self, image: Image.Image) -> Image.Image:
        if not self.tile:
            return Image.fromarray(self.run(self.name, np.asarray(image))) if self.watch(0, 1) else image
        boxes = tile_boxes(Size(*image.size), Size(self.tile, self.tile), self.overlap, field=self.option)
        tiles, made = split(image, boxes), []
        for number, tile in enumerate(tiles):
            if not self.watch(number, len(tiles)):
                return image
            made.append(Image.fromarray(self.run(self.name, np.asarray(tile))))
            self._check_size(image, made[0].width // self.tile)
        scale = made[0].width // self.tile
        larger = [[Box(*(side * scale for side in box)) for box in row] for row in boxes]
        return combine(made, larger, Size(image.width * scale, image.height * scale), self.overlap * scale)

    def _check_size(self, image: Image.Image, scale: int) -> None:
        if max(image.size) * scale > MAX_SIDE:
            raise InvalidRequest("upscaler", f'upscaler: "{self.name}" would make {image.width * scale}x{image.height * scale} pixels of '
                                             f"{image.width}x{image.height}; at most {MAX_SIDE} a side are made")


class Upscalers:
    """The upscalers that there are: those that need no file, and the networks in the catalog, run by `run`."""

    def __init__(self, catalog: Catalog | None = None, run: Run = no_networks):
        self._catalog, self._run = catalog, run

    def networks(self) -> dict[str, ModelFile]:
        """The networks' files by name, sorted by lower-cased name."""
        found: dict[str, ModelFile] = {}
        for file in self._catalog.upscalers() if self._catalog else []:
            name = A1111_NAMES.get(file.stem, file.stem)
            found[file.rel if name in found or name in UPSCALERS else name] = file
        return dict(sorted(found.items(), key=lambda item: item[0].lower()))

    def names(self) -> list[str]:
        return [*UPSCALERS, *self.networks()]

    def find(self, name: object, field: str, options: Options, watch: Watch = go_on) -> Upscaler | None:
        """The upscaler of that name; None for "None". Raises InvalidRequest naming `field`, or ModelError for a pickle."""
        if isinstance(name, str) and name in UPSCALERS:
            return UPSCALERS[name]
        known, file = self._file(name, field)
        file = self._catalog.at_hand("upscaler", file)
        kind = "DAT" if "DAT" in file.path.parts[-file.rel.count("/") - 2:-1] else "ESRGAN"
        return NetworkUpscaler(known, stamp(file.path), getattr(options, f"{kind}_tile"), getattr(options, f"{kind}_tile_overlap"),
                               self._run, watch, option=f"{kind}_tile_overlap")

    def chosen(self, value: object, field: str) -> str:
        """The name of the upscaler given by its name, ignoring case, or by its index. Raises InvalidRequest naming `field`, ModelError."""
        names = self.names()
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        if isinstance(value, str) and (found := {name.lower(): name for name in names}.get(value.lower())) is not None:
            return found
        return self._file(value, field)[0]

    def file(self, name: str) -> ModelFile:
        """A network's file, to be read. Raises as find() does."""
        return self._catalog.at_hand("upscaler", self._file(name, "upscaler")[1])

    def sha256(self, name: str) -> str:
        """Of a network's file, computed unless known. Raises as find() does."""
        return self._catalog.sha256(self.file(name))

    def _file(self, name: object, field: str) -> tuple[str, ModelFile]:
        """(the network's name, its file) for one of its names: A1111's, the file's, or its path in the folder."""
        networks = self.networks()
        if name in networks:
            return name, networks[name]
        for known, file in networks.items():
            if name in (file.stem, file.path.name, file.rel, file.name):
                return known, file
        for pickle in self._catalog.pickles("upscaler") if self._catalog else []:
            if name in (pickle.stem, pickle.path.name, pickle.rel, A1111_NAMES.get(pickle.stem)):
                refuse_pickle(pickle.path)
        stem = next((stem for stem, shown in A1111_NAMES.items() if shown == name), None)
        if stem is not None:
            folder = "DAT" if stem.startswith("DAT") else "RealESRGAN"
            raise InvalidRequest(field, f'{field}: no upscaler called "{name}": it needs {stem}.safetensors in the folder {folder} of the '
                                        f"models folder, made of {stem}.pth by: python -m tools.convert {stem}.pth")
        raise UnknownName(field, "upscaler", name, self.names())

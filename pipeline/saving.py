"""Finished pictures as files, under A1111's names: FOLDER/2026-01-31/00000-SEED.png."""

import os
import re
import zlib
from collections.abc import Callable
from datetime import date
from itertools import chain, count
from pathlib import Path

from PIL import Image

from pipeline.infotext import RECEIPT, png_info

NUMBERED = re.compile(r"(\d+)-")
COMPRESSION = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""How a PNG is packed: looking for runs only, since zlib finds little else in pictures. Files are up to an eighth larger, and
often smaller, than with its usual search, in a third of the time."""
Announce = Callable[[str], None]
"""Told the path before the picture is there whole."""


def save_image(image: Image.Image, folder: str | Path, *, name: str, announce: Announce = lambda path: None) -> str:
    """Save a PNG with its infotext and receipt under the next free number in today's subfolder, and give its path.

    Nobody sees half a picture, and no other picture takes its place meanwhile.
    """
    day = Path(folder) / date.today().isoformat()
    day.mkdir(parents=True, exist_ok=True)
    return write(image, claim(day, name), announce)


def save_under(image: Image.Image, folder: str | Path, *, stem: str, announce: Announce = lambda path: None) -> str:
    """Save a PNG with its infotext and receipt as FOLDER/stem.png, or stem-1.png and so on where that is taken; give its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = chain([stem], (f"{stem}-{number}" for number in count(1)))
    return write(image, next(path for name in names if reserve(path := folder / f"{name}.png")), announce)


def write(image: Image.Image, path: Path, announce: Announce) -> str:
    """Write the picture beside the file that it replaces, an empty one that holds its place or another picture, and then move
    it there whole.
    """
    draft = path.with_suffix(".tmp")
    try:
        announce(str(path))
        texts = png_info(image.info.get("parameters"), {RECEIPT: image.info.get(RECEIPT)})
        image.save(draft, format="PNG", pnginfo=texts, exif=image.info.get("exif"), **COMPRESSION)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
        raise
    return str(path)


def claim(day: Path, name: str) -> Path:
    """The path NUMBER-name.png with the next number, as an empty file, so that nobody else takes it."""
    numbers = [int(match[1]) for match in map(NUMBERED.match, os.listdir(day)) if match]
    number = max(numbers, default=-1) + 1
    while True:
        path = day / f"{number:05d}-{name}.png"
        if reserve(path):
            return path
        number += 1


def reserve(path: Path) -> bool:
    """Make an empty file, unless there is one."""
    try:
        path.open("xb").close()
        return True
    except FileExistsError:
        return False

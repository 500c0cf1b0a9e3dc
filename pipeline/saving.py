"""Saves finished pictures under A1111's names: FOLDER/2026-01-31/00000-SEED.png."""

import os
import re
import zlib
from collections.abc import Callable
from datetime import date
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from uuid import uuid4

from PIL import Image

from pipeline.infotext import RECEIPT, png_info

NUMBERED = re.compile(r"(\d+)-")
COMPRESSION = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Run-length PNG compression: zlib's full search finds little more in pictures. Files are up to an eighth larger, often
smaller, and take a third of the time."""
Announce = Callable[[str], None]
"""Called with the path before the picture is complete there."""


def save_image(image: Image.Image | bytes, folder: str | Path, *, name: str, announce: Announce = lambda path: None) -> str:
    """Save a PNG with its infotext and receipt under the next free number in today's subfolder; returns its path.

    The file appears atomically, and its name is reserved from the start.
    """
    day = Path(folder) / date.today().isoformat()
    day.mkdir(parents=True, exist_ok=True)
    return write(image, claim(day, name), announce)


def save_under(image: Image.Image | bytes, folder: str | Path, *, stem: str, announce: Announce = lambda path: None) -> str:
    """Save a PNG with its infotext and receipt as FOLDER/stem.png, or stem-1.png and so on if taken; returns its path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = chain([stem], (f"{stem}-{number}" for number in count(1)))
    return write(image, next(path for name in names if reserve(path := folder / f"{name}.png")), announce)


def save_thumbnail(image: Image.Image, path: Path, side: int) -> None:
    """Save a small JPEG, at most `side` pixels wide and high. The file appears atomically. Raises OSError."""
    draft = path.with_suffix(f".{uuid4().hex}.tmp")
    scale = min(1.0, side / max(image.size))
    size = [max(1, round(length * scale)) for length in image.size]
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).save(draft, "JPEG", quality=85)
    os.replace(draft, path)


def save(image: Image.Image | bytes, folder: str | Path, name: str, *, numbered: bool = True, place: str | None = None,
         announce: Announce = lambda path: None) -> str:
    """Save a picture, or the PNG of one, by save_image() or save_under(), or in the place of an earlier one; returns its path."""
    if place is not None:
        return write(image, Path(place), announce)
    if numbered:
        return save_image(image, folder, name=name, announce=announce)
    return save_under(image, folder, stem=name, announce=announce)


def write(image: Image.Image | bytes, path: Path, announce: Announce) -> str:
    """Write the picture beside `path`, then move it over the file there, a placeholder or earlier picture. Returns `path`."""
    draft = path.with_suffix(".tmp")
    try:
        announce(str(path))
        draft.write_bytes(image if isinstance(image, bytes) else png_of(image))
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
        raise
    return str(path)


def png_of(image: Image.Image) -> bytes:
    """The PNG of a picture, with its infotext and receipt."""
    file = BytesIO()
    texts = png_info(image.info.get("parameters"), {name: image.info.get(name) for name in (RECEIPT, "postprocessing")})
    image.save(file, format="PNG", pnginfo=texts, exif=image.info.get("exif"), **COMPRESSION)
    return file.getvalue()


def claim(day: Path, name: str) -> Path:
    """Create an empty file NUMBER-name.png with the next number, to reserve it; returns its path."""
    numbers = [int(match[1]) for match in map(NUMBERED.match, os.listdir(day)) if match]
    number = max(numbers, default=-1) + 1
    while True:
        path = day / f"{number:05d}-{name}.png"
        if reserve(path):
            return path
        number += 1


def reserve(path: Path) -> bool:
    """Create an empty file; False if it exists."""
    try:
        path.open("xb").close()
        return True
    except FileExistsError:
        return False

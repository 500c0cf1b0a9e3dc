"""Finished pictures as files, under A1111's names: FOLDER/2026-01-31/00000-SEED.png."""

import os
import re
from datetime import date
from pathlib import Path

from PIL import Image

from pipeline.infotext import png_info

NUMBERED = re.compile(r"(\d+)-")


def save_image(image: Image.Image, folder: str | Path, *, name: str) -> str:
    """Save a PNG with its infotext under the next free number in today's subfolder, and give its path.

    The picture is written beside its place, which an empty file holds meanwhile, and then moved there whole.
    """
    day = Path(folder) / date.today().isoformat()
    day.mkdir(parents=True, exist_ok=True)
    path = claim(day, name)
    draft = path.with_suffix(".tmp")
    try:
        image.save(draft, format="PNG", pnginfo=png_info(image.info["parameters"]))
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        path.unlink()
        raise
    return str(path)


def claim(day: Path, name: str) -> Path:
    """The path NUMBER-name.png with the next number, as an empty file, so that nobody else takes it."""
    numbers = [int(match[1]) for match in map(NUMBERED.match, os.listdir(day)) if match]
    number = max(numbers, default=-1) + 1
    while True:
        path = day / f"{number:05d}-{name}.png"
        try:
            path.open("xb").close()
            return path
        except FileExistsError:
            number += 1

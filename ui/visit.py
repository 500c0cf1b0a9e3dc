"""The results of a visit to the page, shown in its filmstrip: newest first, up to a maximum."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from PIL import Image

from pipeline.errors import PalimpsestError
from pipeline.saving import save_thumbnail
from ui.restore import seed_in

MOST = 200
"""Results to keep."""
THUMBNAIL = 160
"""A thumbnail's longer side in pixels: two for each of the filmstrip's, for high-density screens."""
KINDS = {"grid": "grid", "mask": "mask", "mask-composite": "mask", "interrupted": "interrupted"}
"""Suffix of a saved file's name → kind of picture."""


@dataclass(frozen=True)
class Result:
    """A picture as the page has it."""

    file: str
    """Its copy in a folder that Gradio may serve."""
    infotext: str
    path: str
    """Where it is saved, as in history."""
    job: str = ""
    """The id of its job."""
    thumbnail: str | None = None
    """A small JPEG beside the copy; None: the picture cannot be read."""
    favourite: bool = False

    @cached_property
    def seed(self) -> int | None:
        """As the infotext has it; None if it has none."""
        return seed_in(self.infotext)

    @property
    def kind(self) -> str:
        """grid, mask or interrupted, by its file's name; "" for a picture."""
        found = re.fullmatch(rf"\d+(?:-\d+)?-({'|'.join(KINDS)})", Path(self.path).stem)
        return KINDS[found[1]] if found else ""


class Visit(Sequence[Result]):
    """The value of a page's gr.State. It is changed in place, never replaced: a running job adds results while people act on
    others."""

    def __init__(self) -> None:
        self._results: tuple[Result, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def at(self, index: int) -> Result:
        """The selected one. Raises PalimpsestError if there is none."""
        if not self:
            raise PalimpsestError("There is no result yet.")
        return self[index]

    def add(self, results: Iterable[Result]) -> None:
        """Insert results at the front, in order, replacing those with the same files."""
        results = tuple(results)
        new = {result.path for result in results}
        self._results = (*results, *(result for result in self._results if result.path not in new))[:MOST]

    def remove(self, path: str) -> None:
        self._results = tuple(result for result in self._results if result.path != path)

    def replace(self, result: Result) -> None:
        """Replace the entry of the same picture."""
        self._results = tuple(result if known.path == result.path else known for known in self._results)

    def of_job(self, job: str) -> list[Result]:
        return [result for result in self._results if result.job == job]


def thumbnail(file: str, image: Image.Image | None = None) -> str | None:
    """A small JPEG of a picture's copy, created if missing. image: the picture, if it is in memory already."""
    small = Path(file).with_name("thumbnail.jpg")
    if small.exists():
        return str(small)
    try:
        save_thumbnail(Image.open(file) if image is None else image, small, THUMBNAIL)
    except OSError:
        return None
    return str(small)

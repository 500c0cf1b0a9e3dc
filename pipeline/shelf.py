"""Pictures of waiting requests: up to a number of pixels in memory, beyond that in files.

A file of 15 KiB may decode to 100 million pixels, so the size of an upload does not bound the memory it takes.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pipeline import allocator
from pipeline.errors import InvalidRequest, TooMany
from pipeline.memory import free_memory
from pipeline.request import Request
from pipeline.saving import COMPRESSION

MAX_PIXELS = 200_000_000
"""Per request, all pictures together: room for the largest accepted picture and its mask."""
IN_MEMORY = 64_000_000
"""Pixels of all waiting requests."""
ON_DISK = 16 * 2**30
"""Bytes of all waiting requests."""
AT_ONCE = MAX_PIXELS
"""Pixels being decoded at the same time, for requests or answers."""
PATIENCE = 120.0
"""Seconds to wait while others are decoding."""
MEMORY_PATIENCE = 20.0
"""Seconds to wait for memory while nobody is decoding or running."""
PER_PIXEL = 16
"""Bytes while a picture is decoded or prepared: Pillow uses 4 per pixel, also for RGB, and up to 4 copies exist."""
SMALL = 4_000_000
"""Requests of at most this many pixels are not held up by large ones."""


@dataclass(frozen=True)
class Shelved:
    """A picture stored in a file."""

    path: Path
    digest: str | None
    """None: unknown."""


Pictures = dict[str, Any]
"""A request's picture fields."""


class Shelf:
    """Stores the pictures of waiting requests, and limits how much is decoded at a time. Any thread may use it.

    free: bytes of free memory; None: unknown.
    """

    def __init__(self, *, in_memory: int = IN_MEMORY, on_disk: int = ON_DISK, at_once: int = AT_ONCE, patience: float = PATIENCE,
                 memory_patience: float = MEMORY_PATIENCE, free: Callable[[], int | None] = lambda: free_memory(torch.device("cpu"))):
        self._in_memory, self._on_disk, self._at_once, self._patience, self._free = in_memory, on_disk, at_once, patience, free
        self._memory_patience = memory_patience
        self._changed = threading.Condition()
        self._reading = self._working = 0
        """Pixels."""
        self._held: dict[int, int] = {}
        """Pixels in memory per request, by its id()."""
        self._files: dict[int, int] = {}
        """Bytes of files per request, by its id()."""
        self._folder: Path | None = None
        self._names = count()

    @contextmanager
    def reading(self, pixels: int, field: str = "init_images") -> Iterator[None]:
        """Reserves room to decode pictures of `pixels` pixels; waits for it.

        Raises InvalidRequest if that exceeds the limit per request, TooMany if waiting takes too long, and MemoryError.
        """
        if pixels > MAX_PIXELS:
            raise InvalidRequest(field, f"{field}: the request's pictures may have {MAX_PIXELS // 1_000_000} million pixels "
                                        f"in total, got {-(-pixels // 1_000_000)} million")
        with self._changed:
            if not self._wait(lambda: self._may_read(pixels)):
                raise TooMany("Too many large pictures are being processed; try again later.")
            self._reading += pixels
        try:
            yield
        finally:
            with self._changed:
                self._reading -= pixels
                self._changed.notify_all()

    @contextmanager
    def working(self, p: Request) -> Iterator[None]:
        """Brings a request's pictures into memory while it runs. Waits for running uploads. Raises MemoryError."""
        pixels = sum(count_pixels(image) for image in each(pictures_of(p)))
        with self._changed:
            if not self._wait(lambda: self._holds(self._reading + pixels)):
                raise MemoryError
            self._working += pixels
        try:
            self._take(p)
            yield
        finally:
            with self._changed:
                self._working -= pixels
                self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Wait until `condition` holds; False after too long. Raises MemoryError if nobody's end could make it true."""
        begun = time.monotonic()
        while not condition():
            waited = time.monotonic() - begun
            if not (self._reading or self._working) and waited >= self._memory_patience:
                raise MemoryError
            if waited >= self._patience:
                return False
            allocator.give_back()  # freed memory may still be kept
            self._changed.wait(0.2)  # other users of memory do not notify
        return True

    def _may_read(self, pixels: int) -> bool:
        if self._reading and self._reading + pixels > self._at_once:
            return False
        # others may not have allocated yet what they need
        return self._holds(pixels if pixels <= SMALL else pixels + self._reading + self._working)

    def _holds(self, pixels: int) -> bool:
        """Whether memory is free for that many pixels."""
        return not pixels or (free := self._free()) is None or pixels * PER_PIXEL <= free

    def put(self, p: Request) -> None:
        """Store the pictures of a request that now waits: in memory while there is room, else in files.

        Raises TooMany if there is no room for files either, and then leaves the request unchanged.
        """
        pixels = sum(count_pixels(image) for image in each(pictures_of(p)))
        with self._changed:
            if sum(self._held.values()) + pixels <= self._in_memory:
                self._held[id(p)] = pixels
                return
            folder = self._folder = self._folder or Path(tempfile.mkdtemp(prefix="palimpsest-"))  # 0700
        written: list[Path] = []
        try:
            shelved = {name: over(value, lambda image: self._write(p, image, folder, written))
                       for name, value in pictures_of(p).items()}
            size = sum(path.stat().st_size for path in written)
            with self._changed:
                if sum(self._files.values()) + size > self._on_disk:
                    raise TooMany("The storage for pictures of waiting jobs is full; try again later.")
                self._files[id(p)] = size
        except BaseException as error:
            for path in written:
                path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise TooMany("The disk is too full for the pictures of waiting jobs; try again later.") from error
            raise
        vars(p).update(shelved)

    def _write(self, p: Request, image: Image.Image, folder: Path, written: list[Path]) -> Shelved:
        path = folder / f"{next(self._names)}.png"
        written.append(path)
        image.save(path, format="PNG", **COMPRESSION)
        return Shelved(path, p.digests.forget(image))

    def _take(self, p: Request) -> None:
        """The request's turn has come: load its pictures and delete its files."""
        def read(image: Image.Image | Shelved) -> Image.Image:
            if isinstance(image, Image.Image):
                return image
            with Image.open(image.path) as file:
                file.load()
                read = file.copy()
            read.info.clear()
            if image.digest is not None:
                p.digests.know(read, image.digest)
            return read

        files = [image for image in each(pictures_of(p)) if isinstance(image, Shelved)]
        try:
            in_memory = {name: over(value, read) for name, value in pictures_of(p).items()}
        finally:
            self.drop(p)
        vars(p).update(in_memory)

    def drop(self, p: Request) -> None:
        """The request no longer waits."""
        for image in each(pictures_of(p)):
            if isinstance(image, Shelved):
                image.path.unlink(missing_ok=True)
        with self._changed:
            self._held.pop(id(p), None)
            self._files.pop(id(p), None)

    def close(self) -> None:
        """Delete all files."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def pictures_of(p: Request) -> Pictures:
    return {name: getattr(p, name) for name in ("init_images", "reference_images", "image_mask", "latent_mask", "alwayson_scripts")}


def each(pictures: Pictures) -> Iterator[Any]:
    """Every picture in any field; one in several places comes once."""
    known = {}

    def find(value: Any) -> None:
        if isinstance(value, Image.Image | Shelved):
            known[id(value)] = value
        elif isinstance(value, list | tuple | dict):
            for inner in value.values() if isinstance(value, dict) else value:
                find(inner)

    find(pictures)
    yield from known.values()


def count_pixels(image: Image.Image | Shelved) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height
    with Image.open(image.path) as file:
        return file.width * file.height


def over(value: Any, change: Callable[[Any], Any]) -> Any:
    """A field's value with `change` applied to each picture in it."""
    if isinstance(value, Image.Image | Shelved):
        return change(value)
    if isinstance(value, list | tuple):
        return [over(inner, change) for inner in value]
    return {key: over(inner, change) for key, inner in value.items()} if isinstance(value, dict) else value

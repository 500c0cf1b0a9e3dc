"""Source pictures of requests, each kept once, as a PNG named by its content's digest."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from PIL import Image

from pipeline.saving import COMPRESSION


TRANSPARENT = "transparency"
"""Pillow's `info` key for the colour of an RGB picture that counts as transparent."""


def digest(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels, in hexadecimal; independent of the file they came from."""
    content = sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    content.update(image.tobytes())
    if image.mode in ("P", "PA"):  # pixels are indices into a palette
        content.update(bytes(image.getpalette("RGBA")))
    if TRANSPARENT in image.info:
        content.update(f" {TRANSPARENT} {image.info[TRANSPARENT]}".encode())
    return content.hexdigest()


class Digests:
    """The digests of a request's pictures, each computed once: for the journal, the receipt and the cache.

    So once the request has a picture, replace it rather than change it in place.
    """

    def __init__(self):
        self._known: dict[int, tuple[Image.Image, str]] = {}
        """By id(), which stays unique because the picture is held."""

    def of(self, image: Image.Image) -> str:
        known = self._known.get(id(image))
        if known is None or known[0] is not image:
            known = self._known[id(image)] = image, digest(image)
        return known[1]

    def know(self, image: Image.Image, digest: str) -> None:
        """Record a known digest of a picture."""
        self._known[id(image)] = image, digest

    def forget(self, image: Image.Image) -> str | None:
        """Drop a picture and return its digest, if known."""
        known = self._known.pop(id(image), None)
        return None if known is None or known[0] is not image else known[1]


class Originals:
    """A folder of pictures by digest. Concurrent writers are safe: they write the same content."""

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(self, image: Image.Image, digest: Callable[[Image.Image], str] = digest) -> str:
        """Store a picture unless it is there, and return its digest. Raises OSError."""
        name = digest(image)
        path = self._path(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{uuid4().hex}.tmp")
            try:
                image.save(draft, format="PNG", **COMPRESSION)
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
        return name

    def open(self, name: str) -> Image.Image | None:
        """The picture of a digest; None if it is not, or no longer, kept."""
        try:
            with Image.open(self._path(name)) as image:
                image.load()
                image.info = {key: value for key, value in image.info.items() if key == TRANSPARENT}
                return image
        except OSError:
            return None

    def path(self, name: str) -> Path | None:
        """The file of a digest, or None."""
        path = self._path(name)
        return path if path.exists() else None

    def _path(self, name: str) -> Path:
        if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise ValueError(f"not a digest: {name!r}")
        return self.folder / name[:2] / f"{name}.png"

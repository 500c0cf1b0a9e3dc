"""Pictures over HTTP: base64, data: URIs and addresses in; base64 of PNG, JPEG or WebP with infotext out."""

import base64
import binascii
import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from api.fetch import Fetcher
from pipeline.errors import InvalidRequest
from pipeline.infotext import exif_bytes, png_info
from pipeline.metadata import Metadata
from pipeline.saving import COMPRESSION

PILLOW_FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
PIECE = 3 << 18
"""Characters or bytes of base64 at a time: a multiple of 3 and of 4."""
LONGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}
"""Pixels; a larger picture is sent as PNG."""


def picture_bytes(text: Any, field: str, fetcher: Fetcher | None) -> bytes:
    """The picture file in a request's text. Raises InvalidRequest naming `field`. Downloads addresses: blocks.

    fetcher: loads http and https addresses; None: they are refused.
    """
    if not isinstance(text, str):
        raise InvalidRequest(field, f"{field} must be a picture in base64, got {type(text).__name__}")
    if text.startswith(("http://", "https://")):
        if fetcher is None:
            raise InvalidRequest(field, f"{field}: Requests not allowed; start with --api-urls to load pictures from addresses")
        return fetcher.fetch(text, field)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return decode_base64(text)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(field, f"{field}: Invalid encoded image; the text is not base64") from error


def decode_base64(text: str) -> bytes:
    """The bytes, decoded in pieces so that other threads can run in between. Raises ValueError."""
    try:
        return b"".join(base64.b64decode(text[at:at + PIECE], validate=True) for at in range(0, len(text), PIECE))
    except binascii.Error:  # contains line breaks or the like, which are ignored
        return base64.b64decode(text)


def encode_base64(data: bytes) -> str:
    return "".join(base64.b64encode(data[at:at + PIECE]).decode("ascii") for at in range(0, len(data), PIECE))


def written_in(metadata: Metadata) -> dict[str, str | int | float | bool]:
    """A picture file's other data, as JSON values."""
    return {str(key): as_json(value) for key, value in metadata.items.items()}


def as_json(value: object) -> Any:
    """One of Pillow's values as a JSON value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | bool) else str(value)


def encode_picture(image: Image.Image, form: str, *, quality: int = 80, metadata: bool = True,
                   texts: Mapping[str, Any] | None = None) -> str:
    """Base64 of the picture as png, jpg, jpeg or webp, with its infotext if `metadata`.

    texts: named texts to write into it, others are ignored; None: those in `image.info`.
    """
    pillow = PILLOW_FORMATS[form]
    if max(image.size) > LONGEST_SIDE.get(pillow, max(image.size)):
        pillow = "PNG"
    texts = (image.info if texts is None else texts) if metadata else {}
    text = texts.get("parameters")
    exif = image.info.get("exif") if metadata else None
    data = png_bytes(image, png_info(text, texts), exif) if pillow == "PNG" else exif_picture(image, pillow, text, quality, exif)
    return encode_base64(data)


def json_with_pictures(name: str, pictures: str | list[str] | None, rest: Mapping[str, Any]) -> bytes:
    """JSON of pictures in base64 and of `rest`, which must not be empty.

    Base64 needs no escaping; json would search it for characters to escape, which blocks others for long.
    """
    return f'{{"{name}":{quoted(pictures)},{json.dumps(rest, separators=(",", ":"))[1:]}'.encode("ascii")


def quoted(pictures: str | list[str] | None) -> str:
    if isinstance(pictures, list):
        return f"[{','.join(map(quoted, pictures))}]"
    return "null" if pictures is None else f'"{pictures}"'


def png_bytes(image: Image.Image, texts: PngInfo, exif: bytes | None) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=texts, exif=exif, **COMPRESSION)
    return stream.getvalue()


def exif_picture(image: Image.Image, pillow: str, text: str | None, quality: int, exif: bytes | None) -> bytes:
    """exif: further EXIF to write. If a file cannot hold both, it gets the infotext only, or else neither."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    for written in filter(None, (exif_bytes(text, exif) if text else exif, exif_bytes(text) if text else None)):
        stream = io.BytesIO()
        try:
            image.save(stream, pillow, quality=quality, exif=written)
            return stream.getvalue()
        except ValueError:  # too long for JPEG; better a picture without text than none
            continue
    stream = io.BytesIO()
    image.save(stream, pillow, quality=quality)
    return stream.getvalue()

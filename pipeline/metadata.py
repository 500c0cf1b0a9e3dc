"""What a picture file says of how it was made: read in one place for the page, Batch and the API, from any format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

from pipeline import foreign
from pipeline.uploads import load_file

MAX_INFOTEXT = 1 << 20
"""Characters; longer ones are left out."""
NOT_METADATA = {
    "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif", "loop", "background", "timestamp", "duration",
    "progressive", "progression", "icc_profile", "chromaticity", "photoshop",
}
"""What A1111 passes over of what Pillow tells."""
CODES = (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"UNICODE\0", bytes(8))
"""How a UserComment begins: with the encoding that it claims to have."""
MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
"""Byte order marks."""


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels."""

    infotext: str | None
    """As it is written there, or put together from what another program has written."""
    program: str | None
    """That other program."""
    items: dict[str, Any]
    """Everything else, by name, as Pillow gives it."""
    notes: tuple[str, ...] = ()
    """What of the file was left out, a sentence each."""


def read_metadata(data: bytes | str | Path, field: str) -> Metadata:
    """What the file at a path, or its bytes, says. Raises InvalidRequest naming `field`, for what is no whole picture too."""
    return metadata_of(*load_file(data, field))


def metadata_of(image: Image.Image, notes: Sequence[str] = ()) -> Metadata:
    """The same of a picture that is loaded, as texts may stand behind the pixels.

    The infotext is from the EXIF UserComment, a GIF's comment or PNG text, else from what other programs write.
    """
    items = dict(image.info)
    text = items.pop("parameters", None)
    if "exif" in items or "Raw profile type exif" in items or image.format == "TIFF":
        text = user_comment(image) or text
    elif "comment" in items:
        comment = items["comment"]
        text = comment.decode("utf8", "ignore") if isinstance(comment, bytes) else comment
    found = foreign.read(text, items | exif_texts(image), image.size) or foreign.read_stealth(image)
    if found is not None:
        items |= found.items
        text = text if found.infotext is None else found.infotext
    if text and len(text) > MAX_INFOTEXT:
        text, notes = None, [*notes, f"The text on how it was made was left out: it is longer than {MAX_INFOTEXT} characters."]
    items = {key: value for key, value in items.items() if key not in NOT_METADATA}
    return Metadata(text, found and found.program, items, tuple(notes))


def user_comment(image: Image.Image) -> str:
    """The text in EXIF where cameras leave room for one; "" where there is none that can be read."""
    try:
        comment = image.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    except Exception:  # Pillow's reader raises many kinds for damaged EXIF
        return ""
    if isinstance(comment, str):  # written as a field of ASCII, which Pillow reads as Latin-1
        comment = comment.encode("latin-1", "replace")
    return decode_comment(comment) if isinstance(comment, bytes) else ""


def decode_comment(comment: bytes) -> str:
    """The text of a UserComment, of which the encoding is what it looks like, as programs claim others."""
    code = next((code for code in CODES if comment.startswith(code)), b"")
    body = comment[len(code):]
    for mark, encoding in MARKS.items():
        if body.startswith(mark):
            text = body[len(mark):]
            return (text if encoding == "utf-8" else whole_units(text)).decode(encoding, "replace").rstrip("\0")
    if code == CODES[1]:
        return body.decode("shift_jis", "replace").rstrip("\0")
    text = body.rstrip(b"\0")
    if b"\0" not in text:
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            pass
    if code == b"UNICODE\0" or b"\0" in text:
        # not of `text`, as of "x" in UTF-16LE the last byte is a NUL, too
        return max((whole_units(body).decode(order, "replace") for order in ("utf-16-be", "utf-16-le")),
                   key=lambda read: sum(" " <= character <= "~" for character in read)).rstrip("\0")
    return text.decode("utf-8", "ignore") if code != CODES[0] else text.decode("latin-1")


def whole_units(text: bytes) -> bytes:
    """UTF-16 without half a unit at its end."""
    return text[:len(text) // 2 * 2]


def exif_texts(image: Image.Image) -> dict[str, str]:
    """The texts in EXIF where programs keep what PNG holds by name: "prompt:{…}" and "workflow:{…}" of ComfyUI's WebP."""
    if image.format == "PNG" or "exif" not in image.info:
        return {}
    try:
        texts = [value for value in image.getexif().values() if isinstance(value, str)]
    except Exception:  # as above
        return {}
    named = (text.partition(":") for text in texts)
    return {name.lower(): text for name, _, text in named if name.lower() in ("prompt", "workflow")}

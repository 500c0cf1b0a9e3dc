"""Generation data and texts in a picture file of any format, for the page, Batch and the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

from pipeline import foreign
from pipeline.uploads import load_file

MAX_INFOTEXT = 1 << 20
"""Characters; longer ones are dropped."""
NOT_METADATA = {
    "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif", "loop", "background", "timestamp", "duration",
    "progressive", "progression", "icc_profile", "chromaticity", "photoshop",
}
"""Entries of Pillow's `info` that A1111 leaves out."""
CODES = (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"UNICODE\0", bytes(8))
"""Prefixes of a UserComment that declare its encoding."""
MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
"""Byte order marks."""


@dataclass(frozen=True)
class Metadata:
    """What a file holds besides its pixels."""

    infotext: str | None
    """As written in the file, or assembled from another program's data."""
    program: str | None
    """The other program; None: the infotext is the file's own."""
    items: dict[str, Any]
    """Everything else, by name, as Pillow gives it."""
    notes: tuple[str, ...] = ()
    """A sentence on each part of the file that was left out."""


def read_metadata(data: bytes | str | Path, field: str) -> Metadata:
    """The metadata of a file (path or bytes). Raises InvalidRequest naming `field`, also if it is not an intact picture."""
    return metadata_of(*load_file(data, field))


def metadata_of(image: Image.Image, notes: Sequence[str] = ()) -> Metadata:
    """The metadata of a loaded picture; texts may follow the pixels, so it must be loaded in full.

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
        text, notes = None, [*notes, f"The generation data was left out: it is longer than {MAX_INFOTEXT} characters."]
    items = {key: value for key, value in items.items() if key not in NOT_METADATA}
    return Metadata(text, found and found.program, items, tuple(notes))


def user_comment(image: Image.Image) -> str:
    """The text in EXIF's UserComment; "" if there is none or it cannot be read."""
    try:
        comment = image.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    except Exception:  # Pillow raises many kinds of errors for damaged EXIF
        return ""
    if isinstance(comment, str):  # stored as an ASCII field, which Pillow reads as Latin-1
        comment = comment.encode("latin-1", "replace")
    return decode_comment(comment) if isinstance(comment, bytes) else ""


def decode_comment(comment: bytes) -> str:
    """The text of a UserComment. The encoding is guessed, since programs declare wrong ones."""
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
        # look at `comment`, not `text`: the last byte of "x" in UTF-16LE is a NUL too
        return max((whole_units(body).decode(order, "replace") for order in ("utf-16-be", "utf-16-le")),
                   key=lambda read: sum(" " <= character <= "~" for character in read)).rstrip("\0")
    return text.decode("utf-8", "ignore") if code != CODES[0] else text.decode("latin-1")


def whole_units(text: bytes) -> bytes:
    """UTF-16 without a trailing half unit."""
    return text[:len(text) // 2 * 2]


def exif_texts(image: Image.Image) -> dict[str, str]:
    """Texts that ComfyUI keeps in a WebP's EXIF, as in "prompt:{…}" and "workflow:{…}", by name."""
    if image.format == "PNG" or "exif" not in image.info:
        return {}
    try:
        texts = [value for value in image.getexif().values() if isinstance(value, str)]
    except Exception:  # as above
        return {}
    named = (text.partition(":") for text in texts)
    return {name.lower(): text for name, _, text in named if name.lower() in ("prompt", "workflow")}

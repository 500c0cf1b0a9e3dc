"""A PNG without the optional chunks that would make Pillow refuse the file or take too long."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_UNPACKED = 1 << 20
"""Bytes of a decompressed chunk; Pillow refuses files with a larger one."""
MAX_TEXT = 4 << 20
"""Bytes of a file's texts, EXIF and profiles together."""
MAX_PARTS = 1000
"""Chunks besides the pixels."""
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
LARGE = dict.fromkeys(TEXTS, "A text in the file") | {b"iCCP": "The picture's colour profile", b"eXIf": "The picture's EXIF"}
"""Chunks of unbounded length, with their names in messages."""
FRAMES = (b"fcTL", b"fdAT")
"""Animation chunks, of which there may be many."""
LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8}
"""Minimum lengths of optional chunks; Pillow fails on shorter ones."""
TAKEN = {b"transparency", b"icc_profile", b"exif", b"gamma", b"chromaticity", b"srgb", b"dpi", b"aspect", b"interlace", b"loop",
         b"duration", b"disposal", b"blend", b"bbox", b"default_image", b"xmp"}
"""Pillow's own keys in `info`; a text chunk of such a name would be mistaken for one."""
TOO_MUCH = f"Texts in the file were left out: at most {MAX_TEXT >> 20} MiB of them, in {MAX_PARTS} parts, are read."
DAMAGED = "A damaged part of the file ({}) was left out."


def readable(data: bytes) -> tuple[bytes, list[str]]:
    """(the file without unusable chunks, a sentence on each kind left out). Data that is not a PNG is returned unchanged."""
    if not data.startswith(SIGNATURE):
        return data, []
    kept: list[tuple[int, int]] = []
    notes: dict[str, None] = {}
    budget = Budget()
    for kind, start, end in chunks(data):
        # critical chunks have a capital first letter
        why = None if kind[:1] < b"a" or kind in FRAMES else fault(kind, memoryview(data)[start + 8:end - 4], data[end - 4:end], budget)
        if why is not None:
            notes[why] = None
        elif kept and kept[-1][1] == start:
            kept[-1] = kept[-1][0], end
        else:
            kept.append((start, end))
    return (joined(data, kept) if notes else data), list(notes)


@dataclass
class Budget:
    """How much may still be read of a file besides its pixels."""

    parts: int = MAX_PARTS
    size: int = MAX_TEXT

    def spend(self, size: int) -> bool:
        """Whether there is room for `size` bytes more; takes them."""
        self.size -= size
        return self.size >= 0


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk; a truncated one comes last."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        yield kind, at, end
        at = end
    if at < len(data):
        yield b"REST", at, len(data)


def joined(data: bytes, kept: list[tuple[int, int]]) -> bytes:
    view = memoryview(data)
    return b"".join([SIGNATURE, *(view[start:end] for start, end in kept)])


def fault(kind: bytes, body: memoryview, check: bytes, budget: Budget) -> str | None:
    """Why an optional chunk must be left out, or None."""
    budget.parts -= 1
    if budget.parts < 0 or (budget.size < 0 and kind in LARGE):
        return TOO_MUCH
    name = kind.decode("latin-1")
    if struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))) != check or len(body) < LENGTHS.get(kind, 0):
        return DAMAGED.format(name)
    if kind not in LARGE:
        return None
    if kind in TEXTS and (called := bytes(body[:80]).partition(b"\0")[0]) in TAKEN:
        return f'A text in the file was left out: "{called.decode("latin-1")}" is not a valid name for a text.'
    packed = packed_part(kind, body)
    if packed is None:
        return DAMAGED.format(name)
    size = len(body) if not packed else unpacked_size(packed)
    room = budget.spend(size)
    if packed and size > MAX_UNPACKED:
        return f"{LARGE[kind]} was left out: it is larger than {MAX_UNPACKED >> 20} MiB."
    return None if room else TOO_MUCH


def packed_part(kind: bytes, body: memoryview) -> memoryview | None:
    """A chunk's compressed data, empty if it has none; None if the chunk is damaged."""
    if kind in (b"tEXt", b"eXIf"):
        return body[:0]
    start = bytes(body[:81]).find(b"\0") + 1
    if not start:
        return None
    if kind != b"iTXt":
        return body[start + 1:] if body[start:start + 1] == b"\0" else None
    if len(body) < start + 2 or not body[start]:
        return body[:0]
    *_, text = bytes(body[start + 2:]).split(b"\0", 2)
    return body[len(body) - len(text):]


def unpacked_size(packed: memoryview) -> int:
    """Its decompressed size in bytes, counted up to one beyond the limit."""
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_UNPACKED + 1))
    except zlib.error:
        return 0

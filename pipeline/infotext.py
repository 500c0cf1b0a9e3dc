"""Infotext, the text on how a picture was made: written, read, and put into picture files, as A1111 does."""

import json
import re
from collections.abc import Mapping

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from pipeline.errors import InvalidRequest
from pipeline.options import SPECS
from pipeline.prompt_parser import parse_attention

NEGATIVE_PROMPT = "Negative prompt:"


# writing


def quote(value: object) -> str:
    """The value as printed, or as a JSON string if it holds a comma, colon or line break."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def parameters_line(params: Mapping[str, object]) -> str:
    """The last line, such as "Steps: 20, Sampler: Euler". None values are left out; a key equal to its value stands alone."""
    return ", ".join(
        key if key == value else f"{key}: {quote(value)}" for key, value in params.items() if value is not None
    )


def infotext(prompt: str, negative_prompt: str, params: Mapping[str, object]) -> str:
    """The whole text: prompt, negative prompt if there is one, parameters."""
    negative = f"\n{NEGATIVE_PROMPT} {negative_prompt}" if negative_prompt else ""
    return f"{prompt}{negative}\n{parameters_line(params)}".strip()


def ordered(core: Mapping[str, object], extra: Mapping[str, object], tail: Mapping[str, object]) -> dict[str, object]:
    """The parameters in A1111's order. A repeated key keeps its first position and its last value."""
    return {**core, **extra, **tail}


# reading

_PARAMETER = re.compile(r'(?P<key>\w[\w \-/]++)(?P<colon>:\s*+(?P<value>"(?:\\.|[^\\"])++"(?=,|$)|[^,]*))?')
_SIZE = re.compile(r"(\d+)x(\d+)")

DEFAULTS = {spec.infotext: spec.if_absent for spec in SPECS.values() if spec.if_absent is not None} | {
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "Schedule type": "Automatic",
    "FP8 weight": "Disable",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
}
"""Values of missing parameters, as in A1111."""
_OLD_HIRES_KEYS = {"First pass size-1", "First pass size-2", "Size-1", "Size-2"}


def split(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and the parameters as written; `infotext(*split(text))` restores the text.

    Except for spaces around lines and keys without a value. The last line holds parameters if it has at least three;
    otherwise it belongs to the prompt.
    """
    *lines, last = text.strip().split("\n")
    params = _parameters(last)
    if len(params) < 3:
        lines.append(last)
        params = []
    prompt: list[str] = []
    negative_prompt: list[str] = []
    here = prompt
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE_PROMPT):
            here, line = negative_prompt, line.removeprefix(NEGATIVE_PROMPT).strip()
        here.append(line)
    return "\n".join(prompt), "\n".join(negative_prompt), dict(params)


def _parameters(line: str) -> list[tuple[str, str]]:
    # The colon is optional so that text without one is skipped at once instead of being retried from each letter.
    found = (match for match in _PARAMETER.finditer(line) if match["colon"])
    return [(match["key"], _unquoted(match["value"])) for match in found]


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def parse(text: str) -> dict[str, str]:
    """The parameters in a text, under A1111's keys, with its defaults for missing ones.

    "Prompt" and "Negative prompt" are always present. A value like 512x768 becomes two: "Size-1", "Size-2".
    """
    prompt, negative_prompt, written = split(text)
    params: dict[str, str] = {}
    for key, value in written.items():
        size = _SIZE.fullmatch(value)
        params |= {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}
    params |= {"Prompt": prompt, "Negative prompt": negative_prompt}

    if "Hypernet" in params:
        params["Prompt"] += f"<hypernet:{params['Hypernet']}:{params.get('Hypernet strength', '1.0')}>"
    if _OLD_HIRES_KEYS <= params.keys():
        params |= _hires_resize(params)
    if "Emphasis" not in params and (_has_weights(prompt) or _has_weights(negative_prompt)):
        params["Emphasis"] = "Original"
    return {**DEFAULTS, **params}


def _has_weights(prompt: str) -> bool:
    try:
        return any(weight != 1 and piece != "BREAK" for piece, weight in parse_attention(prompt))
    except InvalidRequest:  # another program's prompt may not follow our grammar
        return True


def _hires_resize(params: Mapping[str, str]) -> dict[str, str]:
    """The old key "First pass size" in today's keys: Size is the first pass, the resize the result."""
    width, height = params["First pass size-1"], params["First pass size-2"]
    if "0" in (width, height):  # A1111 chose the size and did not record it
        return {}
    return {
        "Size-1": width, "Size-2": height, "Hires resize-1": params["Size-1"], "Hires resize-2": params["Size-2"],
    }


_VERSION = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-(RC|\d{1,9})(?:-.+)?)?", re.IGNORECASE)


def apply_backcompat(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters plus the settings that restore A1111's behaviour at their "Version".

    `params`: from `parse`. Unchanged if the version is missing or not one of A1111's.
    """
    version = _VERSION.fullmatch(params.get("Version", ""))
    if not version:
        return dict(params)
    *release, commits = version.groups(default="0")
    at = (*map(int, release), -1 if commits.upper() == "RC" else int(commits))
    changed = {
        "Old prompt editing timelines": at < (1, 6, 0, 0) and "[" in params.get("Prompt", ""),
        "Pad conds v0": at < (1, 6, 0, 0) and params.get("Sampler") in ("DDIM", "PLMS"),
        "Downcast alphas_cumprod": at < (1, 7, 0, 225),
        "Refiner switch by sampling steps": at < (1, 8, 0, 0) and "Refiner" in params,
    }
    return {**params, **{key: "True" for key, applies in changed.items() if applies}}


# in picture files

RECEIPT = "palimpsest"
"""The name of the PNG text chunk that holds a picture's receipt."""


_NAME = re.compile(r"[ -~\xa1-\xff]{1,79}")
"""Valid names of a PNG text chunk."""


def png_info(text: str | None, other: Mapping[object, object] | None = None) -> PngInfo:
    """PNG text chunks: the infotext, if any, as "parameters", then the texts in `other` under valid names."""
    chunks = PngInfo()
    for key, value in ({"parameters": text, **(other or {})} | {"parameters": text}).items():
        if isinstance(key, str) and isinstance(value, str) and _NAME.fullmatch(key):
            chunks.add_text(key, value)
    return chunks


def exif_bytes(text: str, beside: bytes | None = None) -> bytes:
    """EXIF for JPEG, WebP and AVIF with the infotext as UserComment, in the Unicode form piexif writes.

    beside: existing EXIF to add it to. JPEG holds about 32,000 characters; Pillow raises ValueError if there are more.
    """
    exif = Image.Exif()
    if beside is not None:
        exif.load(beside)
    exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + text.encode("utf_16_be")
    return exif.tobytes()

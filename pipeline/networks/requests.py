"""Network tags of prompts, <lora:name:te:unet:dyn>, as records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InvalidRequest
from pipeline.prompt_parser import Network as Tag

KINDS = ("lora", "lyco")
"""The kinds of tags that name a network file."""
TAG_SETTINGS = ("te", "unet", "dyn")
"""A tag's named settings; in this order they may also be given without names."""


@dataclass(frozen=True)
class NetworkRequest:
    """One network, as a prompt asks for it."""

    name: str
    """As in the prompt: a file's name without extension, or its alias."""
    te: float = 1.0
    """Multiplier in the text encoders."""
    unet: float = 1.0
    dyn_dim: int | None = None
    """Use only the first `dyn_dim` ranks."""


def read_tags(tags: Sequence[Tag]) -> list[NetworkRequest]:
    """The requests in those tags that name a network file, in order. Raises InvalidRequest for a bad number.

    A1111: a network named twice is applied twice, both times with the last numbers.
    """
    requests = [read_tag(tag) for tag in tags if tag.kind in KINDS]
    last = {request.name: request for request in requests}
    return [last[request.name] for request in requests]


def read_tag(tag: Tag) -> NetworkRequest:
    """The request in one tag. Raises InvalidRequest."""
    name, *values = tag.args or ("",)
    sole = not (values or tag.named) and name.partition("=")[0] in TAG_SETTINGS and "=" in name
    if not name or sole:
        raise InvalidRequest("prompt", f"prompt: <{tag.kind}:…> must name a file first, as in <{tag.kind}:name:0.8>")
    written = dict(zip(TAG_SETTINGS, values)) | tag.named
    te = multiplier(name, written.get("te", 1.0))
    dyn = written.get("dyn")
    return NetworkRequest(name, te, multiplier(name, written.get("unet", te)), None if dyn is None else rank(name, dyn))


def multiplier(name: str, text: str | float) -> float:
    """A multiplier in the tag of the LoRA `name`. Raises InvalidRequest unless it is a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequest("prompt", f'prompt: a multiplier of the LoRA "{name}" must be a number, got "{text}"')
    return value


def rank(name: str, text: str) -> int:
    """`dyn` in the tag of the LoRA `name`, at least 1. Raises InvalidRequest."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise InvalidRequest("prompt", f'prompt: dyn of the LoRA "{name}" must be a whole number of at least 1, got "{text}"')
    return value

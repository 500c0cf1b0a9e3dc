"""Networks that enlarge pictures: from a safetensors file to a network in memory. A new architecture is a file and a row here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import ModelError
from pipeline.upscalers import compact, dat, rrdb, span
from pipeline.upscalers.network import Network, NotReadable, Tensors
from pipeline.weights import Weights

LARGEST = 1 << 30
"""Bytes of a file; published ones have at most 150 MB."""
PREFIXES = ("params_ema.", "params.", "module.")
"""What programs for training put in front of all names."""


@dataclass(frozen=True)
class Architecture:
    name: str
    matches: Callable[[Iterable[str]], bool]
    """Whether tensors of these names are such a network's."""
    build: Callable[[Tensors], Network]
    """Raises NotReadable."""


ARCHITECTURES = (Architecture("RRDBNet (ESRGAN, Real-ESRGAN)", rrdb.matches, rrdb.build),
                 Architecture("SPAN", span.matches, span.build),
                 Architecture("DAT", dat.matches, dat.build),
                 Architecture("SRVGGNetCompact", compact.matches, compact.build))


def load(path: Path) -> Network:
    """The network in a safetensors file, in float32 on the processor. Raises ModelError with one sentence."""
    weights = Weights(path)
    prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), "") if weights else ""
    names = {name.removeprefix(prefix): name for name in weights}
    known = next((architecture for architecture in ARCHITECTURES if architecture.matches(names)), None)
    if known is None:
        raise ModelError(f'"{path.name}" holds no upscaler that is known here; valid: {", ".join(each.name for each in ARCHITECTURES)}')
    if weights.size > LARGEST:
        raise ModelError(f'"{path.name}" is larger than any upscaler: {weights.size} bytes, at most {LARGEST} are read')
    try:
        return known.build({name: weights[stored].to(torch.float32) for name, stored in names.items()})
    except NotReadable as error:
        raise ModelError(f'"{path.name}" cannot be read as {known.name}: {error}') from None


__all__ = ["ARCHITECTURES", "Network", "load"]

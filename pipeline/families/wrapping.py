"""Seamless tiling: convolutions wrap around at the picture's edges."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def wrapping_around(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Context in which every convolution in the modules wraps its input around at the edges. Contexts may be nested."""
    convolutions = [part for module in modules for part in module.modules() if isinstance(part, nn.Conv2d)]
    before = [convolution.padding_mode for convolution in convolutions]
    for convolution in convolutions:
        convolution.padding_mode = "circular"
    try:
        yield
    finally:
        for convolution, mode in zip(convolutions, before):
            convolution.padding_mode = mode

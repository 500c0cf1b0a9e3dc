"""Pictures that can be laid side by side: their networks see each edge beside the opposite one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def wrapping_around(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within it every convolution in the modules continues its input beyond an edge from the other side."""
    convolutions = [part for module in modules for part in module.modules() if isinstance(part, nn.Conv2d)]
    for convolution in convolutions:
        convolution.padding_mode = "circular"
    try:
        yield
    finally:
        for convolution in convolutions:
            convolution.padding_mode = "zeros"

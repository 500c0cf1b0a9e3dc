"""A cache of computed values, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

Value = TypeVar("Value")

LIMIT = 256 * 2**20
"""Bytes: about 70 requests of 512x512 with a mask, or five of 2048x2048."""
ENTRY = 1024
"""Approximate bytes per entry besides its pictures and tensors."""


class Cache:
    """The most recently used values, by everything they depend on, up to `limit` bytes in total.

    A value larger than `limit` is not kept. Used on the engine's thread only. Values are shared, so nobody may change them.
    """

    def __init__(self, limit: int = LIMIT):
        self._limit = limit
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.size = 0
        """Bytes."""

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of that key, made by `make` if it is not kept. If `make` raises, nothing is kept."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key][0]
        value = make()
        size = ENTRY + size_of(value)
        if size <= self._limit:
            self._entries[key] = value, size
            self.size += size
        while self.size > self._limit:
            _, (_, size) = self._entries.popitem(last=False)
            self.size -= size
        return value

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self.size = 0


def size_of(value: Any) -> int:
    """Bytes of the pictures, tensors and arrays in a value; shared memory counts once."""
    return sum(dict(parts(value)).values())


def parts(value: Any) -> Iterator[tuple[Hashable, int]]:
    """(identity, bytes) of each piece of memory that a value holds."""
    if isinstance(value, Tensor):
        memory = value.untyped_storage()  # the whole storage, even if the tensor is a view of a part
        yield (value.device, memory.data_ptr()), memory.nbytes()
    elif isinstance(value, np.ndarray):
        yield id(value), value.nbytes
    elif isinstance(value, Image.Image):
        yield id(value), value.width * value.height * (1 if value.mode in ("1", "L", "P") else 4)
    elif isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from parts(each)
    elif is_dataclass(value):
        for spec in fields(value):
            yield from parts(getattr(value, spec.name))

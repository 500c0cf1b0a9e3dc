"""What was computed once and will be asked for again, as long as there is room for it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

Value = TypeVar("Value")

LIMIT = 256 * 2**20
"""Bytes: some 70 requests of 512x512 with a mask, or five of 2048x2048."""
ENTRY = 1024
"""Bytes that an entry takes besides its pictures and tensors, about."""


class Cache:
    """Values by all that they depend on: those used last, of together at most `limit` bytes. A larger one is not kept.

    Owned by the engine and used on its thread. The same value is given to everybody, so nobody may change it.
    """

    def __init__(self, limit: int = LIMIT):
        self._limit = limit
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.size = 0
        """Bytes."""

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of that key, made where it is not kept. What make raises is raised, and nothing is kept."""
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
        """Let go of everything."""
        self._entries.clear()
        self.size = 0


def size_of(value: Any) -> int:
    """Bytes of the pictures, tensors and arrays in a value; what several of them share counts once."""
    return sum(dict(parts(value)).values())


def parts(value: Any) -> Iterator[tuple[Hashable, int]]:
    """(what it is told apart by, bytes) of each piece of memory that a value holds."""
    if isinstance(value, Tensor):
        memory = value.untyped_storage()  # all of it, also where the tensor is a part of it
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

"""Tensors by name in a safetensors file, read when they are asked for; and what is refused instead of read."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import finalize

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import ModelError

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Files of these kinds can run code when they are read."""
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How torch.save and pickle begin a file, whatever it is called."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}
"""What safetensors calls them."""

MAX_REASON = 120
"""Characters."""


class Weights(Mapping[str, Tensor]):
    """The tensors of one safetensors file. Opening reads the header only; a tensor is read when it is got.

    A tensor is read into memory of its own. Mapped files would count twice where the precision changes, could not be
    replaced while they are in use, and would end the process when they are cut short.

    Raises ModelError with one sentence for a pickle, a damaged file, or one that is not there.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        refuse_pickle(self.path)
        try:
            with safe_open(self.path, framework="pt", device="cpu") as checked:  # that offsets and sizes are sound
                self.metadata: dict[str, str] = checked.metadata() or {}
            self._file = self.path.open("rb")
            finalize(self, self._file.close)
            size = int.from_bytes(self._file.read(8), "little")
            header = json.loads(self._file.read(size))
        except (OSError, SafetensorError, ValueError, OverflowError) as error:
            raise ModelError(f'"{self.path.name}" cannot be read as safetensors, it is damaged or cut short: '
                             f"{reason(error)}") from error
        header.pop("__metadata__", None)
        self._start, self._entries = 8 + size, header
        self._passing = torch.empty(0, dtype=torch.uint8)

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name, torch.empty(self._bytes(name), dtype=torch.uint8))

    def passing(self, name: str) -> Tensor:
        """The tensor in memory that is used again for the next one: for what is converted at once, as new memory is slow."""
        size = self._bytes(name)
        if len(self._passing) < size:
            self._passing = torch.empty(size, dtype=torch.uint8)
        return self._read(name, self._passing[:size])

    def dtype(self, name: str) -> torch.dtype:
        """The precision of a tensor, without reading it. Raises ModelError for one that torch does not have."""
        dtype = self._entries[name]["dtype"]
        if dtype not in DTYPES:
            raise ModelError(f'"{self.path.name}": tensor "{name}" is {dtype}; valid: {", ".join(DTYPES)}')
        return DTYPES[dtype]

    def _bytes(self, name: str) -> int:
        start, end = self._entries[name]["data_offsets"]
        return end - start

    def _read(self, name: str, data: Tensor) -> Tensor:
        """The tensor, in the bytes `data`."""
        entry, dtype = self._entries[name], self.dtype(name)
        start = entry["data_offsets"][0]
        try:
            self._file.seek(self._start + start)
            count = self._file.readinto(data.numpy())
        except OSError as error:
            raise ModelError(f'"{self.path.name}": tensor "{name}" cannot be read: {error.strerror or error}') from error
        if count != len(data):
            raise ModelError(f'"{self.path.name}": tensor "{name}" cannot be read: the file has become shorter')
        return data.view(dtype).reshape(entry["shape"])

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        return torch.Size(self._entries[name]["shape"])


def refuse_pickle(path: Path) -> None:
    """Raise ModelError for a file that is not there, or is a pickle by its name or its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f'"{path.name}" cannot be read: {error.strerror or error}') from error
    is_header = start.endswith(b"{")  # behind 8 bytes of its length, which may begin as a pickle does: 640 is 80 02
    if path.suffix.lower() in PICKLES or start.startswith(PICKLE_STARTS) and not is_header:
        raise ModelError(f'"{path.name}" is a pickle, which can run code when it is read; '
                         f'make a safetensors file of it with: python -m tools.convert "{path}"')


def reason(error: Exception) -> str:
    """What safetensors says, on one line and short, as it may quote the file."""
    return " ".join(str(error).removeprefix("Error while deserializing header: ").split())[:MAX_REASON]

"""The tensors of a safetensors or GGUF file, read on demand; pickles and damaged files are refused."""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import finalize

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline import gguf
from pipeline.errors import ModelError
from pipeline.small_files import open_regular, reason

PREVIEW_DECODER = "vae_approx"
"""Subfolder of a diffusers model with a tiny decoder for previews; it affects neither pictures nor the hash."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Extensions of files that can run code when they are read."""
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of files by torch.save and pickle, whatever their extension."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}
"""By safetensors' names."""

FLOAT8 = ("F8_E4M3", "F8_E5M2")
"""Of these, those of one byte per number."""

MAX_HEADER = 1 << 25
"""Bytes. Training tools write their logs into the header, up to a few MB."""
MAX_TENSORS = 100_000
MAX_NAME = 1000
"""Characters of a tensor's name."""
MAX_AXES, MAX_LENGTH = 8, 1 << 31
PIECE = 1 << 18
"""Numbers that fit into a CPU cache as float32."""


class Weights(Mapping[str, Tensor]):
    """The tensors of one safetensors or GGUF file. Opening reads the header only; a tensor is read when accessed.

    Which of the two it is its first bytes say. GGUF's tensors have the names and shapes that torch's networks know, and those
    that are quantized are read as float32. The file is memory-mapped, and tensors are copied or converted out of it, so few weights exist twice at a time, and
    replacing or truncating the file later changes no model.

    Raises ModelError with one sentence for a pickle, a damaged file, or a missing one.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        refuse_pickle(self.path)
        kind = "safetensors"
        try:
            self._file = open_regular(self.path)
            finalize(self, self._file.close)
            kind = "GGUF" if self._file.read(len(gguf.MAGIC)) == gguf.MAGIC else kind
            self._file.seek(0)
            self.metadata, self._start, header = self._read_gguf() if kind == "GGUF" else self._read_safetensors()
            check_entries(header)
            self._mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, SafetensorError, ValueError, OverflowError, RecursionError) as error:
            raise ModelError(f'"{self.path.name}" cannot be read as {kind}, it is damaged or cut short: '
                             f'{reason(error).removeprefix("Error while deserializing header: ")}') from error
        self._entries = header
        self.size = len(self._mapped)
        """Bytes of the file."""
        self._passed: tuple[int, int] = 0, 0
        """(start, end) in the file of the tensor passed last."""

    def _read_safetensors(self) -> tuple[dict[str, str], int, dict[str, dict]]:
        """(metadata, start of the data, entries)."""
        size = int.from_bytes(self._file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"its header has {size} bytes, at most {MAX_HEADER} are read")
        with safe_open(self.path, framework="pt", device="cpu") as checked:  # validates offsets and sizes
            metadata: dict[str, str] = checked.metadata() or {}
        header = json.loads(self._file.read(size))
        header.pop("__metadata__", None)
        return metadata, 8 + size, header

    def _read_gguf(self) -> tuple[dict[str, str], int, dict[str, dict]]:
        header, metadata, start = gguf.read_header(self._file, os.fstat(self._file.fileno()).st_size)
        return metadata, start, header

    def __getitem__(self, name: str) -> Tensor:
        return self.passing(name).clone()

    def passing(self, name: str) -> Tensor:
        """The tensor in the mapped file, valid until the next one is accessed: copy or convert it at once."""
        entry = self._entries[name]
        if entry["dtype"] not in gguf.KINDS:
            return self._passing(name, self.dtype(name), entry["shape"])
        return gguf.unpacked(entry["dtype"], self._passing(name, torch.uint8, [-1])).reshape(entry["shape"])

    def packing(self, name: str) -> str | None:
        """The name of a matrix's type if that takes less than two bytes per number, float8's or one of GGUF's; else None."""
        kind, shape = self._entries[name]["dtype"], self._entries[name]["shape"]
        whole_rows = len(shape) == 2 and (kind in FLOAT8 or kind in gguf.KINDS and shape[1] % gguf.block(kind) == 0)
        return kind if whole_rows else None

    def packed_bytes(self, name: str) -> int:
        """How many bytes a tensor takes in the file."""
        start, end = self._entries[name]["data_offsets"]
        return end - start

    def packed(self, name: str) -> Tensor:
        """The bytes of a matrix of such a type, (rows, bytes per row), as passing() gives them."""
        return self._passing(name, torch.uint8, [self._entries[name]["shape"][0], -1])

    def _passing(self, name: str, dtype: torch.dtype, shape: list[int]) -> Tensor:
        entry = self._entries[name]
        start, end = (self._start + offset for offset in entry["data_offsets"])
        if os.fstat(self._file.fileno()).st_size < end:
            raise ModelError(f'"{self.path.name}": tensor "{name}" cannot be read: the file was cut short after it was opened')
        self._let_go()
        self._passed = start, end
        if start == end:
            return torch.empty(shape, dtype=dtype)
        data = np.frombuffer(self._mapped, dtype=np.uint8, count=end - start, offset=start)
        return torch.from_numpy(data if start % dtype.itemsize == 0 else data.copy()).view(dtype).reshape(shape)

    def dtype(self, name: str) -> torch.dtype:
        """The precision of a tensor, without reading it. Raises ModelError for one that torch lacks."""
        dtype = self._entries[name]["dtype"]
        if dtype in gguf.KINDS:
            return torch.float32
        if dtype not in DTYPES:
            raise ModelError(f'"{self.path.name}": tensor "{name}" is {dtype}; valid: {", ".join(DTYPES)}')
        return DTYPES[dtype]

    def sha256(self) -> str:
        """SHA-256 of the whole file, in hex."""
        return hashlib.sha256(self._mapped).hexdigest()

    def _let_go(self) -> None:
        """Release the pages of the tensor passed last, where the system supports it."""
        start, end = (offset // mmap.PAGESIZE * mmap.PAGESIZE for offset in self._passed)
        if end > start and hasattr(self._mapped, "madvise"):
            self._mapped.madvise(mmap.MADV_DONTNEED, start, end - start)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> torch.Size:
        """The shape of a tensor, without reading it."""
        return torch.Size(self._entries[name]["shape"])


def check_entries(header: dict[str, dict]) -> None:
    """Raise ValueError for more tensors, longer names or larger shapes than any model has."""
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it holds {len(header)} tensors, at most {MAX_TENSORS} are read")
    for name, entry in header.items():
        if len(name) > MAX_NAME:
            raise ValueError(f"the name of a tensor has {len(name)} characters, at most {MAX_NAME} are read")
        if len(entry["shape"]) > MAX_AXES or any(length > MAX_LENGTH for length in entry["shape"]):
            raise ValueError(f'tensor "{name}" has more than {MAX_AXES} axes, or one longer than {MAX_LENGTH}')


def converted(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """tensor.to(device, dtype, copy=True), but faster between the two half precisions on the CPU.

    torch converts these one number at a time; converting pieces through float32 is exact too.
    """
    halves = {tensor.dtype, dtype} == {torch.float16, torch.bfloat16}
    if not halves or device.type != "cpu":
        return tensor.to(device, dtype, copy=True)
    result, piece = torch.empty(tensor.shape, dtype=dtype), torch.empty(PIECE)
    for source, target in zip(tensor.reshape(-1).split(PIECE), result.view(-1).split(PIECE)):
        target.copy_(piece[:len(source)].copy_(source))
    return result


def refuse_pickle(path: Path) -> None:
    """Raise ModelError for a file that is missing, or is a pickle by its name or first bytes."""
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f'"{path.name}" cannot be read: {reason(error)}') from error
    is_header = start.endswith(b"{")  # after an 8-byte length that may look like a pickle: 640 is 80 02
    if path.suffix.lower() in PICKLES or start.startswith(PICKLE_STARTS) and not is_header:
        raise ModelError(f'"{path.name}" is a pickle, which can run code when it is read; '
                         f'convert it to safetensors with: python -m tools.convert "{path.name}"')

"""GGUF files: their header, and the numbers of their quantized tensors by diffusers' own functions.

The header is read here and not by the gguf package, whose reader builds an array for each of a tokenizer's 150 000 words and
checks no sizes.
"""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, BinaryIO

import torch
from torch import Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER = 1 << 27
"""Bytes; a tokenizer takes up to 10 MB."""
MAX_VALUES, MAX_TENSORS, MAX_TEXT, MAX_AXES = 10_000, 100_000, 1 << 20, 8
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of values, by the format's number, as the module struct names them."""
TEXT, ARRAY = 8, 9
PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F64", "I8": "I8", "I16": "I16", "I32": "I32", "I64": "I64"}
"""Types that are not quantized, by safetensors' names."""
KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
"""Types that are: those that diffusers unpacks."""
SHAPES = "comfy.gguf.orig_shape."
"""Prefix of values with the true shape of a tensor that was made to fit the format."""

_QWEN = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
_T5 = {
    "attn_norm": "layer.0.layer_norm", "attn_q": "layer.0.SelfAttention.q", "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v", "attn_o": "layer.0.SelfAttention.o", "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm", "ffn_gate": "layer.1.DenseReluDense.wi_0", "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}
"""llama.cpp's names within a block → transformers'."""
_OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
    "enc.output_norm.weight": "encoder.final_layer_norm.weight",
}


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, dict], dict[str, str], int]:
    """(tensors as in a safetensors header, values that are texts or numbers, offset of the tensors' data).

    file: at its start; size: the whole file's bytes. Raises ValueError.
    """
    reader = HeaderReader(file)
    reader.take(len(MAGIC))
    version, tensors, values = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}, valid: {', '.join(map(str, VERSIONS))}")
    if tensors > MAX_TENSORS or values > MAX_VALUES:
        raise ValueError(f"its header has {tensors} tensors and {values} values, at most {MAX_TENSORS} and {MAX_VALUES} are read")
    metadata = {}
    for _ in range(values):
        name = reader.text()
        metadata[name] = reader.value(reader.number("I"))
    infos = [reader.tensor() for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise ValueError(f"its alignment is {alignment}")
    start = -(-reader.offset // alignment) * alignment
    entries = {}
    for name, shape, number, offset in infos:
        kind, length = kind_and_bytes(number, name, shape)
        true = metadata.get(SHAPES + name)
        if true is not None and product(true) == product(shape):
            shape = true
        if start + offset + length > size:
            raise ValueError(f'tensor "{name}" reaches beyond its end')
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + length]}
    renamed = {transformers_name(name): entry for name, entry in entries.items()}
    return renamed, {name: str(value) for name, value in metadata.items() if isinstance(value, str | int | float)}, start


class HeaderReader:
    """Reads values from a header of bounded size. Raises ValueError where it ends too early."""

    def __init__(self, file: BinaryIO):
        self._file, self.offset = file, 0

    def take(self, count: int) -> bytes:
        self.offset += count
        if self.offset > MAX_HEADER:
            raise ValueError(f"its header has more than {MAX_HEADER} bytes")
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError("its header ends too early")
        return data

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > MAX_TEXT:
            raise ValueError(f"a text in its header has {length} bytes, at most {MAX_TEXT} are read")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """A value of one of the format's types; None for a list that describes no shape."""
        if kind == TEXT:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != ARRAY:
            raise ValueError(f"a value in its header is of the unknown type {kind}")
        kind, count = self.number("I"), self.number("Q")
        if kind in NUMBERS and count <= MAX_AXES:
            return [self.number(NUMBERS[kind]) for _ in range(count)]
        if kind in NUMBERS:
            self.take(count * struct.calcsize(f"<{NUMBERS[kind]}"))
        elif kind == TEXT:
            for _ in range(count):  # each takes 8 bytes at least, so MAX_HEADER bounds them
                self.text()
        else:
            raise ValueError(f"a list in its header is of the unsupported type {kind}")
        return None

    def tensor(self) -> tuple[str, list[int], int, int]:
        """(name, shape as torch counts it, number of its type, offset in the data)."""
        name, axes = self.text(), self.number("I")
        if axes > MAX_AXES:
            raise ValueError(f'tensor "{name}" has {axes} axes, at most {MAX_AXES} are read')
        shape = [self.number("Q") for _ in range(axes)][::-1]
        return name, shape, self.number("I"), self.number("Q")


def kind_and_bytes(number: int, name: str, shape: list[int]) -> tuple[str, int]:
    """(the name of a tensor's type, its bytes). Raises ValueError for a type that is not supported."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise ValueError(f'tensor "{name}" is of the unknown type {number}') from None
    block, size = GGML_QUANT_SIZES[kind]
    if kind.name not in (*PLAIN, *KINDS):
        raise ValueError(f'tensor "{name}" is {kind.name}, which is not supported; valid: {", ".join((*list(PLAIN)[:3], *KINDS))}')
    if shape and shape[-1] % block:
        raise ValueError(f'tensor "{name}" has rows of {shape[-1]} numbers, which are no whole blocks of {block}')
    return PLAIN.get(kind.name, kind.name), product(shape) // block * size


@lru_cache
def block(kind: str) -> int:
    """How many numbers share a scale in a type of KINDS."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]


@lru_cache(1)
def functions() -> dict[str, tuple[Callable[..., Tensor], int, int]]:
    """By the name of a quantized type: (diffusers' function that unpacks its blocks, numbers per block, bytes per block)."""
    from diffusers.quantizers.gguf.utils import dequantize_functions
    from gguf import GGML_QUANT_SIZES

    return {kind.name: (function, *GGML_QUANT_SIZES[kind]) for kind, function in dequantize_functions.items() if kind.name in KINDS}


def unpacked(kind: str, data: Tensor) -> Tensor:
    """The numbers of whole rows of a quantized tensor: (..., bytes) uint8 → (..., columns) float32."""
    function, block, size = functions()[kind]
    numbers = function(data.reshape(-1, size), block, size, dtype=torch.float32)
    return numbers.reshape(*data.shape[:-1], data.shape[-1] // size * block)


def product(shape: list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def transformers_name(name: str) -> str:
    """transformers' name for a tensor of a language model as llama.cpp names it; others stay."""
    for start, to, names in (("blk.", "model.layers.", _QWEN), ("enc.blk.", "encoder.block.", _T5)):
        if name.startswith(start):
            number, _, rest = name.removeprefix(start).partition(".")
            module, _, kind = rest.rpartition(".")
            return f"{to}{number}.{names.get(module, module)}.{kind}"
    return _OUTSIDE.get(name, name)

"""The tiny flow models' files as people quantize them: float8, scaled float8, GGUF; and the same numbers unpacked."""

from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

FLOAT8 = torch.float8_e4m3fn


def float8(source: Path, target: Path, scales: str = "") -> Path:
    """Matrices as float8. scales: "" for none, "weight" or "rows" for one per matrix or row, under ComfyUI's two names for them.

    Beside it lies `plain(target)`, with the same numbers in float32.
    """
    written, numbers = {}, {}
    for name, tensor in load_file(source).items():
        if tensor.ndim != 2 or not name.endswith(".weight"):
            written[name] = numbers[name] = tensor
            continue
        scale = torch.ones(1, 1) if not scales else tensor.abs().amax(dim=1, keepdim=True) / 448 if scales == "rows" else (tensor.abs().max() / 448).reshape(1, 1)
        written[name] = (tensor / scale).to(FLOAT8)
        numbers[name] = written[name].float() * scale
        if scales == "rows":
            written[f"{name}_scale"] = scale
        elif scales:
            written[name.removesuffix("weight") + "scale_weight"] = scale[0, 0]
    save_file(written, target)
    save_file(numbers, plain(target))
    return target


def gguf_file(source: Path, target: Path, kind: str, architecture: str, rename=lambda name: name) -> Path:
    """Matrices as one of GGUF's kinds where their rows are whole blocks of it, else as F16; and `plain(target)` as above."""
    kind, numbers = gguf.GGMLQuantizationType[kind], {}
    writer = gguf.GGUFWriter(target, architecture)
    for name, tensor in load_file(source).items():
        matrix = tensor.ndim == 2 and name.endswith(".weight")
        here = gguf.GGMLQuantizationType.F32 if not matrix else kind if tensor.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(tensor.float().numpy(), here)
        writer.add_tensor(rename(name), data, raw_dtype=here)
        numbers[name] = torch.from_numpy(np.array(gguf.quants.dequantize(data, here))).reshape(tensor.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(numbers, plain(target))
    return target


def plain(path: Path) -> Path:
    """Where the numbers of a quantized file are, as float32."""
    return path.with_name(f"{path.stem}-plain.safetensors")

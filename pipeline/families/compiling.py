"""Compiles a network for inputs of certain shapes, in a process of its own: python -m pipeline.families.compiling < WORK

WORK is the JSON of a compiled.Work, the file to write and the process's niceness, in one line. The file that comes out holds code and no weights, as whoever loads it brings its own.
The process ends once its standard input does, that is with the program that started it.
"""

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.families.sd import PARTS, fit_skips


class UNet(nn.Module):
    """A diffusers UNet as families call it. Both hold it under compiled.PREFIX."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.network = PARTS["unet"].build(config)
        fit_skips(self.network)

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        return self.network(x, t, return_dict=False, **conditions)[0]


class Decoder(nn.Module):
    """A diffusers autoencoder's way back to pixels."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.network = PARTS["vae"].build(config)

    def forward(self, latent: Tensor) -> Tensor:
        into = self.network.post_quant_conv
        return self.network.decoder(latent if into is None else into(latent))


CALLS = {"UNet2DConditionModel": UNet, "AutoencoderKL": Decoder}
"""diffusers' class → what is compiled of it."""


def compile_network(network: str, config: dict[str, Any], dtype: str, inputs: list, threads: int, file: Path) -> None:
    """Write the compiled code. inputs: [positional, by name], each tensor as [shape, precision]."""
    with torch.device("meta"):
        call = CALLS[network](config)
    # never read, so no weight takes real memory
    call = call.to_empty(device="cpu").to(getattr(torch, dtype), memory_format=torch.channels_last).eval().requires_grad_(False)
    positional, named = filled(inputs)
    with torch.no_grad():
        program = torch.export.export(call, tuple(positional), named, strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs={
            "aot_inductor.package_constants_in_so": False, "always_keep_tensor_constants": True,  # else small biases become numbers
            "cpp.threads": threads, "cpp.vec_isa_ok": True,  # of the instructions that the processor has, without trying each
            "cpp_cache_precompile_headers": False, "compile_threads": 1})


def filled(inputs: Any) -> Any:
    """The same structure with tensors of these shapes."""
    if isinstance(inputs, dict):
        return {name: filled(each) for name, each in inputs.items()}
    shape, dtype = inputs if len(inputs) == 2 and isinstance(inputs[1], str) else (None, None)
    return [filled(each) for each in inputs] if dtype is None else torch.ones(shape, dtype=getattr(torch, dtype))


def end_with_input() -> None:
    """End this process when its standard input ends."""
    while os.read(0, 1 << 16):
        pass
    os._exit(1)


def main() -> None:
    work = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    niceness = work.pop("niceness")
    if hasattr(os, "nice"):
        os.nice(niceness)
    torch.set_num_threads(1)
    target = Path(work.pop("file"))
    with tempfile.TemporaryDirectory(prefix="draft-", dir=target.parent) as folder:
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": folder}
        draft = Path(folder) / target.name
        compile_network(**work, file=draft)
        os.replace(draft, target)


if __name__ == "__main__":
    main()

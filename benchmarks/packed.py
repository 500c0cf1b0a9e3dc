"""Memory of quantized files: python -m benchmarks packed [--layers 12] [--width 1536]

Writes a Z-Image of random weights in between a toy and the published one, as bfloat16, float8 with scales, Q8_0 and Q4_0, and
loads each in a process of its own, in bfloat16: bytes of the transformer's weights, and how much the process's resident memory
has grown once it is loaded and has been called, beside the file in bfloat16.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.report import table
from tests.families import tiny_flow
from tests.families.quantized_files import float8, gguf_file, plain

HEAD = 128
CELLS = 32
"""Of a side of the latent that the transformer is called with."""


def transformer(layers: int, width: int) -> dict[str, torch.Tensor]:
    """The tensors of a Z-Image's transformer, by the original code's names."""
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    network = ZImageTransformer2DModel(dim=width, n_layers=layers, n_refiner_layers=1, n_heads=width // HEAD, n_kv_heads=width // HEAD,
                                       cap_feat_dim=tiny_flow.WIDTH, axes_dims=[HEAD // 4, HEAD * 3 // 8, HEAD * 3 // 8], axes_lens=[1536, 512, 512])
    return tiny_flow.z_image_names({name: tensor.bfloat16() for name, tensor in network.state_dict().items()})


def written(place: Path, state: dict[str, torch.Tensor]) -> dict[str, Path]:
    """The same weights in files of each kind."""
    whole = place / "bfloat16.safetensors"
    save_file({name: tensor.bfloat16().contiguous() for name, tensor in state.items()}, whole)
    wide = place / "float32.safetensors"
    save_file({name: tensor.float().contiguous() for name, tensor in state.items()}, wide)
    files = {"bfloat16": whole, "float8, scaled": float8(wide, place / "float8.safetensors", "weight"),
             **{kind: gguf_file(wide, place / f"{kind}.gguf", kind, "lumina2") for kind in ("Q8_0", "Q4_0")}}
    for path in (wide, *map(plain, files.values())):
        path.unlink(missing_ok=True)
    return files


def resident() -> int:
    """This process's bytes in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@torch.inference_mode()
def measure(path: Path, encoder: Path, vae: Path) -> None:
    """Load and call it in this process, and print bytes as JSON."""
    import diffusers  # noqa: F401  imported before memory is counted
    from transformers import Qwen3Model  # noqa: F401

    from pipeline import families
    from pipeline.families.cond import Encoding
    from pipeline.families.placement import Placement

    before = resident()
    model = families.load(path, Placement(torch.device("cpu"), torch.bfloat16, torch.float32), components=families.Components(vae, (encoder,)))
    cond = model.encode_prompts(["a red fox"], Encoding())
    latent = torch.zeros(1, 16, CELLS, CELLS)
    model.denoise(latent, torch.tensor([0.5]), cond, latent[:, :0])
    weights = sum(tensor.numel() * tensor.itemsize for tensor in model.modules["transformer"].state_dict().values())
    print(json.dumps({"weights": weights, "resident": resident() - before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=1536, help=f"a multiple of {HEAD}; default: %(default)s")
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        return measure(*flags.child)
    with tempfile.TemporaryDirectory() as folder:
        tiny = tiny_flow.z_image(Path(folder) / "tiny")
        files, found = written(Path(folder), transformer(flags.layers, flags.width)), {}
        for kind, path in files.items():
            done = subprocess.run([sys.executable, "-m", "benchmarks.packed", "--child", str(path), str(tiny.text_encoder), str(tiny.vae)],
                                  capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[kind] = json.loads(done.stdout.splitlines()[-1]) | {"file": path.stat().st_size}
    first = found["bfloat16"]
    print(table(["file", "GB", "weights in memory, GB", "of bfloat16's", "process grew by, GB", "of bfloat16's"],
                [[kind, f"{one['file'] / 1e9:.2f}", f"{one['weights'] / 1e9:.2f}", f"{one['weights'] / first['weights']:.2f}",
                  f"{one['resident'] / 1e9:.2f}", f"{one['resident'] / first['resident']:.2f}"] for kind, one in found.items()]))


if __name__ == "__main__":
    main()

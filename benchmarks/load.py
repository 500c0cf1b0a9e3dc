"""Time and memory to load a full-size single file: python -m benchmarks load [sd1] [sdxl]

Writes a float16 checkpoint of random weights in the original layout, in SD 1.5's and SDXL's dimensions, and loads it with
Palimpsest and with diffusers' from_single_file, each in a child process, from a warm file cache, offline, until every weight
is in memory. Prints seconds and the peak growth of the process's memory, beside the weights' size in the precision used.
diffusers loads faster and in less memory with accelerate, which requirements-oracles.txt installs. SDXL in float32 needs
14 GB with Palimpsest.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.report import peak_memory, version
from tests.families import tiny

CLIP_L = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
              projection_dim=768, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407)
CLIP_G = dict(vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
              projection_dim=1280, hidden_act="gelu", bos_token_id=49406, eos_token_id=49407)
UNETS = {
    "sd1": dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(sample_size=128, cross_attention_dim=2048, attention_head_dim=[5, 10, 20],
                 block_out_channels=[320, 640, 1280],
                 down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                 up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                 transformer_layers_per_block=[1, 2, 10], use_linear_projection=True,
                 addition_embed_type="text_time", addition_time_embed_dim=256,
                 projection_class_embeddings_input_dim=2816),
}
VAE = dict(block_out_channels=[128, 256, 512, 512], layers_per_block=2, latent_channels=4,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
BLOCK = 1 << 22
"""Numbers per write."""
PAGE = 1024
"""At most as many numbers as fit in one memory page, in any precision."""


def write_checkpoint(kind: str, place: Path) -> tuple[Path, Path, int]:
    """(single file, folder with the configs that diffusers needs, number of weights)."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        texts = {"text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L))}
        if kind == "sdxl":
            texts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G))
        unet, vae = UNet2DConditionModel(**UNETS[kind]), AutoencoderKL(**VAE)
        state = tiny.original(tiny.KINDS[kind], unet, vae, texts)
    parts = {"unet": unet, "vae": vae} | texts
    unet.save_config(place / "unet")
    vae.save_config(place / "vae")
    for name, module in texts.items():
        module.config.save_pretrained(place / name)
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in texts]
    for name in tokenizers:
        tiny.copy_tokenizer(place / name, padding="!" if name.endswith("2") else "<|endoftext|>")
    EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(place / "scheduler")
    (place / "model_index.json").write_text(json.dumps(tiny.model_index(tiny.KINDS[kind], [*parts, *tokenizers])))
    file = place / f"{kind}.safetensors"
    write_random(file, {name: tuple(tensor.shape) for name, tensor in state.items()})
    return file, place, sum(tensor.numel() for module in parts.values() for tensor in module.state_dict().values())


def write_random(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write a safetensors file of small random float16 numbers, with at most one block in memory."""
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": (offset, offset + 2 * math.prod(shape))}
        offset += 2 * math.prod(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    noise = (torch.randn(BLOCK) * 0.02).half().numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, offset, len(noise)):
            file.write(noise[:offset - start])


def load_with_palimpsest(file: Path, configs: Path, dtype: torch.dtype) -> object:
    from pipeline import families
    from pipeline.families.placement import Placement

    return families.load(file, Placement(torch.device("cpu"), dtype, dtype))


def load_with_diffusers(file: Path, configs: Path, dtype: torch.dtype) -> object:
    import diffusers

    kind = json.loads((configs / "model_index.json").read_text())["_class_name"]
    return getattr(diffusers, kind).from_single_file(file, config=str(configs), torch_dtype=dtype, local_files_only=True)


LOADERS = {"palimpsest": load_with_palimpsest, "diffusers": load_with_diffusers}


def measure(loader: str, file: Path, configs: Path, precision: str) -> None:
    """Load in this process, and print seconds and bytes as JSON."""
    import diffusers  # noqa: F401  imported before the clock starts, as are the networks
    from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    from pipeline import families  # noqa: F401

    before, began = peak_memory(), time.perf_counter()
    model = LOADERS[loader](file, configs, getattr(torch, precision))
    for module in (model.components if loader == "diffusers" else model.modules).values():
        for parameter in module.parameters() if isinstance(module, torch.nn.Module) else ():
            parameter.detach().view(-1)[::PAGE].sum()  # reads tensors that are only mapped so far
    print(json.dumps({"seconds": time.perf_counter() - began, "bytes": peak_memory() - before, "model": type(model).__name__}))


def run(loader: str, file: Path, configs: Path, precision: str) -> dict:
    """measure() in a child process."""
    with file.open("rb") as stream:  # into the file cache
        while stream.read(1 << 24):
            pass
    done = subprocess.run([sys.executable, "-m", "benchmarks.load", "--child", loader, str(file), str(configs), precision],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="MODEL", help=f"any of {', '.join(UNETS)}; default: all")
    parser.add_argument("--precisions", nargs="+", default=["float16", "float32"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        loader, file, configs, precision = flags.child
        return measure(loader, Path(file), Path(configs), precision)
    versions = " ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "accelerate"))
    print(f"{versions}, {torch.get_num_threads()} threads")
    print(f"{'model':6} {'precision':9} {'loader':11} {'seconds':>8} {'peak GB':>8} {'weights GB':>11} {'peak/weights':>13}")
    for kind in flags.kinds or UNETS:
        with tempfile.TemporaryDirectory() as place:
            file, configs, count = write_checkpoint(kind, Path(place))
            for precision in flags.precisions:
                weights = count * getattr(torch, precision).itemsize
                turns = [{loader: run(loader, file, configs, precision) for loader in LOADERS} for _ in range(flags.repeats)]
                for loader in LOADERS:
                    results = [turn[loader] for turn in turns]
                    seconds, peak = min(result["seconds"] for result in results), max(result["bytes"] for result in results)
                    print(f"{kind:6} {precision:9} {loader:11} {seconds:8.1f} {peak / 1e9:8.2f} {weights / 1e9:11.2f} "
                          f"{peak / weights:13.2f}", flush=True)


if __name__ == "__main__":
    main()

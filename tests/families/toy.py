"""A family that is not shaped like Stable Diffusion: a flow of 16 channels, its own text encoder, no negative prompt.

Its weights are random. `python -m tests.families.toy FOLDER [app.py's flags]` writes a checkpoint and serves the page with it.
"""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline import families
from pipeline.families import FamilyRow, configs, original, sd
from pipeline.families.base import Facts, Layer, ModelInfo
from pipeline.families.checkpoint import Checkpoint, Layout, Part, LoadingCallback, Stored, build_modules, read_folder
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.latents import LatentFormat
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.prediction import Flow
from pipeline.geometry import Size
from pipeline.weights import Weights

CHANNELS, WORDS = 16, 256
VAE = dict(block_out_channels=[8] * 4, layers_per_block=1, latent_channels=CHANNELS, norm_num_groups=4,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)


class Transformer(nn.Module):
    """Velocity of x (B, 16, h, w) at t (B,), attending to tokens (B, T, width) selected by a mask (B, T)."""

    def __init__(self, width: int):
        super().__init__()
        self.into, self.out = nn.Conv2d(CHANNELS, width, 3, padding=1), nn.Conv2d(width, CHANNELS, 3, padding=1)
        self.time, self.guidance, self.text = nn.Linear(1, width), nn.Linear(1, width), nn.Linear(width, width)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, t: Tensor, guidance: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        told = self.time(t[:, None]) + self.guidance(guidance)
        cells = self.into(x).flatten(2).transpose(1, 2) + told[:, None]
        seen = torch.cat([cells, self.text(tokens)], dim=1)
        counts = torch.cat([mask.new_ones(cells.shape[:2]), mask], dim=1)
        q, k, v = self.qkv(seen).chunk(3, dim=-1)
        cells = nn.functional.scaled_dot_product_attention(q, k, v, counts[:, None])[:, :cells.shape[1]] + cells
        return self.out(cells.transpose(1, 2).unflatten(2, x.shape[2:]))


class Words(nn.Module):
    """A vector per word."""

    def __init__(self, width: int):
        super().__init__()
        self.vectors = nn.Embedding(WORDS, width)


class WordEncoder:
    """One token per word, without a length limit; no embeddings."""

    name, embeddings = "words", None

    def __init__(self, module: Words):
        self.module, self.width = module, module.vectors.embedding_dim

    def encode(self, text: str) -> Tensor:
        ids = [sum(word.encode()) % WORDS for word in text.split()] or [0]
        return self.module.vectors(torch.tensor(ids, device=self.module.vectors.weight.device))

    def count(self, text: str, how: Encoding) -> int:
        return len(text.split())

    def find_embeddings(self, texts: list[str], how: Encoding) -> tuple[list, list[str]]:
        return [], []


class Toy(LoadedModel):
    takes_negative_prompt = False

    def __init__(self, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement):
        super().__init__(TOY.name, modules, info, placement, TOY.latent_format)
        self.text_encoders = [WordEncoder(modules["text_encoder"])]

    def prediction(self, size: Size) -> Flow:
        tokens = size.width * size.height / 16**2
        return Flow(shift=math.exp(0.5 + tokens / 4096))

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        rows = [self.text_encoders[0].encode(text).float() for text in texts]
        seen = {f"reference {number}": reference.latent.mean(dim=(2, 3), keepdim=True) for number, reference in enumerate(how.references)}
        return Cond.cat([Cond(row[None], {"guidance": row.new_full((1, 1), 3.5)} | seen, torch.ones(1, len(row), dtype=torch.bool)) for row in rows])

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype = self.placement.dtype
        x = x + sum((seen for name, seen in cond.extra.items() if name.startswith("reference")), torch.zeros(()))
        return self._modules["transformer"](x.to(dtype), t.to(dtype), cond.extra["guidance"].to(dtype), cond.tokens.to(dtype), cond.mask).float()

    def layers(self) -> "Toy":
        return self

    def find(self, layer: str) -> Layer | None:
        qkv = self.modules["transformer"].qkv
        width = qkv.in_features
        starts = {f"lora_transformer_to_{name}": width * place for place, name in enumerate("qkv")}
        return Layer(qkv, (starts[layer], starts[layer] + width)) if layer in starts else None


WIDTH = {"width": configs.whole(1, 1024)}
PARTS = {"transformer": PartKind(WIDTH, lambda config: Transformer(**config)), "text_encoder": PartKind(WIDTH, lambda config: Words(**config)),
         "vae": sd.PARTS["vae"]}
TOY = Facts("toy", 64, LatentFormat(channels=CHANNELS, scale=0.36, shift=0.1, rgb_factors=((0.05, 0.02, -0.03),) * CHANNELS), PARTS, references=4)


def read_file(weights: Weights) -> Checkpoint | None:
    if not any(name.startswith("toy.transformer.") for name in weights):
        return None
    width = {"width": weights.shape("toy.text_encoder.vectors.weight")[1]}
    return Checkpoint(weights.path, {name: Part(VAE if name == "vae" else width, tensors_of(weights, f"toy.{name}.")) for name in PARTS})


def tensors_of(weights: Weights, prefix: str) -> dict[str, Stored]:
    return {name.removeprefix(prefix): Stored(weights, name) for name in weights if name.startswith(prefix)}


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> Toy:
    return Toy(build_modules(checkpoint, facts.parts, placement, progress), info, placement)


ROW = FamilyRow(TOY, Layout("Toy", partial(read_folder, names=tuple(PARTS)), read_file, original.read_vae),
                matches=lambda checkpoint: "transformer" in checkpoint.parts, check=lambda facts, checkpoint: None,
                sees=lambda checkpoint: "nothing", load=load)


def make(folder: Path) -> tuple[Path, Path]:
    """(diffusers folder, single file) with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modules = {"transformer": Transformer(24), "text_encoder": Words(24), "vae": PARTS["vae"].build(VAE)}
    model, file, all_tensors = folder / "toy-model", folder / "toy.safetensors", {}
    for name, module in modules.items():
        (model / name).mkdir(parents=True)
        (model / name / "config.json").write_text(json.dumps(VAE if name == "vae" else {"width": 24}))
        save_file(module.state_dict(), model / name / "diffusion_pytorch_model.safetensors")
        all_tensors |= {f"toy.{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    (model / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline"}))
    save_file(all_tensors, file)
    return model, file


def main(folder: Path, flags: list[str]) -> Any:
    import app

    families.FAMILIES[TOY.name] = ROW
    return app.main(["--model", str(make(folder)[0]), *flags])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

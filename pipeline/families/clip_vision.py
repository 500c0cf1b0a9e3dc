"""CLIP's reader of pictures, whose features IP-Adapters take: a file or folder of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs, one_sentence
from pipeline.families.checkpoint import Checkpoint, Part, Stored, build_modules, count, read_part, shape
from pipeline.families.configs import PartKind
from pipeline.families.controls import Features, LoadedNetwork
from pipeline.families.placement import Placement
from pipeline.weights import Weights

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPENAI = 1024
"""The width of OpenAI's own large model, the only one here that computes quick_gelu."""
HEADS = 16
"""Of all three published sizes; it does not show in shapes."""
OWN = ("vision_model.", "visual_projection.")
PREFIX = "vision_model."


def build(config: dict[str, Any]) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**config))


PARTS = {"image_encoder": PartKind(configs.CLIP_VISION, build)}


@dataclass(frozen=True)
class ClipVision(LoadedNetwork):
    """A loaded CLIP vision model: a PictureEncoder."""

    def features(self, picture: Tensor, *, deep: bool) -> Tensor:
        """(2, …): the features of a picture (1, 3, S, S) in [0, 1], and those that stand for no picture."""
        weight = self.module.visual_projection.weight
        mean, deviation = (torch.tensor(values, dtype=weight.dtype).reshape(1, 3, 1, 1).to(weight.device) for values in (MEAN, DEVIATION))
        seen = (picture.to(weight) - mean) / deviation
        if not deep:
            embeds = self.module(seen).image_embeds
            return torch.cat([embeds, torch.zeros_like(embeds)])
        return self.module(torch.cat([seen, torch.zeros_like(seen)]), output_hidden_states=True).hidden_states[-2]


def fits(path: Path, wanted: Features) -> bool:
    """Whether a file's or folder's features are those. Raises ModelError."""
    with one_sentence(path):
        config = read(path).config
        return config.get("hidden_size" if wanted.deep else "projection_dim") == wanted.width


def load(path: Path, name: str, place: Placement) -> ClipVision:
    """The model of a file or folder, in place. Raises ModelError."""
    with one_sentence(path):
        return ClipVision(name, build_modules(Checkpoint(path, {"image_encoder": read(path)}), PARTS, place)["image_encoder"])


def read(path: Path) -> Part:
    if path.is_dir():
        part = read_part(path)
        # transformers leaves out of a config what is as in its own defaults
        return Part({"hidden_size": 768, "projection_dim": 512} | part.config, own(part.tensors))
    weights = Weights(path)
    tensors = own({name: Stored(weights, name) for name in weights})
    return Part(config_of(path, tensors), tensors)


def own(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """The tensors that read pictures; whole CLIP models have more."""
    return {name: stored for name, stored in tensors.items() if name.startswith(OWN) and not name.endswith("position_ids")}


def config_of(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of a file's model, by its shapes. Raises ModelError."""
    if "visual_projection.weight" not in tensors:
        raise ModelError(f'"{path.name}" is not a CLIP vision model in transformers\' names: it lacks "visual_projection.weight"')
    width, _, patch, _ = shape(path, tensors, f"{PREFIX}embeddings.patch_embedding.weight")
    patches = shape(path, tensors, f"{PREFIX}embeddings.position_embedding.weight")[0] - 1
    return {"hidden_size": width, "patch_size": patch, "image_size": patch * round(patches ** 0.5), "num_attention_heads": HEADS,
            "num_hidden_layers": count(tensors, PREFIX.replace(".", r"\.") + r"encoder\.layers\.(\d+)\."),
            "intermediate_size": shape(path, tensors, f"{PREFIX}encoder.layers.0.mlp.fc1.weight")[0],
            "projection_dim": shape(path, tensors, "visual_projection.weight")[0],
            "hidden_act": "quick_gelu" if width == OPENAI else "gelu"}

"""Z-Image, Turbo and Base: a flow transformer of 6 billion parameters, prompted through Qwen3-4B, in FLUX.1's latents.

Tongyi-MAI, 2025; Apache-2.0.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.families import configs, flux_vae, original, qwen3
from pipeline.families.base import Defaults, Facts, ModelInfo, Separate
from pipeline.families.checkpoint import Checkpoint, Layout, LoadingCallback, Part, Stored, build_modules, count, read_folder, shape
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.controls import Controls, computing
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.plain_text import note_on_weights
from pipeline.families.prediction import Flow
from pipeline.families.transformer_layers import TransformerLayers
from pipeline.families.z_image_control import ZImageControl, ZImageControls, borrowing
from pipeline.geometry import Size
from pipeline.weights import Weights

TURBO_SHIFT = 3.0
"""Of files, which do not say it. Base has 6; a diffusers folder says which."""
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE_TOKENS = 8
LONGEST = 1504
"""Tokens: the positions of text that the network was trained with, in whole groups of 32."""
PATCH = 2
"""Latent cells per token, in each direction."""


def build_transformer(config: dict[str, Any]) -> nn.Module:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel.from_config(config)


AXES = configs.several(configs.whole(2, 4096), 3, 3)
TRANSFORMER = {  # the arguments of diffusers' ZImageTransformer2DModel
    "all_patch_size": configs.several(configs.whole(PATCH, PATCH), 1, 1),
    "all_f_patch_size": configs.several(configs.whole(1, 1), 1, 1),
    "in_channels": configs.channels,
    "dim": configs.width,
    "n_layers": configs.whole(1, 128),
    "n_refiner_layers": configs.whole(1, 16),
    "n_heads": configs.whole(1, 1024),
    "n_kv_heads": configs.whole(1, 1024),
    "norm_eps": configs.norm_eps,
    "qk_norm": configs.flag,
    "cap_feat_dim": configs.width,
    "siglip_feat_dim": configs.null,
    "rope_theta": configs.number(1, 1e9),
    "t_scale": configs.number(1e-3, 1e6),
    "axes_dims": AXES,
    "axes_lens": AXES,
}


def suits_text(checkpoint: Checkpoint, part: Part) -> bool:
    return part.config.get("hidden_size") == checkpoint.config("transformer").get("cap_feat_dim")


PARTS = {"transformer": PartKind(TRANSFORMER, build_transformer), "text_encoder": qwen3.KIND, "vae": flux_vae.KIND}
Z_IMAGE = Facts(
    "z-image", 1024, flux_vae.LATENT, PARTS, defaults=Defaults("Euler", "Simple", 9, 1.0), prompt_tokens=LONGEST - TEMPLATE_TOKENS,
    separate={"text_encoder": Separate("the text encoder Qwen3-4B", "models/text_encoder", suits_text), "vae": flux_vae.SEPARATE})


class ZImage(LoadedModel):
    """A loaded Z-Image. CFG 1 asks no negative prompt, which is how Turbo is meant to be used."""

    def __init__(self, checkpoint: Checkpoint, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement):
        super().__init__(Z_IMAGE.name, modules, info, placement, flux_vae.latent_format(checkpoint))
        self._encoder = qwen3.Qwen3TextEncoder(modules["text_encoder"], template=TEMPLATE, layers=[-2], longest=LONGEST)
        self._controls: ZImageControls | None = None
        self.text_encoders, self._flow = [self._encoder], Flow(checkpoint.shift or TURBO_SHIFT)

    def prediction(self, size: Size) -> Flow:
        return self._flow

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        self.notes += note_on_weights(texts, self.info.name)
        rows = [self._encoder.encode(text, how) for text in texts]
        # the mask stays on the CPU: only lengths are read from it
        return Cond.cat([Cond(row[None], mask=torch.ones(1, len(row), dtype=torch.bool)) for row in rows])

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype, (height, width) = self.placement.dtype, x.shape[-2:]
        # as in ComfyUI: what is beyond a side of odd length is what is on the other side
        x = F.pad(x, (0, width % PATCH, 0, height % PATCH), mode="circular").to(dtype)
        texts = [tokens[:length].to(dtype) for tokens, length in zip(cond.tokens, cond.mask.sum(dim=1).tolist())]
        # it counts time from noise to picture, and answers with the velocity towards the picture
        transformer, given = self._modules["transformer"], (list(x[:, :, None]), 1 - t, texts)
        samples = self._controls and self._controls.samples(*given, blocks=len(transformer.layers))
        output = transformer(*given, controlnet_block_samples=samples, return_dict=False)[0]
        return -torch.stack(list(output))[:, :, 0, :height, :width].float()

    @contextmanager
    def controlled(self, controls: Controls) -> Iterator[None]:
        transformer = self._modules["transformer"]
        with computing(controls, ZImageControl, transformer, self.info.name, self.placement) as networks, borrowing(networks, transformer):
            self._controls = ZImageControls(controls, self.encode_image)
            try:
                yield
            finally:
                self._controls = None

    def layers(self) -> TransformerLayers:
        transformer = self.modules["transformer"]
        fused = {path.removesuffix("to_q") + "qkv": [path.removesuffix("q") + part for part in "qkv"]
                 for path, _ in transformer.named_modules() if path.endswith("attention.to_q")}
        return TransformerLayers(transformer, lambda path: [original_name(path)], fused)


# --- files --------------------------------------------------------------------------------------------------------------

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
RENAMED = (("all_x_embedder.2-1.", "x_embedder."), ("all_final_layer.2-1.", "final_layer."), ("attention.to_out.0.", "attention.out."),
           ("attention.norm_q.", "attention.q_norm."), ("attention.norm_k.", "attention.k_norm."))
"""(in diffusers, in the original code)."""
ENCODER = "text_encoders.qwen3_4b.transformer."
UNUSED = "norm_final.weight"
"""Held by files, without a place in the network."""


def original_name(path: str) -> str:
    """The original code's path for diffusers' path of a module."""
    for ours, theirs in RENAMED:
        path = f"{path}.".replace(ours, theirs).removesuffix(".")
    return path


def read_file(weights: Weights) -> Checkpoint | None:
    """The contents of a single file, a transformer alone or with its other parts; None if it is none of Z-Image's."""
    prefix = next((prefix for prefix in PREFIXES if {prefix + "cap_embedder.1.weight", prefix + "noise_refiner.0.attention_norm1.weight"}
                   <= weights.keys()), None)
    if prefix is None:
        return None
    names = [name.removeprefix(prefix) for name in weights if name.startswith(prefix)]
    tensors = {new: stored for name in names if name != UNUSED for new, stored in converted(Stored(weights, prefix + name), name).items()}
    if not prefix:
        tensors = {name: stored for name, stored in tensors.items() if not name.startswith((ENCODER, *original.VAES[:2]))}
    parts = {"transformer": Part(transformer_config(weights.path, tensors), tensors),
             "text_encoder": qwen3.read_from(weights, ENCODER), "vae": original.read_vae_from(weights, original.VAES[:2])}
    return Checkpoint(weights.path, {name: part for name, part in parts.items() if part is not None})


def converted(stored: Stored, name: str) -> dict[str, Stored]:
    """A tensor under diffusers' names; the original code fuses q, k and v."""
    for ours, theirs in RENAMED:
        name = re.sub(rf"(?<![^.]){re.escape(theirs)}", ours, name)
    if fused := re.fullmatch(r"(.*\.attention\.)qkv\.(weight)", name):
        return {f"{fused[1]}to_{part}.{fused[2]}": Stored(stored.weights, stored.name, partial(original.third, index=index))
                for index, part in enumerate("qkv")}
    return {name: stored}


def transformer_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' ZImageTransformer2DModel that has these tensors."""
    dim, features = shape(path, tensors, "cap_embedder.1.weight")
    head = shape(path, tensors, "layers.0.attention.norm_q.weight")[0]
    return {
        "in_channels": shape(path, tensors, "all_x_embedder.2-1.weight")[1] // PATCH**2, "dim": dim, "cap_feat_dim": features,
        "n_layers": count(tensors, r"layers\.(\d+)\."), "n_refiner_layers": count(tensors, r"noise_refiner\.(\d+)\."),
        "n_heads": dim // head, "n_kv_heads": dim // head,
        "axes_dims": [head // 4, head * 3 // 8, head * 3 // 8], "axes_lens": [1536, 512, 512],
    }


def of_folder(name: str, part: Part) -> Part:
    return qwen3.of_folder(part) if name == "text_encoder" else part


def check(facts: Facts, checkpoint: Checkpoint) -> None:
    """Nothing that its parts do not say."""


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> ZImage:
    return ZImage(checkpoint, build_modules(checkpoint, facts.parts, placement, progress), info, placement)


LAYOUT = Layout("ZImage", partial(read_folder, names=tuple(PARTS), also=of_folder), read_file, original.read_vae, qwen3.read_text_encoder)

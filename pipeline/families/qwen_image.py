"""Qwen-Image, and Qwen-Image-Edit 2509 and 2511, which edit by instruction: source and references beside the noise, and read by Qwen2.5-VL.

Alibaba, 2025.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.families import configs, qwen25_vl
from pipeline.families.autoencoder import LARGEST_AT_ONCE, TILE, Autoencoder
from pipeline.families.base import Defaults, Facts, ModelInfo, Separate, Sees
from pipeline.families.checkpoint import (
    Checkpoint, Layout, LoadingCallback, Part, Stored, build_modules, count, pipeline_class, read_folder, read_part, shape)
from pipeline.families.cond import Cond, Encoding
from pipeline.families.configs import PartKind
from pipeline.families.controls import Controls, computing
from pipeline.families.latents import LatentFormat
from pipeline.families.loaded import LoadedModel
from pipeline.families.placement import Placement
from pipeline.families.plain_text import note_on_weights
from pipeline.families.prediction import Flow
from pipeline.families.qwen_control import QwenControl, QwenControls
from pipeline.families.transformer_layers import TransformerLayers
from pipeline.geometry import Size
from pipeline.weights import Weights

DESCRIBE = ("<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
            "objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
EDIT = ("<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
        "the user's text instruction should alter or modify the image. Generate a new image that meets the user's requirements while maintaining "
        "consistency with the original input where appropriate.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
"""The messages that the networks were trained with, without and with pictures."""
LONGEST = 1024
"""Tokens of a prompt."""
PATCH = 2
"""Latent cells per token, in each direction."""
REFERENCES = 4
"""Further pictures besides the source."""
REFERENCE_AREA, READ_AREA, STEP = 1024**2, 384**2, 32
"""Pixels to which references are resized, for the network and for the text encoder; and of what their sides are multiples."""
SHIFTS = (256, 0.5), (8192, 0.9)
"""(tokens of a picture, logarithm of its shift); a line through both gives those of other sizes."""
MARKER = "__index_timestep_zero__"
"""An empty tensor that files of Qwen-Image-Edit 2511 hold."""
RGB_FACTORS = (
    (-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420), (0.0313, 0.0189, -0.0328),
    (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975), (-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636),
    (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639), (-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950),
    (0.1984, 0.0913, 0.1861))
RGB_BIAS = (-0.1835, -0.0868, -0.3360)
"""A linear fit from latents to RGB in [-1, 1], public since 2025."""
LATENT = LatentFormat(channels=16, rgb_factors=RGB_FACTORS, rgb_bias=RGB_BIAS)


def build_transformer(config: dict[str, Any]) -> nn.Module:
    from diffusers import QwenImageTransformer2DModel
    from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

    transformer = QwenImageTransformer2DModel.from_config(config)
    with torch.device("cpu"):  # files do not hold these numbers
        transformer.pos_embed = QwenEmbedRope(theta=10000, axes_dim=list(transformer.config.axes_dims_rope), scale_rope=True)
    return transformer


def build_autoencoder(config: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage.from_config(config)


TRANSFORMER = {  # the arguments of diffusers' QwenImageTransformer2DModel
    "patch_size": configs.whole(PATCH, PATCH),
    "in_channels": configs.whole(1, 1024),
    "out_channels": configs.channels,
    "num_layers": configs.whole(1, 128),
    "attention_head_dim": configs.whole(16, 1024),
    "num_attention_heads": configs.whole(1, 1024),
    "joint_attention_dim": configs.width,
    "axes_dims_rope": configs.several(configs.whole(2, 1024), 3, 3),
    "zero_cond_t": configs.flag,
}
VAE = {  # the arguments of diffusers' AutoencoderKLQwenImage
    "base_dim": configs.whole(1, 1024),
    "z_dim": configs.channels,
    "dim_mult": configs.several(configs.whole(1, 64), 4, 4),
    "num_res_blocks": configs.whole(1, 8),
    "temperal_downsample": configs.several(configs.flag, 3, 3),
    "latents_mean": configs.several(configs.number(-1e3, 1e3), 16, 16),
    "latents_std": configs.several(configs.number(1e-3, 1e3), 16, 16),
}


def suits_text(checkpoint: Checkpoint, part: Part) -> bool:
    return part.config.get("hidden_size") == checkpoint.config("transformer").get("joint_attention_dim") \
        and "visual.patch_embed.proj.weight" in part.tensors


def suits_vae(checkpoint: Checkpoint, part: Part) -> bool:
    return "decoder.conv_in.weight" in part.tensors and "quant_conv.weight" in part.tensors and len(part.tensors["quant_conv.weight"].shape) == 5


PARTS = {"transformer": PartKind(TRANSFORMER, build_transformer), "text_encoder": qwen25_vl.KIND, "vae": PartKind(VAE, build_autoencoder, packs=False)}
QWEN_IMAGE = Facts(
    "qwen-image", 1024, LATENT, PARTS, defaults=Defaults("Euler", "Simple", 20, 2.5, denoising_strength=1.0, distilled=False), references=REFERENCES, may_edit=True, prompt_tokens=LONGEST, separate={
        "text_encoder": Separate("the text encoder Qwen2.5-VL-7B", "models/text_encoder", suits_text),
        "vae": Separate("Qwen-Image's VAE", "models/VAE", suits_vae)})


class StillAutoencoder(Autoencoder):
    """An autoencoder for videos, of which a picture is one frame."""

    def cut_into_tiles(self, edge: int = TILE, above: int = LARGEST_AT_ONCE) -> None:
        self._above = above
        self.module.tile_sample_min_height = self.module.tile_sample_min_width = edge
        self.module.tile_sample_stride_height = self.module.tile_sample_stride_width = edge * 3 // 4

    def _encode_one(self, image: Tensor) -> Tensor:
        return self.module.encode(image[:, :, None]).latent_dist.mean[:, :, 0]

    def _decode_one(self, latent: Tensor) -> Tensor:
        return self.module.decode(latent[:, :, None]).sample[:, :, 0]


class QwenImage(LoadedModel):
    """A loaded Qwen-Image or Qwen-Image-Edit, whose tensors are the same."""

    def __init__(self, checkpoint: Checkpoint, modules: dict[str, nn.Module], info: ModelInfo, placement: Placement):
        super().__init__(QWEN_IMAGE.name, modules, info, placement, latent_format(modules["vae"]))
        self.sees: Sees = sees(checkpoint)
        self._encoder = qwen25_vl.Qwen25VlTextEncoder(modules["text_encoder"], longest=LONGEST)
        self.text_encoders = [self._encoder]
        self._controls: QwenControls | None = None

    def prediction(self, size: Size) -> Flow:
        (few, low), (many, high) = SHIFTS
        tokens = size.width * size.height / (8 * PATCH)**2
        return Flow(math.exp(low + (high - low) * (tokens - few) / (many - few)))

    def take_vae(self, module: nn.Module, info: ModelInfo) -> None:
        super().take_vae(module, info)
        self.latent_format = latent_format(module)

    def _autoencoder(self, module: nn.Module) -> Autoencoder:
        return StillAutoencoder(module, self.placement, self.notes, self.offload, self.latent_format.autoencoder_downscale)

    def encode_prompts(self, texts: list[str], how: Encoding) -> Cond:
        self.notes += note_on_weights(texts, self.info.name)
        pictures = [picture.read for picture in ([how.source] if how.source else []) + list(how.references)]
        rows = [self._encoder.encode(text, EDIT if pictures else DESCRIBE, pictures, how) for text in texts]
        beside = {f"reference {number}": reference.latent for number, reference in enumerate(how.references)}
        return Cond.cat([Cond(row[None], beside, torch.ones(1, len(row), dtype=torch.bool)) for row in rows])  # the mask stays on the CPU

    def image_conditioning(self, pixels: Tensor, latent: Tensor, mask: Tensor | None, *, mask_weight: float) -> Tensor:
        return latent if self.sees == "reference" else latent[:, :0]

    def fit_reference(self, size: Size) -> tuple[Size, Size]:
        return (fitted := with_area(size, REFERENCE_AREA)), fitted

    def fit_read(self, size: Size) -> Size:
        return with_area(size, READ_AREA)

    def denoise(self, x: Tensor, t: Tensor, cond: Cond, image_cond: Tensor) -> Tensor:
        dtype, (height, width) = self.placement.dtype, x.shape[-2:]
        pictures = [self._packed(picture) for picture in (x, image_cond, *cond.extra.values()) if picture.shape[1]]
        shapes = [(1, *picture.shape[-2:]) for picture in pictures]
        tokens = torch.cat([picture.flatten(2).transpose(1, 2) for picture in pictures], dim=1)
        mask = None if cond.mask is None or cond.mask.all() else cond.mask.to(x.device, non_blocking=True)
        transformer = self._modules["transformer"]
        inputs = {"timestep": t.to(dtype), "encoder_hidden_states": cond.tokens.to(dtype), "encoder_hidden_states_mask": mask}
        samples = None if self._controls is None else self._controls.samples(
            pictures[0].to(dtype), inputs, len(transformer.transformer_blocks), tokens.shape[1])
        output = transformer(hidden_states=tokens.to(dtype), img_shapes=[shapes] * len(x), controlnet_block_samples=samples,
                             return_dict=False, **inputs)[0]
        cells = output[:, :math.prod(shapes[0])].transpose(1, 2).unflatten(2, shapes[0][1:])
        return F.pixel_shuffle(cells.float(), PATCH)[:, :, :height, :width]

    @contextmanager
    def controlled(self, controls: Controls) -> Iterator[None]:
        with computing(controls, QwenControl, self._modules["transformer"], self.info.name, self.placement):
            self._controls = QwenControls(controls, self.encode_image, self._packed)
            try:
                yield
            finally:
                self._controls = None

    @staticmethod
    def _packed(latent: Tensor) -> Tensor:
        """(B, 4 C, h / 2, w / 2). Beyond a side of odd length is what is on the other side."""
        height, width = latent.shape[-2:]
        return F.pixel_unshuffle(F.pad(latent, (0, width % PATCH, 0, height % PATCH), mode="circular"), PATCH)

    def layers(self) -> TransformerLayers:
        return TransformerLayers(self.modules["transformer"], lambda path: [path], {})


def with_area(size: Size, area: int) -> Size:
    """A size of the same proportions, as near as may be, with that many pixels."""
    width = math.sqrt(area * (size.width / size.height))
    return Size(*(max(round(side / STEP), 1) * STEP for side in (width, width / (size.width / size.height))))


def latent_format(vae: nn.Module) -> LatentFormat:
    return replace(LATENT, mean=tuple(vae.config.latents_mean), deviation=tuple(vae.config.latents_std))


# --- files --------------------------------------------------------------------------------------------------------------

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")
ENCODER = "text_encoders.qwen25_7b.transformer."
VAES = ("vae.", "first_stage_model.")
PLAIN = ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")
"""Classes of diffusers' pipelines for models that do not edit by instruction."""


def read_file(weights: Weights) -> Checkpoint | None:
    """The contents of a single file, a transformer alone or with its other parts; None if it is none of Qwen-Image's. Raises ModelError."""
    prefix = next((prefix for prefix in PREFIXES if {prefix + "txt_norm.weight", prefix + "img_in.weight", prefix + "transformer_blocks.0.img_mod.1.weight"}
                   <= weights.keys()), None)
    if prefix is None:
        return None
    tensors = {name.removeprefix(prefix): Stored(weights, name) for name in weights
               if name.startswith(prefix) and (prefix or not name.startswith((ENCODER, *VAES)))}
    config = transformer_config(weights.path, tensors) | {"zero_cond_t": tensors.pop(MARKER, None) is not None}
    parts = {"transformer": Part(config, tensors), "text_encoder": qwen25_vl.read_from(weights, ENCODER), "vae": read_vae_from(weights, VAES)}
    return Checkpoint(weights.path, {name: part for name, part in parts.items() if part is not None})


def transformer_config(path: Path, tensors: dict[str, Stored]) -> dict[str, Any]:
    """The config of diffusers' QwenImageTransformer2DModel that has these tensors."""
    inner, channels = shape(path, tensors, "img_in.weight")
    head = shape(path, tensors, "transformer_blocks.0.attn.norm_q.weight")[0]
    return {"in_channels": channels, "out_channels": shape(path, tensors, "proj_out.weight")[0] // PATCH**2,
            "num_layers": count(tensors, r"transformer_blocks\.(\d+)\."), "attention_head_dim": head, "num_attention_heads": inner // head,
            "joint_attention_dim": shape(path, tensors, "txt_in.weight")[1], "axes_dims_rope": [head // 8, head * 7 // 16, head * 7 // 16]}


def read_vae_from(weights: Weights, prefixes: Sequence[str]) -> Part | None:
    """The autoencoder whose tensors have one of these prefixes, in diffusers' names or in Wan's; None if there is none."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    for prefix in prefixes:
        tensors = {name.removeprefix(prefix): Stored(weights, name) for name in weights if name.startswith(prefix)}
        if "decoder.middle.0.residual.0.gamma" in tensors:
            tensors = convert_wan_vae_to_diffusers(tensors)  # it renames only
        if "decoder.conv_in.weight" in tensors and "decoder.norm_out.gamma" in tensors:
            config = {"base_dim": shape(weights.path, tensors, "encoder.conv_in.weight")[0],
                      "z_dim": shape(weights.path, tensors, "post_quant_conv.weight")[0]}
            return Part(config, tensors)
    return None


def read_vae(path: Path) -> Part:
    """The autoencoder in its own file or folder. Raises ModelError."""
    if path.is_dir():
        return read_part(path)
    part = read_vae_from(weights := Weights(path), ("", *VAES))
    if part is None:
        raise ModelError(f'"{weights.path.name}" is not Qwen-Image\'s VAE: it has no tensor "decoder.middle.0.residual.0.gamma"')
    return part


def of_folder(name: str, part: Part) -> Part:
    return qwen25_vl.of_folder(part) if name == "text_encoder" else part


def read_diffusers(folder: Path) -> Checkpoint:
    return replace(read_folder(folder, tuple(PARTS), of_folder), edits=pipeline_class(folder) not in PLAIN)


def check(facts: Facts, checkpoint: Checkpoint) -> None:
    """Raise ModelError for a relative that computes differently: layered, 2.1."""
    if checkpoint.config("transformer").get("in_channels", 64) != 64 or checkpoint.config("transformer").get("use_layer3d_rope"):
        raise ModelError(f'"{checkpoint.path.name}" is another kind of Qwen-Image, which is not supported; Qwen-Image and Qwen-Image-Edit are')


def sees(checkpoint: Checkpoint) -> Sees:
    """A single file does not say which it is, so it counts as one that edits."""
    return "nothing" if checkpoint.edits is False else "reference"


def load(facts: Facts, checkpoint: Checkpoint, info: ModelInfo, placement: Placement, progress: LoadingCallback) -> QwenImage:
    return QwenImage(checkpoint, build_modules(checkpoint, facts.parts, placement, progress), info, placement)


LAYOUT = Layout("QwenImage", read_diffusers, read_file, read_vae, qwen25_vl.read_text_encoder)

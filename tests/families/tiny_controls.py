"""Tiny networks that guide the tiny checkpoints: random weights, as diffusers' classes and in the layouts of files."""

import re
from pathlib import Path

import torch
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.families.tiny import original_unet_name

HINT = (8, 16, 24, 32)
"""Channels of the layers that read the picture."""
UNION_TYPES = 8


def randomized(module):
    """The module with noise on all of its weights: what is zero at the start of training would hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    return randomized(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT))


def union(unet: UNet2DConditionModel) -> ControlNetUnionModel:
    """diffusers' from_unet() lacks the union's own sizes."""
    own = {key: value for key, value in unet.config.items() if key in (
        "block_out_channels", "layers_per_block", "down_block_types", "transformer_layers_per_block", "cross_attention_dim",
        "attention_head_dim", "use_linear_projection", "addition_embed_type", "addition_time_embed_dim",
        "projection_class_embeddings_input_dim")}
    width = unet.config.block_out_channels[0]
    return randomized(ControlNetUnionModel(**own, conditioning_embedding_out_channels=HINT, num_control_type=UNION_TYPES,
                                           num_trans_channel=width, num_proj_channel=width))


def adapter(unet: UNet2DConditionModel, kind: str, in_channels: int = 3) -> T2IAdapter:
    channels, xl = list(unet.config.block_out_channels), kind == "full_adapter_xl"
    return randomized(T2IAdapter(in_channels, channels + channels[-1:] if xl else channels, 2, 16 if xl else 8, kind))


def saved(tensors, path: Path) -> Path:
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def original_control_name(name: str, config) -> str:
    """lllyasviel's name for a tensor of diffusers' ControlNetModel."""
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(.*)", name):
        return f"zero_convs.{found[1]}.0.{found[2]}"
    if name.startswith("controlnet_mid_block."):
        return name.replace("controlnet_mid_block.", "middle_block_out.0.")
    if found := re.fullmatch(r"controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.(.*)", name):
        number = {"conv_in": 0, "conv_out": 14}.get(found[1])
        return f"input_hint_block.{2 * int(found[2]) + 2 if number is None else number}.{found[3]}"
    return original_unet_name(name, config)


def original_adapter_name(name: str) -> str:
    """TencentARC's name for a tensor of diffusers' full or light T2IAdapter."""
    name = name.removeprefix("adapter.")
    return re.sub(r"^body\.(\d+)\.resnets\.(\d+)\.", lambda f: f"body.{2 * int(f[1]) + int(f[2])}.", re.sub(
        r"^body\.(\d+)\.in_conv\.", lambda f: f"body.{2 * int(f[1])}.in_conv.", name))


def original_light_name(name: str) -> str:
    return name.removeprefix("adapter.").replace(".resnets.", ".body.")


CLIP_WIDTH, CLIP_PROJECTED = 32, 24


def clip_vision() -> CLIPVisionModelWithProjection:
    """As ViT-H, which has 16 heads too."""
    return randomized(CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=CLIP_WIDTH, intermediate_size=48, num_hidden_layers=3, num_attention_heads=16, image_size=224, patch_size=56,
        projection_dim=CLIP_PROJECTED, hidden_act="gelu")))


def ip_adapter(unet: UNet2DConditionModel, kind: str, seed: int = 3) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter's tensors by the original names, as diffusers takes them: kind is plain, plus or full."""
    random = torch.Generator().manual_seed(seed)
    cross, hidden = unet.config.cross_attention_dim, 40

    def weight(*shape):
        return 0.3 * torch.randn(shape, generator=random)

    def linear(name, rows, columns, *, bias=True):
        return {f"{name}.weight": weight(rows, columns)} | ({f"{name}.bias": weight(rows)} if bias else {})

    def norm(name, width):
        return {f"{name}.weight": 1 + weight(width), f"{name}.bias": weight(width)}

    if kind == "plain":
        projection = linear("proj", 4 * cross, CLIP_PROJECTED) | norm("norm", cross)
    elif kind == "full":
        projection = linear("proj.0", CLIP_WIDTH, CLIP_WIDTH) | linear("proj.2", cross, CLIP_WIDTH) | norm("proj.3", cross)
    else:
        projection = {"latents": weight(1, 5, hidden)} | linear("proj_in", hidden, CLIP_WIDTH) | linear("proj_out", cross, hidden) | norm("norm_out", cross)
        for layer in range(4):  # diffusers assumes four
            projection |= norm(f"layers.{layer}.0.norm1", hidden) | norm(f"layers.{layer}.0.norm2", hidden)
            projection |= linear(f"layers.{layer}.0.to_q", 128, hidden, bias=False) | linear(f"layers.{layer}.0.to_kv", 256, hidden, bias=False)
            projection |= linear(f"layers.{layer}.0.to_out", hidden, 128, bias=False) | norm(f"layers.{layer}.1.0", hidden)
            projection |= linear(f"layers.{layer}.1.1", 4 * hidden, hidden, bias=False) | linear(f"layers.{layer}.1.3", hidden, 4 * hidden, bias=False)
    layers = {}
    for index, (name, processor) in enumerate(unet.attn_processors.items()):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            layers |= {f"{index}.to_{part}_ip.weight": weight(width, cross) for part in ("k", "v")}
    return {"image_proj": projection, "ip_adapter": layers}


def flat(tensors: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """As in a file."""
    return {f"{part}.{name}": tensor for part, inner in tensors.items() for name, tensor in inner.items()}

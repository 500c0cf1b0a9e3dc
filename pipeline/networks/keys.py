"""What the tensors of a network file are called, and which layer of a model each is for.

Four ways of naming are in use: kohya's `lora_unet_down_blocks_0_…` with underscores throughout, the original
checkpoint's `input_blocks_1_1_…` inside it, diffusers' and PEFT's dotted names with their own endings, and `clip_l.…` and
`clip_g.…` for text encoders.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

PARTS = {  # canonical name: how a tensor's name may end
    "up": ("lora_up.weight", "lora_B.weight", "lora.up.weight", "lora_linear_layer.up.weight"),
    "down": ("lora_down.weight", "lora_A.weight", "lora.down.weight", "lora_linear_layer.down.weight"),
    "mid": ("lora_mid.weight",),
    "alpha": ("alpha", "lora.alpha", "lora_linear_layer.alpha"),
    "magnitude_vector": ("lora_magnitude_vector", "lora_magnitude_vector.weight"),
    "a1": ("a1.weight",), "a2": ("a2.weight",), "b1": ("b1.weight",), "b2": ("b2.weight",),
    **{name: (name,) for name in (
        "scale", "dora_scale", "bias", "bias_indices", "bias_values", "bias_size",
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2",
        "weight", "on_input", "diff", "diff_b", "w_norm", "b_norm", "oft_blocks", "oft_diag", "rescale")},
}
_PART_OF = {ending: part for part, endings in PARTS.items() for ending in endings}
_NAME = re.compile(r"(.+?)\.(" + "|".join(map(re.escape, sorted(_PART_OF, key=len, reverse=True))) + ")")
_ATTENTION_PROCESSOR = re.compile(r"(?:processor\.)?(to_[qkv]|to_out)_lora\.")

COMPONENTS = {  # how a layer's name begins, behind "lora_" and the like: the component of the model
    "unet": "unet", "diffusion_model": "unet", "model_diffusion_model": "unet",
    "text_encoder_2": "text_encoder_2", "te2": "text_encoder_2",
    "text_encoder": "text_encoder", "te1": "text_encoder", "te": "the only text encoder",
    # OneTrainer's, the standard of the Open Model Initiative; ComfyUI's where it saves a LoRA
    **{f"{start}{tower}": component for start in ("", "text_encoders_")
       for tower, component in (("clip_l", "text_encoder"), ("clip_h", "text_encoder"), ("clip_g", "text_encoder_2"))},
}
_LAYER = re.compile(rf"(?:base_model_model_)?(?:(?:lora|lycoris|oft)_)?(?:({'|'.join(COMPONENTS)})_)?(.+)")


def split_name(name: str) -> tuple[str, str] | None:
    """(layer, part) of a tensor's name, the layer with underscores only; None for what belongs to no layer."""
    name = _ATTENTION_PROCESSOR.sub(r"\1.lora.", name.replace(".default", "")).replace("to_out.lora.", "to_out.0.lora.")
    match = _NAME.fullmatch(name)
    return (match[1].replace(".", "_"), _PART_OF[match[2]]) if match else None


@dataclass(frozen=True)
class Layer:
    """A module of a model whose weights a network can change; the same one under all its names."""

    component: str
    """unet, text_encoder or text_encoder_2."""
    module: nn.Module

    @property
    def is_text_encoder(self) -> bool:
        return self.component != "unet"


class LayerNames:
    """The layers of a model by every name that files use for them."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        """modules: the UNet and text encoders under diffusers' names, with modules called as in diffusers and transformers."""
        self._layers = {component: {name: Layer(component, module) for name, module in named_layers(component, model)}
                        for component, model in modules.items() if component != "vae"}

    def find(self, layer: str) -> Layer | None:
        """The layer of this name, as split_name() gives it."""
        prefix, name = _LAYER.fullmatch(layer).groups()
        component = self._component(prefix)
        return self._layers.get(component, {}).get(name if component == "unet" else text_encoder_name(name))

    def _component(self, prefix: str | None) -> str:
        component = COMPONENTS[prefix or "unet"]
        if component != "the only text encoder":
            return component
        # A1111: a network for a single text encoder does not act on the two of SDXL
        encoders = [name for name in self._layers if name != "unet"]
        return encoders[0] if len(encoders) == 1 else ""


def named_layers(component: str, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every module with a weight, once for each name that it has."""
    original = OriginalNames(model) if component == "unet" else None
    for path, module in model.named_modules():
        if not isinstance(getattr(module, "weight", None), Tensor):
            continue
        if original is None:
            yield text_encoder_name(path.replace(".", "_")), module
        else:
            yield path.replace(".", "_"), module
            yield original.of(path), module


_RESBLOCK = re.compile(r"(?:model_)?(?:transformer_)?resblocks_(\d+_)(.+)")
_OPENCLIP = {"mlp_c_fc": "mlp_fc1", "mlp_c_proj": "mlp_fc2", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
_OLD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out_0": "out_proj"}


def text_encoder_name(name: str) -> str:
    """transformers' name, with underscores, of a layer that may be called as in OpenCLIP or old diffusers."""
    name = name.removeprefix("transformer_").removeprefix("text_model_")
    if match := _RESBLOCK.fullmatch(name):
        inner = match[2].replace("attn_", "self_attn_", 1) if match[2].startswith("attn_") else match[2]
        return f"encoder_layers_{match[1]}{_OPENCLIP.get(inner, inner)}"
    head, attention, projection = name.rpartition("self_attn_")
    return head + attention + _OLD_ATTENTION.get(projection, projection)


_IN_RESNET = {"conv1": "in_layers.2", "conv2": "out_layers.3", "norm1": "in_layers.0", "norm2": "out_layers.0",
              "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
_OUTSIDE_BLOCKS = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
                   "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
                   "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
                   "class_embedding.linear_1": "label_emb.0.0", "class_embedding.linear_2": "label_emb.0.2",
                   "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
                   "mid_block.resnets.1": "middle_block.2"}
_UNET_PATH = re.compile(r"(.+?\.(?:resnets|attentions|downsamplers|upsamplers)\.\d+|[^.]+(?:\.linear_\d)?)(?:\.(.+))?")


class OriginalNames:
    """What the original Stable Diffusion code calls the modules of a diffusers UNet, of any depth."""

    def __init__(self, unet: nn.Module):
        self._blocks = dict(_OUTSIDE_BLOCKS)
        number = 1
        for i, block in enumerate(unet.down_blocks):
            for j in range(len(block.resnets)):
                self._blocks[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
                self._blocks[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
                number += 1
            if block.downsamplers:
                self._blocks[f"down_blocks.{i}.downsamplers.0"] = f"input_blocks.{number}.0"
                number += 1
        number = 0
        for i, block in enumerate(unet.up_blocks):
            for j in range(len(block.resnets)):
                self._blocks[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
                self._blocks[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
                number += 1
            place = 2 if getattr(block, "attentions", None) else 1
            self._blocks[f"up_blocks.{i}.upsamplers.0"] = f"output_blocks.{number - 1}.{place}"

    def of(self, path: str) -> str:
        """The name of the module at this dotted path, with underscores."""
        block, inner = _UNET_PATH.fullmatch(path).groups()
        name = self._blocks.get(block, block)
        if inner:
            inner = inner.replace("conv", "op", 1) if ".downsamplers." in block else inner
            name += "." + (_IN_RESNET.get(inner, inner) if ".resnets." in block else inner)
        return name.replace(".", "_")

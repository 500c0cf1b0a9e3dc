"""The layers of Stable Diffusion's networks under all names that LoRA files use."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from pipeline.families.base import Layer

COMPONENTS = {  # prefix of a layer's name, after "lora_" and the like: component of the model
    "unet": "unet", "diffusion_model": "unet", "model_diffusion_model": "unet",
    "text_encoder_2": "text_encoder_2", "te2": "text_encoder_2",
    "text_encoder": "text_encoder", "te1": "text_encoder", "te": "the only text encoder",
    # OneTrainer's, the standard of the Open Model Initiative; ComfyUI's, when it saves a LoRA
    **{f"{start}{tower}": component for start in ("", "text_encoders_")
       for tower, component in (("clip_l", "text_encoder"), ("clip_h", "text_encoder"), ("clip_g", "text_encoder_2"))},
}
_LAYER = re.compile(rf"(?:base_model_model_)?(?:(?:lora|lycoris|oft)_)?(?:({'|'.join(COMPONENTS)})_)?(.+)")


class LayerNames:
    """Finds the layers of a Stable Diffusion model by any of their names."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        """modules: the UNet and text encoders, named as in diffusers; their modules as in diffusers and transformers."""
        self._layers = {component: {name: Layer(module, is_text_encoder=component != "unet")
                                    for name, module in named_layers(component, model)}
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
    """(name, module) for every module with a weight, once per name."""
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
    """transformers' name, with underscores, of a layer named as in OpenCLIP or old diffusers."""
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
    """The original Stable Diffusion code's names for the modules of a diffusers UNet, of any depth."""

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

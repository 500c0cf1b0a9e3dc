"""Qwen2.5-VL as a text encoder that also sees pictures: the last hidden state of a model that reads prompt and pictures as a message.

Its words are Qwen3's.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import Part, Stored, count, shape
from pipeline.families.cond import Encoding
from pipeline.families.configs import PartKind
from pipeline.families.plain_text import PlainText
from pipeline.families.qwen3 import TOKENIZER
from pipeline.weights import Weights

HEAD, VISION_HEAD = 128, 80
"""Numbers of an attention head, which tensors do not show; those of all published sizes."""
ROTATIONS = [16, 24, 24]
"""Of a head's pairs: by time, row and column."""
WHOLE = 8
"""Each so many layers of its eye, one sees all of a picture; the others see windows."""
PICTURE, BEFORE, AFTER = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
PICTURE_TOKEN = 151655
MERGED = 4
"""Patches of a picture per token."""
LARGE = configs.whole(1, 1 << 18)

RULES = {
    "vocab_size": configs.whole(PICTURE_TOKEN + 1, 1 << 20), "hidden_size": configs.width, "intermediate_size": LARGE,
    "num_hidden_layers": configs.whole(1, 128), "num_attention_heads": configs.whole(1, 1024), "num_key_value_heads": configs.whole(1, 1024),
    "vision_depth": configs.whole(1, 128), "vision_hidden_size": configs.width, "vision_intermediate_size": LARGE,
}


def build(config: dict[str, Any]) -> nn.Module:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding, Qwen2_5_VLVisionRotaryEmbedding

    text = {name: value for name, value in config.items() if not name.startswith("vision_")}
    depth, hidden = config["vision_depth"], config["vision_hidden_size"]
    full = Qwen2_5_VLConfig(
        text_config=text | {"rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": ROTATIONS}},
        vision_config={"depth": depth, "hidden_size": hidden, "intermediate_size": config["vision_intermediate_size"], "num_heads": hidden // VISION_HEAD,
                       "out_hidden_size": config["hidden_size"], "fullatt_block_indexes": list(range(WHOLE - 1, depth, WHOLE))},
        image_token_id=PICTURE_TOKEN)
    model = Qwen2_5_VLModel(full)
    with torch.device("cpu"):  # files do not hold these numbers
        model.language_model.rotary_emb = Qwen2_5_VLRotaryEmbedding(full.text_config)
        model.visual.rotary_pos_emb = Qwen2_5_VLVisionRotaryEmbedding(full.vision_config)
    return model


KIND = PartKind(RULES, build)


def read_from(weights: Weights, prefix: str = "") -> Part | None:
    """The text encoder whose tensors have this prefix; None if there is none. Raises ModelError."""
    tensors = {named(name.removeprefix(prefix)): Stored(weights, name) for name in weights if name.startswith(prefix)}
    if "language_model.layers.0.self_attn.q_proj.bias" not in tensors or "visual.patch_embed.proj.weight" not in tensors:
        return None
    return of_tensors(weights.path, tensors)


def named(name: str) -> str:
    """A tensor's name in transformers' Qwen2_5_VLModel, by the names of all its versions."""
    name = re.sub(r"^model\.(?=language_model\.|visual\.)", "", name)
    return re.sub(r"^model\.", "language_model.", name)


def read_text_encoder(path: Path) -> dict[str, Part]:
    """The text encoder in its own file, as a Layout reads it. Raises ModelError."""
    part = read_from(weights := Weights(path))
    if part is None and "model.layers.0.self_attn.q_proj.bias" in weights:
        raise ModelError(f'"{weights.path.name}" is the part of Qwen2.5-VL that reads words, without the one that sees; '
                         "use the whole model as safetensors")
    if part is None:
        raise ModelError(f'"{weights.path.name}" is not a Qwen2.5-VL text encoder: it lacks "visual.patch_embed.proj.weight" or '
                         '"model.layers.0.self_attn.q_proj.bias"')
    return {"text_encoder": part}


def of_folder(part: Part) -> Part:
    """The text encoder in a diffusers folder."""
    tensors = {named(name): stored for name, stored in part.tensors.items()}
    return of_tensors(next(iter(part.tensors.values())).weights.path, tensors)


def of_tensors(path: Path, tensors: dict[str, Stored]) -> Part:
    """With the config of the model that has these tensors."""
    def rows(name: str, axis: int = 0) -> int:
        return shape(path, tensors, name)[axis]

    layer, block = "language_model.layers.0.", "visual.blocks.0."
    return Part({
        "vocab_size": rows("language_model.embed_tokens.weight"), "hidden_size": rows("language_model.embed_tokens.weight", 1),
        "intermediate_size": rows(f"{layer}mlp.gate_proj.weight"), "num_hidden_layers": count(tensors, r"language_model\.layers\.(\d+)\."),
        "num_attention_heads": rows(f"{layer}self_attn.q_proj.weight") // HEAD,
        "num_key_value_heads": rows(f"{layer}self_attn.k_proj.weight") // HEAD,
        "vision_depth": count(tensors, r"visual\.blocks\.(\d+)\."), "vision_hidden_size": rows("visual.patch_embed.proj.weight"),
        "vision_intermediate_size": rows(f"{block}mlp.gate_proj.weight"),
    }, {name: stored for name, stored in tensors.items() if name != "lm_head.weight"})


class Qwen25VlTextEncoder(PlainText):
    """A transformers Qwen2_5_VLModel that encodes one prompt at a time. longest: tokens of a prompt that the network takes."""

    name = "qwen2.5-vl"

    def __init__(self, model: nn.Module, *, longest: int):
        super().__init__(TOKENIZER, longest)
        self.model, self.width = model, model.config.text_config.hidden_size

    def encode(self, text: str, template: str, pictures: Sequence[Tensor], how: Encoding) -> Tensor:
        """(tokens, width) float32: of the prompt, and of what the template has after the instruction to the model.

        template: the message, with {} in place of the prompt. pictures: each (1, 3, h, w) in [-1, 1]. Raises InvalidRequest
        for too long a prompt.
        """
        self._check_length(self.count(text, how), how)
        patches, grids = self._patches(pictures)
        shown = "".join(f"Picture {number}: {BEFORE}{PICTURE * (int(grid.prod()) // MERGED)}{AFTER}" for number, grid in enumerate(grids, 1))
        before, _, _ = template.partition("{}")
        device = self.model.language_model.rotary_emb.inv_freq.device
        ids = torch.tensor([self._ids(before) + self._ids(shown) + self._ids(text) + self._ids(template.partition("{}")[2])], device=device)
        # each token sees those before it; without a mask transformers looks for several texts in one, waiting for the device
        before_it = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool, device=device).tril()
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": before_it}
        if len(pictures):
            grids = grids.to(device)
            places, _ = self.model.get_rope_index(ids, (ids == PICTURE_TOKEN).int(), image_grid_thw=grids)
            inputs |= {"pixel_values": patches.to(device, self.model.dtype), "image_grid_thw": grids, "position_ids": places}
        states = self.model(**inputs, use_cache=False).last_hidden_state[0]
        instruction = len(self._ids(before.rpartition("<|im_start|>user\n")[0])) + len(self._ids("<|im_start|>user\n"))
        return states[instruction:].float()

    def _patches(self, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(patches of all pictures, (N, 3) how many in time, of rows and of columns)."""
        if not len(pictures):
            return torch.zeros(0), torch.zeros(0, 3, dtype=torch.long)
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        images = [Image.fromarray(np.round((picture[0].float().cpu().numpy().transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)) for picture in pictures]
        made = Qwen2VLImageProcessorPil()(images=images, return_tensors="pt")
        return made["pixel_values"], made["image_grid_thw"]

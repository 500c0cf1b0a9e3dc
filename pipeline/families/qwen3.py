"""Qwen3 as a text encoder: the hidden states of a language model that reads the prompt as a message to it.

Such encoders know no weights: brackets are text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.families import configs
from pipeline.families.checkpoint import Part, Stored, count, shape
from pipeline.families.cond import Encoding
from pipeline.families.configs import PartKind
from pipeline.families.plain_text import PlainText
from pipeline.weights import Weights

TOKENIZER = Path(__file__).parents[2] / "assets" / "tokenizers" / "qwen3" / "tokenizer.json.gz"
PADDING = 151643
"""The token <|endoftext|>."""

RULES = {  # those arguments of transformers' Qwen3Config that change what is computed
    "vocab_size": configs.whole(2, 1 << 20),
    "hidden_size": configs.width,
    "intermediate_size": configs.whole(1, 1 << 18),
    "num_hidden_layers": configs.whole(1, 128),
    "num_attention_heads": configs.whole(1, 1024),
    "num_key_value_heads": configs.whole(1, 1024),
    "head_dim": configs.whole(2, 1024),
    "hidden_act": configs.one_of("silu"),
    "rms_norm_eps": configs.norm_eps,
    "rope_theta": configs.number(1, 1e9),
    "attention_bias": configs.flag,
}


def build(config: dict[str, Any]) -> nn.Module:
    from transformers import Qwen3Config, Qwen3Model
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    rotations = {"rope_type": "default", "rope_theta": config.get("rope_theta", 1e6)}
    full = Qwen3Config(**{name: value for name, value in config.items() if name != "rope_theta"}, rope_parameters=rotations)
    model = Qwen3Model(full)
    with torch.device("cpu"):  # files do not hold these numbers
        model.rotary_emb = Qwen3RotaryEmbedding(full)
    return model


KIND = PartKind(RULES, build)


def read_from(weights: Weights, prefix: str = "") -> Part | None:
    """The text encoder whose tensors have this prefix; None if there is none. Raises ModelError."""
    start = next((start for start in (prefix + "model.", prefix) if start + "layers.0.self_attn.q_norm.weight" in weights), None)
    if start is None:
        return None
    return of_tensors(weights.path, {name.removeprefix(start): Stored(weights, name) for name in weights if name.startswith(start)})


def read_text_encoder(path: Path) -> dict[str, Part]:
    """The text encoder in its own file, as a Layout reads it. Raises ModelError."""
    part = read_from(weights := Weights(path))
    if part is None:
        raise ModelError(f'"{weights.path.name}" is not a Qwen3 text encoder: it has no tensor "model.layers.0.self_attn.q_norm.weight"')
    return {"text_encoder": part}


def of_folder(part: Part) -> Part:
    """The text encoder in a diffusers folder, which may hold a model with an output layer."""
    tensors = {name.removeprefix("model."): stored for name, stored in part.tensors.items() if name != "lm_head.weight"}
    rotations = part.config.get("rope_parameters")
    theta = {"rope_theta": rotations["rope_theta"]} if isinstance(rotations, dict) and "rope_theta" in rotations else {}
    return Part(part.config | theta, tensors)


def of_tensors(path: Path, tensors: dict[str, Stored]) -> Part:
    """With the config of transformers' Qwen3Model that has these tensors."""
    def rows(name: str, axis: int = 0) -> int:
        return shape(path, tensors, name)[axis]

    head = rows("layers.0.self_attn.q_norm.weight")
    return Part({
        "vocab_size": rows("embed_tokens.weight"), "hidden_size": rows("embed_tokens.weight", 1),
        "intermediate_size": rows("layers.0.mlp.gate_proj.weight"), "num_hidden_layers": count(tensors, r"layers\.(\d+)\."),
        "num_attention_heads": rows("layers.0.self_attn.q_proj.weight") // head,
        "num_key_value_heads": rows("layers.0.self_attn.k_proj.weight") // head, "head_dim": head,
    }, {name: stored for name, stored in tensors.items() if name != "lm_head.weight"})


class Qwen3TextEncoder(PlainText):
    """A transformers Qwen3Model that encodes one prompt at a time.

    template: the message to the model, with {} in place of the prompt. longest: tokens that the network takes.
    layers: the hidden states to take, side by side: 0 are the tokens' vectors. padded: whether to fill up to `longest`.
    """

    name = "qwen3"

    def __init__(self, model: nn.Module, *, template: str, layers: Sequence[int], longest: int, padded: bool = False):
        super().__init__(TOKENIZER, longest)
        self.model = model
        self.width = model.config.hidden_size * len(layers)
        self._template, self._layers, self._padded = template, layers, padded

    def encode(self, text: str, how: Encoding) -> Tensor:
        """(tokens, width) float32. Raises InvalidRequest for too long a prompt."""
        ids = self._ids(self._template.format(text))
        self._check_length(len(ids), how)
        # where it computes: its weights may be in main memory until then, its buffers never are
        length = self._longest if self._padded else len(ids)
        tokens = torch.tensor([ids + [PADDING] * (length - len(ids))], device=self.model.rotary_emb.inv_freq.device)
        # each token sees those before it; without a mask transformers looks for several texts in one, waiting for the device
        before = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens.device).tril()
        before[..., len(ids):] = False
        output = self.model(tokens, attention_mask=before, output_hidden_states=True, use_cache=False)
        return torch.cat([output.hidden_states[layer][0] for layer in self._layers], dim=-1).float()

"""T5 v1.1's encoder as a text encoder: features of a prompt's tokens, in padding too.

It knows no weights of words: brackets are text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.families import configs
from pipeline.families.checkpoint import Part, Stored, count, shape
from pipeline.families.cond import Encoding
from pipeline.families.configs import PartKind
from pipeline.families.plain_text import PlainText
from pipeline.weights import Weights

TOKENIZER = Path(__file__).parents[2] / "assets" / "tokenizers" / "t5" / "tokenizer.json.gz"
PADDING = 0
"""The token <pad>."""
FIRST = "encoder.block.0.layer.0.SelfAttention.q.weight"
"""A tensor by which a file is recognised."""
WORDS = ("shared.weight", "encoder.embed_tokens.weight", "model.embed_tokens.weight")
"""Names of the vectors of words: transformers' two, and that of GGUF files, where all models have one name for them."""

RULES = {  # those arguments of transformers' T5Config that change what is computed
    "vocab_size": configs.whole(2, 1 << 20),
    "d_model": configs.width,
    "d_kv": configs.whole(1, 1024),
    "d_ff": configs.whole(1, 1 << 18),
    "num_layers": configs.whole(1, 128),
    "num_heads": configs.whole(1, 1024),
    "relative_attention_num_buckets": configs.whole(2, 1024),
    "relative_attention_max_distance": configs.whole(2, 1 << 16),
    "layer_norm_epsilon": configs.norm_eps,
    "feed_forward_proj": configs.one_of("gated-gelu"),
}


def build(config: dict[str, Any]) -> nn.Module:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    # the encoder by itself: T5EncoderModel would hold its words' vectors twice
    return T5Stack(T5Config(**{"feed_forward_proj": "gated-gelu"} | config, is_decoder=False, is_encoder_decoder=False, use_cache=False))


KIND = PartKind(RULES, build)


def read_from(weights: Weights, prefix: str = "") -> Part | None:
    """The text encoder whose tensors have this prefix; None if there is none. Raises ModelError."""
    if prefix + FIRST not in weights:
        return None
    tensors = encoder_only({name.removeprefix(prefix): Stored(weights, name) for name in weights if name.startswith(prefix)})

    def rows(name: str, axis: int = 0) -> int:
        return shape(weights.path, tensors, name)[axis]

    buckets, heads = shape(weights.path, tensors, "block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    return Part({
        "vocab_size": rows("embed_tokens.weight"), "d_model": rows("embed_tokens.weight", 1),
        "d_kv": rows("block.0.layer.0.SelfAttention.q.weight") // heads, "d_ff": rows("block.0.layer.1.DenseReluDense.wi_0.weight"),
        "num_layers": count(tensors, r"block\.(\d+)\."), "num_heads": heads, "relative_attention_num_buckets": buckets}, tensors)


def of_folder(part: Part) -> Part:
    """The text encoder in a diffusers folder."""
    return Part(part.config, encoder_only(part.tensors))


def encoder_only(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """By name in the encoder; a file may hold the vectors of words twice, and the decoder too."""
    words = next((name for name in WORDS if name in tensors), None)
    kept = {name.removeprefix("encoder."): stored for name, stored in tensors.items()
            if name not in WORDS and not name.startswith(("decoder.", "lm_head."))}
    return kept | ({"embed_tokens.weight": tensors[words]} if words else {})


class T5TextEncoder(PlainText):
    """A transformers T5Stack that encodes prompts of up to `longest` tokens, and pads shorter ones to that."""

    name = "t5xxl"

    def __init__(self, model: nn.Module, *, longest: int):
        super().__init__(TOKENIZER, longest)
        self.model, self.width = model, model.config.d_model

    def encode(self, texts: Sequence[str], how: Encoding) -> Tensor:
        """(len(texts), longest, width) float32. Raises InvalidRequest for too long a prompt."""
        listed = [self._tokenizer.encode(text).ids for text in texts]
        self._check_length(max(map(len, listed)), how)
        tokens = torch.tensor([ids + [PADDING] * (self._longest - len(ids)) for ids in listed], device=self.model.device)
        return self.model(input_ids=tokens).last_hidden_state.float()

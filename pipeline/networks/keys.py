"""Splits tensor names of network files into layer and part; a family's layers() knows the layers.

Four naming schemes are in use: kohya's `lora_unet_down_blocks_0_…` with underscores throughout, the original
checkpoint's `input_blocks_1_1_…` within it, diffusers' and PEFT's dotted names with their own suffixes, and `clip_l.…`
and `clip_g.…` for text encoders.
"""

import re

PARTS = {  # canonical name: suffixes of tensor names
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

def split_name(name: str) -> tuple[str, str] | None:
    """(layer, part) of a tensor's name, the layer with underscores only; None if it belongs to no layer."""
    name = _ATTENTION_PROCESSOR.sub(r"\1.lora.", name.replace(".default", "")).replace("to_out.lora.", "to_out.0.lora.")
    match = _NAME.fullmatch(name)
    return (match[1].replace(".", "_"), _PART_OF[match[2]]) if match else None

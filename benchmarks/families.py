"""Flow models against diffusers' own pipelines, and at full size: python -m benchmarks families [--only KIND].

Tiny random weights, from each layout of files: the largest difference between our latents and diffusers' at the end of a whole run, with the
same noise, levels and texts, in float32 on the CPU. Then each family's published configuration on torch's meta device, where
tensors have shapes but no memory: prompt, one call of the network at native size, decoding.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.report import table
from pipeline import families
from pipeline.families import flux1, flux2, qwen_image, z_image
from pipeline.families.base import Family, ModelInfo
from pipeline.families.checkpoint import Checkpoint, Part
from pipeline.families.cond import Encoding
from pipeline.families.placement import Placement
from pipeline.geometry import Size
from tests.families import flow_runs

QWEN3_4B = {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128}
FLUX_VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "use_quant_conv": False,
            "use_post_quant_conv": False, "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
QWEN3_8B = QWEN3_4B | {"hidden_size": 4096, "intermediate_size": 12288}
FLUX2_VAE = FLUX_VAE | {"latent_channels": 32, "use_quant_conv": True, "use_post_quant_conv": True}
KLEIN = {"in_channels": 128, "attention_head_dim": 128, "axes_dims_rope": [32] * 4, "guidance_embeds": False}
CLIP_L = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
          "max_position_embeddings": 77, "hidden_act": "quick_gelu"}
T5_XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
FLUX1 = {"transformer": {"in_channels": 64, "guidance_embeds": True}, "text_encoder": CLIP_L, "text_encoder_2": T5_XXL, "vae": FLUX_VAE}
QWEN25_VL_7B = {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
                "num_key_value_heads": 4, "vision_depth": 32, "vision_hidden_size": 1280, "vision_intermediate_size": 3420}
QWEN_IMAGE = {"transformer": {"num_layers": 60}, "text_encoder": QWEN25_VL_7B, "vae": {"base_dim": 96}}
PUBLISHED = {  # family: the configs of its published models, by part
    "z-image": {"transformer": {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30, "cap_feat_dim": 2560,
                                "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]},
                "text_encoder": QWEN3_4B, "vae": FLUX_VAE},
    "qwen-image": QWEN_IMAGE, "qwen-image edit 2511": QWEN_IMAGE | {"transformer": {"num_layers": 60, "zero_cond_t": True}},
    "flux1-dev": FLUX1, "flux1-schnell": FLUX1 | {"transformer": {"in_channels": 64}},
    "flux1-fill": FLUX1 | {"transformer": {"in_channels": 384, "out_channels": 64, "guidance_embeds": True}}, "flux1-kontext": FLUX1,
    "flux2-klein": {"transformer": KLEIN | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
                    "text_encoder": QWEN3_4B, "vae": FLUX2_VAE},
    "flux2-klein 9B": {"transformer": KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
                       "text_encoder": QWEN3_8B, "vae": FLUX2_VAE},
}


LOADED = {"z-image": z_image.ZImage, "qwen-image": qwen_image.QwenImage, "flux2-klein": lambda checkpoint, *rest: flux2.Klein(*rest),
          **{facts.name: partial(flux1.Flux1, facts) for facts in (flux1.DEV, flux1.SCHNELL, flux1.FILLING, flux1.KONTEXT)}}


def compare(kinds: list[str]) -> None:
    rows = []
    for name in kinds:
        with tempfile.TemporaryDirectory() as place:
            kind = flow_runs.KINDS[name]
            files = kind.make(Path(place))
            for layout in flow_runs.LAYOUTS:
                model = flow_runs.load(files, layout)
                rows += [[name, use, layout, f"{flow_runs.difference(kind, files, model, use):.1e}"] for use in kind.uses]
    print(table(["family", "use", "files", "largest difference"], rows))


@torch.inference_mode()
def at_full_size(name: str) -> list[str]:
    """A row: the family, billions of numbers in each part, tokens of a prompt and shape of a latent."""
    family, latent, cond = run_at_full_size(name)
    sizes = {part: sum(weight.numel() for name, module in family._modules.items() if name.startswith(part) for weight in module.parameters())
             for part in ("transformer", "text_encoder", "vae")}
    return [name, *(f"{size / 1e9:.2f}" for size in sizes.values()), str(tuple(cond.tokens.shape)), str(tuple(latent.shape))]


def run_at_full_size(name: str) -> tuple:
    """(the family, its latent, its conditioning) after a prompt, a call, and decoding."""
    family = full_size(name)
    size, meta = families.FAMILIES[family.name].facts.native_size, family.placement.device
    cond = family.encode_prompts(["a red fox in the snow"], Encoding(size=Size(size, size)))
    pixels = torch.zeros(1, 3, size, size, device=meta)
    latent = family.encode_image(pixels)
    output = family.denoise(latent, torch.ones(1, device=meta) * 0.5, cond, family.image_conditioning(pixels, latent, None, mask_weight=1.0))
    if output.shape != latent.shape or family.decode(output).shape != pixels.shape:
        raise ValueError(f"{name}: shapes differ")
    return family, latent, cond


def full_size(name: str) -> Family:
    """A model of PUBLISHED on the meta device."""
    row, meta = families.FAMILIES[name.partition(" ")[0]], torch.device("meta")
    checkpoint = Checkpoint(Path(name), {part: Part(config, {}) for part, config in PUBLISHED[name].items()},
                            edits="edit" in name or row.facts is flux1.KONTEXT)
    with meta:
        modules: dict[str, nn.Module] = {part: row.facts.parts[part].build(config) for part, config in PUBLISHED[name].items()}
    for module in modules.values():
        module.requires_grad_(False).eval().to(torch.bfloat16)
    modules["vae"].float()
    return LOADED[row.facts.name](checkpoint, modules, ModelInfo(name, name), Placement(meta, torch.bfloat16, torch.float32))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks families", description=__doc__.partition(":")[0])
    parser.add_argument("--only", choices=flow_runs.KINDS, help="one family")
    only = parser.parse_args().only
    kinds = [only] if only else list(flow_runs.KINDS)
    compare(kinds)
    print()
    print(table(["family", "transformer, billions", "text encoders", "VAE", "prompt", "latent"],
                [at_full_size(name) for name in PUBLISHED if name.partition(" ")[0] in kinds]))


if __name__ == "__main__":
    main()

"""FLUX.1's autoencoder, which Z-Image uses too: 16 channels, scaled and shifted."""

from dataclasses import replace

from pipeline.families import sd
from pipeline.families.base import Separate
from pipeline.families.checkpoint import Checkpoint, Part
from pipeline.families.latents import LatentFormat

CHANNELS = 16
RGB_FACTORS = (
    (-0.0412, 0.0149, 0.0521), (0.0056, 0.0291, 0.0768), (0.0342, -0.0681, -0.0427), (-0.0258, 0.0092, 0.0463),
    (0.0863, 0.0784, 0.0547), (-0.0017, 0.0402, 0.0158), (0.0501, 0.1058, 0.1152), (-0.0209, -0.0218, -0.0329),
    (-0.0314, 0.0083, 0.0896), (0.0851, 0.0665, -0.0472), (-0.0534, 0.0238, -0.0024), (0.0452, -0.0026, 0.0048),
    (0.0892, 0.0831, 0.0881), (-0.1117, -0.0304, -0.0789), (0.0027, -0.0479, -0.0043), (-0.1146, -0.0827, -0.0598))
"""A linear fit from FLUX.1's latents to RGB in [-1, 1], public since 2024."""
LATENT = LatentFormat(channels=CHANNELS, scale=0.3611, shift=0.1159, rgb_factors=RGB_FACTORS, tiny="taef1")
KIND = sd.PARTS["vae"]


def suits(checkpoint: Checkpoint, part: Part) -> bool:
    levels = part.config.get("block_out_channels")
    return part.config.get("latent_channels") == CHANNELS and isinstance(levels, list) and 2 ** (len(levels) - 1) == LATENT.downscale


SEPARATE = Separate("FLUX.1's VAE (ae.safetensors)", "models/VAE", suits)


def latent_format(checkpoint: Checkpoint) -> LatentFormat:
    """With the scale and shift that a diffusers folder says."""
    shift = checkpoint.config("vae").get("shift_factor")
    return replace(LATENT, scale=checkpoint.latent_scale or LATENT.scale, shift=LATENT.shift if shift is None else shift)

"""Trains the tiny autoencoder, whose decoder shows previews of the demo model as TAESD does for Stable Diffusion.

It learns from pictures/ and their latents/ in the work folder to go both ways between the two; keeps tiny.pt.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from tools.demo_model.bank import Pictures
from tools.demo_model.draw import drawn, pick_device, to_tensor
from tools.demo_model.encode import latents_folder, means
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.train_autoencoder import UNSEEN_SEED, decibels, distance, trained_autoencoder
from tools.demo_model.training import Course, course_options, half_precision

CROP = 12
"""Side of the latents' parts that it learns from; the pictures' parts are eight times as large."""


def new_tiny() -> AutoencoderTiny:
    return AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4,
                           num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(2, 2, 2, 1))


class Pairs:
    """Parts of the bank's pictures with the same parts of their latents."""

    def __init__(self, work: Path) -> None:
        folder, self.pictures = latents_folder(work, 256), Pictures(work)
        self.scaling_factor = torch.load(folder / "about.pt")["scaling_factor"]
        self.latents = torch.cat([torch.load(path)["clean"] for path in sorted(folder.glob("[0-9]*.pt"))])

    def draw(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pictures (count, 3, 8 * CROP, 8 * CROP) in [-1, 1] and latents (count, 4, CROP, CROP) at model scale."""
        parts = []
        for number in random.integers(len(self.latents), size=count):
            y, x = random.integers(self.latents.shape[-1] - CROP + 1, size=2)
            picture = self.pictures[number][8 * y:8 * (y + CROP), 8 * x:8 * (x + CROP)]
            parts.append((picture, self.latents[number, :, y:y + CROP, x:x + CROP]))
        pictures, latents = zip(*parts)
        return to_tensor(np.stack(pictures)), torch.stack(latents).float() * self.scaling_factor


def tiny_loss(tiny: AutoencoderTiny, pictures: Tensor, latents: Tensor) -> Tensor:
    """How far its pictures are from the pictures, and its latents from the latents."""
    with half_precision(pictures.device):
        made, found = tiny.decode(latents).sample, tiny.encode(pictures).latents
    return distance(made.float(), pictures) + F.mse_loss(found.float(), latents)


def trained_tiny(work: Path, device: torch.device) -> AutoencoderTiny:
    """The tiny autoencoder with its averaged weights."""
    tiny = new_tiny().to(device).eval().requires_grad_(False)
    tiny.load_state_dict(torch.load(work / "tiny.pt", map_location=device)["ema"])
    return tiny


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    course_options(parser, minutes=15, rate=1.5e-3, batch=8, seed=6)
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    tiny, pairs = new_tiny().to(device).to(memory_format=torch.channels_last), Pairs(args.work)
    unseen = drawn(sample_scenes(16, UNSEEN_SEED), 256).to(device)
    encoded = means(trained_autoencoder(args.work, device), unseen).to(device) * pairs.scaling_factor

    def report() -> str:
        made = trained_tiny(args.work, device).decode(encoded).sample
        return f"unseen {decibels(made, unseen):.2f} dB"

    Course(args.work / "tiny.pt", tiny, args, device).run(
        lambda random: tuple(part.to(device) for part in pairs.draw(args.batch, random)),
        lambda pictures, latents: tiny_loss(tiny, pictures, latents), report)


if __name__ == "__main__":
    main()

"""Encodes the bank for the UNet: each picture, the same with a part masked out, and the mask.

Reads pictures/ and autoencoder.pt in the work folder; writes latents/NUMBER.pt for each file of pictures, and
latents/about.pt. Files that were made with the same encoder are kept.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from tools.demo_model.bank import Pictures
from tools.demo_model.draw import CHUNK, pick_device, to_tensor
from tools.demo_model.masks import mask_of
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.training import half_precision, log, save


def fingerprint(model: AutoencoderKL) -> float:
    """A number that is another for another encoder."""
    states = model.encoder.state_dict() | model.quant_conv.state_dict()
    return sum(float(value.double().abs().sum()) for value in states.values())


@torch.no_grad()
def means(model: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The posterior means of pictures (B, 3, H, W) in [-1, 1]: (B, 4, h, w), unscaled."""
    with half_precision(pictures.device):
        parts = [model.encode(part.contiguous(memory_format=torch.channels_last)).latent_dist.mean
                 for part in pictures.split(20)]
    return torch.cat(parts).float().cpu()


def encode_chunk(model: AutoencoderKL, pictures: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """`clean` and `masked` (N, 4, h, w) fp16 unscaled; `mask` (N, 1, h, w) bool, True where the picture is made anew.

    As A1111 prepares them for inpainting models: the masked part is mid grey, the mask is shrunk without smoothing.
    """
    small = F.interpolate(masks.float(), scale_factor=1 / 8, mode="nearest").bool()
    return dict(clean=means(model, pictures).half(), masked=means(model, pictures * ~masks).half(), mask=small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scenes-seed", type=int, default=1, help="the seed that the bank was drawn with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, folder = pick_device(args.device), args.work / "latents"
    folder.mkdir(exist_ok=True)
    model, pictures = trained_autoencoder(args.work, device), Pictures(args.work)
    mark, about = fingerprint(model), folder / "about.pt"
    if about.exists() and torch.load(about)["encoder"] != mark:
        for path in folder.glob("*.pt"):
            path.unlink()
    for number, chunk in enumerate(pictures.chunks):
        path = folder / f"{number:04d}.pt"
        if path.exists():
            continue
        scenes = sample_scenes(CHUNK, args.scenes_seed, first=number * CHUNK)
        masks = torch.from_numpy(np.stack([mask_of(scene, chunk.shape[1]) for scene in scenes]))[:, None]
        encoded = encode_chunk(model, to_tensor(chunk).to(device), masks.to(device))
        if number == 0:
            scale = 1 / encoded["clean"].float().std().item()
            grey = means(model, torch.zeros(1, 3, chunk.shape[1], chunk.shape[2], device=device))
            save(about, encoder=mark, scaling_factor=scale, grey=grey[0], scenes_seed=args.scenes_seed)
        save(path, **encoded)
        log(f"encoded {(number + 1) * CHUNK} pictures")


if __name__ == "__main__":
    main()

"""Encodes the bank for the UNet: each picture, its masked version, and the mask.

Reads pictures/ and autoencoder.pt in the work folder; writes latents/NUMBER.pt for each file of pictures, and
latents/about.pt; with another --size, into latents-SIZE/. Files made with the same encoder are kept.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from tools.demo_model.bank import Pictures
from tools.demo_model.draw import CHUNK, pick_device, to_tensor
from tools.demo_model.masks import masks_of
from tools.demo_model.scenes import Scene, sample_scenes
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.training import half_precision, log, save


def fingerprint(model: AutoencoderKL) -> float:
    """A number that identifies the encoder's weights."""
    states = model.encoder.state_dict() | model.quant_conv.state_dict()
    return sum(float(value.double().abs().sum()) for value in states.values())


def latents_folder(work: Path, size: int) -> Path:
    """The folder for latents of pictures of this size."""
    return work / ("latents" if size == 256 else f"latents-{size}")


@torch.no_grad()
def means(model: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The posterior means of pictures (B, 3, H, W) in [-1, 1]: (B, 4, h, w), unscaled."""
    with half_precision(pictures.device):
        parts = [model.encode(part.contiguous(memory_format=torch.channels_last)).latent_dist.mean
                 for part in pictures.split(20)]
    return torch.cat(parts).float().cpu()


def encode_chunk(model: AutoencoderKL, pictures: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """`clean` and `masked` (N, 4, h, w) fp16 unscaled; `mask` (N, 1, h, w) bool, True = regenerate.

    As A1111 prepares them for inpainting models: the masked part is mid grey, the mask is shrunk without smoothing.
    """
    small = F.interpolate(masks.float(), scale_factor=1 / 8, mode="nearest").bool()
    return dict(clean=means(model, pictures).half(), masked=means(model, pictures * ~masks).half(), mask=small)


def own_scale(model: AutoencoderKL, pictures: Tensor) -> float:
    """The factor that gives latents of these pictures a standard deviation of 1."""
    return 1 / means(model, pictures).std().item()


def write_chunk(folder: Path, number: int, model: AutoencoderKL, pictures: Tensor, scenes: list[Scene]) -> None:
    """Encode `pictures` (N, 3, H, W) in [-1, 1] of these scenes, each with its mask, into one file of a bank."""
    masks = masks_of(scenes, pictures.shape[-1]).to(pictures.device)
    save(folder / f"{number:04d}.pt", **encode_chunk(model, pictures, masks))


def write_about(folder: Path, model: AutoencoderKL, size: int, scaling_factor: float, scenes_seed: int) -> None:
    """What all files of a bank share: the encoder, the scale, the latent of mid grey, and the scenes."""
    grey = means(model, torch.zeros(1, 3, size, size, device=model.device))[0]
    save(folder / "about.pt", encoder=fingerprint(model), scaling_factor=scaling_factor, grey=grey,
         scenes_seed=scenes_seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256, help="size of the pictures, which are first shrunk to it")
    parser.add_argument("--scenes-seed", type=int, default=1, help="the seed that the bank was drawn with")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, folder = pick_device(args.device), latents_folder(args.work, args.size)
    folder.mkdir(exist_ok=True)
    model, pictures = trained_autoencoder(args.work, device), Pictures(args.work)
    about = folder / "about.pt"
    if about.exists() and torch.load(about)["encoder"] != fingerprint(model):
        for path in folder.glob("*.pt"):
            path.unlink()
    if not about.exists():
        scale = own_scale(model, to_tensor(pictures.chunks[0][:100]).to(device))  # of full-size pictures whatever the --size
        write_about(folder, model, args.size, scale, args.scenes_seed)
    for number, chunk in enumerate(pictures.chunks):
        if (folder / f"{number:04d}.pt").exists():
            continue
        shrunk = F.interpolate(to_tensor(chunk), (args.size, args.size), mode="area").to(device)
        scenes = sample_scenes(len(chunk), args.scenes_seed, first=number * CHUNK)
        write_chunk(folder, number, model, shrunk, scenes)
        log(f"encoded {(number + 1) * CHUNK} pictures")


if __name__ == "__main__":
    main()

"""Trains the demo model's autoencoder on the bank, then encodes the whole bank.

Reads pictures.npy from the work folder; keeps autoencoder.pt, and writes latents.pt at the end.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from tools.demo_model.draw import draw, pick_device, sheet
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.training import Budget, half_precision, log, save

UNSEEN_SEED = 987654  # scenes of this seed are never in a bank


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=128, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(24, 48, 96, 128), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, mid_block_add_attention=False)


def to_model(pictures: np.ndarray, device: torch.device) -> Tensor:
    """(B, 3, H, W) in [-1, 1] from bytes (B, H, W, 3)."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def random_crops(bank: np.ndarray, count: int, crop: int, random: np.random.Generator) -> np.ndarray:
    rows, room = random.integers(len(bank), size=count), bank.shape[1] - crop
    corners = random.integers(room // 8 + 1, size=(count, 2)) * 8  # whole latent cells, as the pixel style needs
    return np.stack([bank[r, y:y + crop, x:x + crop] for r, (y, x) in zip(rows, corners)])


def slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    return picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]


def distance(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 and L2, L1 of the slopes (edges), and L1 at a quarter of the size (colours)."""
    edge = sum(F.l1_loss(a, b) for a, b in zip(slopes(made), slopes(wanted)))
    coarse = F.l1_loss(F.avg_pool2d(made, 4), F.avg_pool2d(wanted, 4))
    return F.l1_loss(made, wanted) + 2 * F.mse_loss(made, wanted) + 0.5 * edge + 0.5 * coarse


def psnr(model: AutoencoderKL, wanted: Tensor) -> tuple[float, Tensor]:
    """Mean PSNR in dB over pictures (B, 3, H, W) in [-1, 1], and the pictures after the round trip."""
    with torch.no_grad():
        made = torch.cat([model.decode(model.encode(part).latent_dist.mean).sample.float() for part in wanted.split(16)])
    errors = ((made.clamp(-1, 1) - wanted) / 2).square().mean((1, 2, 3))
    return float((-10 * errors.log10()).mean()), made


def train(model: AutoencoderKL, work: Path, args: argparse.Namespace, device: torch.device) -> None:
    bank = np.load(work / "pictures.npy", mmap_mode="r")
    budget = Budget(args.minutes, args.rate, warm_up=60, hold=0.35)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    step, path = 0, work / "autoencoder.pt"
    if path.exists():
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"]), optimizer.load_state_dict(state["optimizer"])
        step, budget.spent = state["step"], state["spent"]
        log(f"resumed at step {step} after {budget.spent / 60:.1f} min")
    random = np.random.default_rng(args.seed + step)
    torch.manual_seed(args.seed + step)
    unseen = draw(sample_scenes(64, UNSEEN_SEED).to(device), 128) * 2 - 1
    parameters = list(model.parameters())
    while budget.tick() < 1:
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate(step)
        wanted = to_model(random_crops(bank, args.batch, args.crop, random), device)
        with half_precision(device):
            posterior = model.encode(wanted).latent_dist
            made = model.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = distance(made.float(), wanted) + args.kl * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log(f"step {step} loss {loss.item():.4f} kl {kl.item():.2f} lr {group['lr']:.2e} {budget.spent / 60:.1f} min")
        if step % 250 == 0:
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step, spent=budget.spent)
            preview(model, unseen[:24], work / "autoencoder.png")
    save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step, spent=budget.spent)
    decibels, _ = psnr(model, unseen)
    log(f"finished: {step} steps, {budget.spent / 60:.1f} min, {decibels:.2f} dB on {len(unseen)} unseen scenes")


def preview(model: AutoencoderKL, pictures: Tensor, path: Path) -> None:
    with half_precision(pictures.device):
        decibels, made = psnr(model, pictures)
    log(f"unseen {decibels:.2f} dB")
    pairs = torch.cat([torch.cat([a, b]) for a, b in zip(pictures.split(8), made.split(8))])
    sheet(pairs / 2 + 0.5, 8).save(path)


@torch.no_grad()
def encode_bank(model: AutoencoderKL, work: Path, count: int, device: torch.device) -> None:
    """Writes latents.pt for the first `count` pictures: the means of the posteriors (N, 4, h, w) as fp16, unscaled, and the scaling factor."""
    bank, parts = np.load(work / "pictures.npy", mmap_mode="r")[:count], []
    for start in range(0, len(bank), 64):
        pictures = to_model(bank[start:start + 64], device)
        with half_precision(device):
            parts.append(model.encode(pictures).latent_dist.mean.half().cpu())
    latents = torch.cat(parts)
    scaling_factor = 1 / latents.float().std().item()
    save(work / "latents.pt", latents=latents, scaling_factor=scaling_factor)
    log(f"encoded {len(latents)} pictures; scaling factor {scaling_factor:.5f}; "
        f"channel means {[round(v, 3) for v in (latents.float().mean((0, 2, 3)) * scaling_factor).tolist()]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the bank, for checkpoints")
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--kl", type=float, default=3e-4)
    parser.add_argument("--encode", type=int, default=1 << 30, help="how many pictures of the bank to encode at the end")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    model = new_autoencoder().to(device)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    train(model, args.work, args, device)
    encode_bank(model, args.work, args.encode, device)


if __name__ == "__main__":
    main()

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
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor

from tools.demo_model.draw import draw, pick_device, sheet
from tools.demo_model.scenes import Scenes, sample_scenes, worth_learning
from tools.demo_model.training import Budget, Workers, half_precision, log, save

UNSEEN_SEED = 987654  # scenes of this seed are never in a bank


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=128, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(16, 32, 96, 128), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, mid_block_add_attention=False)


@torch.no_grad()
def start_as_averaging(model: AutoencoderKL) -> None:
    """Makes a new model begin as plain shrinking and enlarging, which it then learns to improve.

    Residual branches begin at zero (Goyal et al. 2017), shortcuts copy, downsamplers average, upsamplers repeat.
    Training reaches 20 dB many times sooner than from random weights.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, ResnetBlock2D):
            torch.nn.init.zeros_(layer.conv2.weight), torch.nn.init.zeros_(layer.conv2.bias)
            if layer.conv_shortcut is not None:
                torch.nn.init.orthogonal_(layer.conv_shortcut.weight)
        elif isinstance(layer, Downsample2D):
            torch.nn.init.dirac_(layer.conv.weight)
            layer.conv.weight[:, :, :2, :2] = layer.conv.weight[:, :, 1:2, 1:2] / 4
            layer.conv.weight[:, :, 2].zero_(), layer.conv.weight[:, :, :, 2].zero_()
        elif isinstance(layer, Upsample2D):
            torch.nn.init.dirac_(layer.conv.weight)
    for part in (model.encoder, model.decoder):  # strong biases keep the group norms from hiding absolute brightness
        part.conv_in.bias.copy_(torch.tensor([1.0, -1.0]).repeat(len(part.conv_in.bias) // 2))
        part.conv_in.weight.mul_(2)
    model.quant_conv.bias[4:] = -5.0  # a posterior that is narrow from the start


def to_model(pictures: np.ndarray, device: torch.device) -> Tensor:
    """(B, 3, H, W) in [-1, 1] from bytes (B, H, W, 3)."""
    return torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def random_crops(bank: np.ndarray, rows: np.ndarray, count: int, crop: int, random: np.random.Generator) -> np.ndarray:
    rows, room = random.choice(rows, count), bank.shape[1] - crop
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
        latents = [model.encode(part).latent_dist.mean for part in wanted.split(16)]
        made = torch.cat([model.decode(part).sample.float() for part in latents])
    errors = ((made.clamp(-1, 1) - wanted) / 2).square().mean((1, 2, 3))
    return float((-10 * errors.log10()).mean()), made


def train(model: AutoencoderKL, work: Path, args: argparse.Namespace, device: torch.device) -> None:
    bank = np.load(work / "pictures.npy", mmap_mode="r")
    rows = worth_learning(Scenes.from_table(torch.load(work / "scenes.pt"))).numpy()
    budget = Budget(args.minutes, args.rate, warm_up=60, hold=0.35)
    model.encoder.requires_grad_(not args.decoder_only), model.quant_conv.requires_grad_(not args.decoder_only)
    parameters, workers = [p for p in model.parameters() if p.requires_grad], Workers(args.workers)
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    step, before, path = 0, 0.0, work / "autoencoder.pt"
    if path.exists():
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        step = state["step"]
        if args.decoder_only == state.get("decoder_only", False):
            optimizer.load_state_dict(state["optimizer"])
            before, budget.spent = state.get("before", 0.0), state["spent"]
        else:
            before = state["spent"]
        log(f"resumed at step {step} after {(before + budget.spent) / 60:.1f} min")

    def keep() -> None:
        save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step, spent=budget.spent,
             before=before, decoder_only=args.decoder_only)

    random = np.random.default_rng(args.seed + step)
    torch.manual_seed(args.seed + step)
    if step == 0:
        start_as_averaging(model)
    unseen = draw(sample_scenes(64, UNSEEN_SEED).to(device), 128) * 2 - 1

    def loss_of(wanted: Tensor) -> Tensor:
        with half_precision(device):
            posterior = model.encode(wanted).latent_dist
            made = model.decode(posterior.mode() if args.decoder_only else posterior.sample()).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return distance(made.float(), wanted) + args.kl * kl

    budget.start()
    while budget.tick() < 1:
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate(step)
        wanted = to_model(random_crops(bank, rows, args.batch, args.crop, random), device)
        wanted = wanted.contiguous(memory_format=torch.channels_last)
        loss = workers.backward(loss_of, parameters, wanted)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            log(f"step {step} loss {loss:.4f} lr {group['lr']:.2e} {budget.spent / 60:.1f} min")
        if step % 200 == 0:
            keep()
            preview(model, unseen[:24], work / "autoencoder.png")
    keep()
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
    """Writes latents.pt: the first `count` pictures' posterior means, (N, 4, h, w) fp16, unscaled; scaling factor."""
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
    parser.add_argument("--kl", type=float, default=5e-5)
    parser.add_argument("--decoder-only", action="store_true",
                        help="go on with the decoder alone, for --minutes more: the latents stay what they are")
    parser.add_argument("--encode", type=int, default=1 << 30,
                        help="how many pictures of the bank to encode at the end")
    parser.add_argument("--workers", type=int, default=1, help="threads that share each batch; on a CPU its cores")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    model = new_autoencoder().to(device).to(memory_format=torch.channels_last)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    train(model, args.work, args, device)
    torch.set_num_threads(max(args.workers, torch.get_num_threads()))
    if not args.decoder_only:
        encode_bank(model, args.work, args.encode, device)


if __name__ == "__main__":
    main()

"""Trains the demo model's autoencoder on the bank.

Reads pictures/ in the work folder; keeps autoencoder.pt and autoencoder.png.
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

from tools.demo_model.bank import Pictures
from tools.demo_model.draw import drawn, pick_device, sheet
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.training import Budget, Ema, Optimizer, Workers, clock_of, half_precision, log, save

UNSEEN_SEED = 987654  # scenes of this seed are never in a bank


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=256, layers_per_block=1, norm_num_groups=8,
        block_out_channels=(24, 48, 96, 160), down_block_types=("DownEncoderBlock2D",) * 4,
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
        latents = [model.encode(part).latent_dist.mean for part in wanted.split(8)]
        made = torch.cat([model.decode(part).sample.float() for part in latents])
    return decibels(made, wanted), made


def decibels(made: Tensor, wanted: Tensor) -> float:
    """Mean PSNR in dB of pictures (B, 3, H, W) in [-1, 1]."""
    errors = ((made.clamp(-1, 1) - wanted) / 2).square().mean((1, 2, 3))
    return float((-10 * errors.log10()).mean())


class Trainer:
    """Model, optimizer, averaged weights and time budget; all of it is kept in autoencoder.pt."""

    def __init__(self, model: AutoencoderKL, args: argparse.Namespace, device: torch.device) -> None:
        self.model, self.args, self.device = model, args, device
        self.pictures, self.workers = Pictures(args.work), Workers(args.workers)
        self.budget = Budget(args.minutes, args.rate, warm_up=60, hold=args.hold, clock=clock_of(device, self.workers))
        model.encoder.requires_grad_(not args.decoder_only), model.quant_conv.requires_grad_(not args.decoder_only)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.optimizer = Optimizer(trained, self.workers)
        self.step, self.before, self.path = 0, 0.0, args.work / "autoencoder.pt"
        self.ema = Ema(model, args.ema)

    def run(self) -> None:
        """Train until the minutes are spent, keeping a checkpoint every few."""
        self.resume()
        random = np.random.default_rng(self.args.seed + self.step)
        torch.manual_seed(self.args.seed + self.step)
        unseen = drawn(sample_scenes(16, UNSEEN_SEED), 256)
        self.budget.start()
        kept, total = self.budget.spent, 0.0
        while self.budget.tick() < 1:
            total += self.learn(random)
            if self.step % 50 == 0:
                log(f"step {self.step} loss {total / 50:.4f} lr {self.rate:.2e} "
                    f"{self.budget.spent / 60:.1f} min")
                total = 0.0
            if self.budget.spent - kept > 60 * self.args.save_every:
                kept = self.budget.spent
                self.keep(unseen)
                self.pictures.refresh()
        self.keep(unseen)
        log(f"finished: {self.step} steps, {self.budget.spent / 60:.1f} min")

    def learn(self, random: np.random.Generator) -> float:
        """One step; returns the loss."""
        wanted = self.pictures.crops(self.args.batch, self.args.crop, random).to(self.device)
        loss = self.workers.backward(self.loss, self.parameters, wanted.contiguous(memory_format=torch.channels_last))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.rate = self.budget.learning_rate(self.step)
        self.optimizer.step(self.rate)
        self.ema.update(self.model)
        self.step += 1
        return loss

    def loss(self, wanted: Tensor) -> Tensor:
        with half_precision(self.device):
            posterior = self.model.encode(wanted).latent_dist
            made = self.model.decode(posterior.mode() if self.args.decoder_only else posterior.sample()).sample
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return distance(made.float(), wanted) + self.args.kl * kl

    def resume(self) -> None:
        if not self.path.exists():
            start_as_averaging(self.model)
            self.ema.take(self.model)
            return
        state = torch.load(self.path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.ema.weights, self.ema.steps, self.step = state["ema"], state["step"], state["step"]
        if self.args.decoder_only == state["decoder_only"]:
            self.optimizer.load_state_dict(state["optimizer"])
            self.before, self.budget.spent = state["before"], state["spent"]
        else:
            self.before = state["before"] + state["spent"]
        log(f"resumed at step {self.step} after {(self.before + self.budget.spent) / 60:.1f} min")

    def keep(self, unseen: Tensor) -> None:
        """Writes autoencoder.pt, and autoencoder.png: unseen pictures above what the averaged weights make of them."""
        save(self.path, model=self.model.state_dict(), ema=self.ema.weights, optimizer=self.optimizer.state_dict(),
             step=self.step, spent=self.budget.spent, before=self.before, decoder_only=self.args.decoder_only)
        model = trained_autoencoder(self.args.work, self.device)
        reached, made = psnr(model, unseen)
        log(f"unseen {reached:.2f} dB after {self.step} steps, {len(self.pictures)} pictures in the bank")
        pairs = torch.cat([torch.cat([a, b]) for a, b in zip(unseen[:16].split(8), made[:16].split(8))])
        sheet(pairs / 2 + 0.5, 8).save(self.args.work / "autoencoder.png")


def trained_autoencoder(work: Path, device: torch.device) -> AutoencoderKL:
    """The autoencoder with its averaged weights."""
    model = new_autoencoder().to(device).eval()
    model.load_state_dict(torch.load(work / "autoencoder.pt", map_location=device)["ema"])
    return model.to(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the bank, for checkpoints")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--hold", type=float, default=0.5, help="part of the time before the rate falls")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--kl", type=float, default=5e-5)
    parser.add_argument("--ema", type=float, default=0.997)
    parser.add_argument("--save-every", type=float, default=10, help="minutes between checkpoints")
    parser.add_argument("--decoder-only", action="store_true",
                        help="go on with the decoder alone, for --minutes more: the latents stay what they are")
    parser.add_argument("--workers", type=int, default=1, help="threads that share each batch; on a CPU its cores")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    model = new_autoencoder().to(device).to(memory_format=torch.channels_last)
    log(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    Trainer(model, args, device).run()


if __name__ == "__main__":
    main()

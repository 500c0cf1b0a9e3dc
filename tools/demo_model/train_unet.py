"""Trains the demo model's text encoder and UNet together on the encoded bank.

Reads latents.pt and scenes.pt from the work folder; keeps tokenizer/, captions.pt and unet.pt.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.demo_model.captions import caption, in_words
from tools.demo_model.draw import pick_device, sheet
from tools.demo_model.sampling import ddim, embed, sd1_scheduler, to_pictures
from tools.demo_model.scenes import Scenes
from tools.demo_model.tokenizer import LENGTH, token_rows, train_tokenizer
from tools.demo_model.train_autoencoder import new_autoencoder
from tools.demo_model.training import Budget, Ema, half_precision, log, save

HIDDEN = 192
PREVIEW = ["a forest at night", "a red sports car on a city street", "a blue boat on the sea at sunset",
           "a white house in mountains, winter", "a desert at noon", "a yellow balloon in a meadow, sunny",
           "a watercolor painting of a forest in autumn", "pixel art of a red tower by the sea",
           "a city at night, rain", "a person in a red coat in a forest, snowing", "a green tree in a meadow, spring",
           "a purple car in the desert at sunset", "an oil painting of mountains at dawn", "an ink sketch of a house in the woods",
           "an orange fence in a meadow", "a foggy morning by the sea"]


class DemoModel(nn.Module):
    """The two trained parts, under the names their folders have."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=2,
            num_attention_heads=4, hidden_act="quick_gelu", max_position_embeddings=LENGTH, projection_dim=HIDDEN,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(64, 128, 256),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=HIDDEN, attention_head_dim=4, norm_num_groups=16)

    def forward(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(noisy, times, self.text_encoder(tokens).last_hidden_state).sample


def caption_bank(work: Path, tokenizer: CLIPTokenizer, count: int, each: int, seed: int) -> Tensor:
    """Token rows of `each` captions for the first `count` scenes, (count, each, 77) int16; kept in captions.pt."""
    path = work / "captions.pt"
    if path.exists() and len(kept := torch.load(path)) >= count:
        return kept[:count]
    random, rows = Random(seed), []
    for scene in in_words(Scenes.from_table(torch.load(work / "scenes.pt")[:count])):
        rows.append(torch.tensor(token_rows(tokenizer, [caption(scene, random) for _ in range(each)]), dtype=torch.int16))
    torch.save(torch.stack(rows), path)
    return torch.stack(rows)


def eps_loss(made: Tensor, eps: Tensor, snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Squared error weighted by min(SNR, gamma) / SNR (Hang et al. 2023, min-SNR-gamma for eps)."""
    return ((made.float() - eps).square().mean((1, 2, 3)) * snr.clamp(max=gamma) / snr).mean()


def train(model: DemoModel, tokenizer: CLIPTokenizer, args: argparse.Namespace, device: torch.device) -> None:
    bank = torch.load(args.work / "latents.pt")
    latents, scaling_factor = bank["latents"], bank["scaling_factor"]
    captions = caption_bank(args.work, tokenizer, len(latents), args.captions, args.seed)
    empty = torch.tensor(token_rows(tokenizer, [""]), dtype=torch.int16)[0]
    alphas = sd1_scheduler().alphas_cumprod.to(device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    ema, budget, step = Ema(model, args.ema), Budget(args.minutes, args.rate, warm_up=200, hold=args.hold), 0
    path = args.work / "unet.pt"
    if path.exists():
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"]), optimizer.load_state_dict(state["optimizer"])
        ema.weights, ema.steps = state["ema"], state["step"]
        step, budget.spent = state["step"], state["spent"]
        log(f"resumed at step {step} after {budget.spent / 60:.1f} min")
    random = torch.Generator().manual_seed(args.seed + step)
    log(f"{len(latents)} scenes, {captions.shape[1]} captions each")
    total, seen, saved = 0.0, 0, budget.spent
    budget.tick(), budget.__setattr__("spent", saved)
    while budget.tick() < 1:
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate(step)
        rows = torch.randint(len(latents), (args.batch,), generator=random)
        tokens = captions[rows, torch.randint(captions.shape[1], (args.batch,), generator=random)]
        tokens[torch.rand(args.batch, generator=random) < args.drop] = empty
        clean = latents[rows].to(device).float() * scaling_factor
        eps = torch.randn(clean.shape, generator=random).to(device)
        times = torch.randint(1000, (args.batch,), generator=random).to(device)
        a = alphas[times][:, None, None, None]
        with half_precision(device):
            made = model(a.sqrt() * clean + (1 - a).sqrt() * eps, times, tokens.to(device).long())
        loss = eps_loss(made, eps, (a / (1 - a)).flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ema.update(model)
        step, total, seen = step + 1, total + loss.item(), seen + 1
        if step % 25 == 0:
            log(f"step {step} images {step * args.batch} loss {total / seen:.4f} lr {group['lr']:.2e} {budget.spent / 60:.1f} min")
            total, seen = 0.0, 0
        if budget.spent - saved > 60 * args.save_every:
            saved = budget.spent
            save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), ema=ema.weights, step=step,
                 spent=budget.spent, batch=args.batch)
            preview(tokenizer, ema, args.work, scaling_factor, device)
    save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), ema=ema.weights, step=step, spent=budget.spent,
         batch=args.batch)
    preview(tokenizer, ema, args.work, scaling_factor, device)
    log(f"finished: {step} steps, {budget.spent / 60:.1f} min")


def preview(tokenizer: CLIPTokenizer, ema: Ema, work: Path, scaling_factor: float, device: torch.device) -> None:
    """Draws unet.png with the averaged weights: one picture for each preview prompt."""
    model, vae = DemoModel(tokenizer).to(device).eval(), trained_autoencoder(work, device)
    model.load_state_dict(ema.weights)
    with torch.no_grad():
        cond, uncond = (embed(tokenizer, model.text_encoder, texts) for texts in (PREVIEW, [""] * len(PREVIEW)))
    noise = torch.randn((len(PREVIEW), 4, 16, 16), generator=torch.Generator().manual_seed(7)).to(device)
    sheet(to_pictures(vae, ddim(model.unet, cond, uncond, noise), scaling_factor), 8).save(work / "unet.png")


def trained_autoencoder(work: Path, device: torch.device) -> AutoencoderKL:
    vae = new_autoencoder().to(device).eval()
    vae.load_state_dict(torch.load(work / "autoencoder.pt", map_location=device)["model"])
    return vae


def load_or_train_tokenizer(work: Path) -> CLIPTokenizer:
    folder = work / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder) if (folder / "vocab.json").exists() else train_tokenizer(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the encoded bank, for checkpoints")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--hold", type=float, default=0.55, help="part of the time before the rate falls")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--captions", type=int, default=24, help="captions prepared for each scene")
    parser.add_argument("--drop", type=float, default=0.10, help="part of the captions replaced by ''")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--save-every", type=float, default=8, help="minutes between checkpoints")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    tokenizer = load_or_train_tokenizer(args.work)
    torch.manual_seed(args.seed)
    model = DemoModel(tokenizer).to(device)
    log(" ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M" for name, part in model.named_children()))
    train(model, tokenizer, args, device)


if __name__ == "__main__":
    main()

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

from tools.demo_model.attributes import Namer
from tools.demo_model.captions import caption, in_words
from tools.demo_model.draw import pick_device, sheet
from tools.demo_model.sampling import ddim, embed, sd1_scheduler, to_pictures
from tools.demo_model.scenes import Scenes, worth_learning
from tools.demo_model.tokenizer import LENGTH, token_rows, train_tokenizer
from tools.demo_model.train_autoencoder import new_autoencoder
from tools.demo_model.training import Budget, Ema, Workers, half_precision, log, save

HIDDEN = 160
PREVIEW = ["a forest at night", "a red sports car on a city street", "a blue boat on the sea at sunset",
           "a white house in mountains, winter", "a desert at noon", "a yellow balloon in a meadow, sunny",
           "a watercolor painting of a forest in autumn", "pixel art of a red tower by the sea",
           "a city at night, rain", "a person in a red coat in a forest, snowing", "a green tree in a meadow, spring",
           "a purple car in the desert at sunset", "an oil painting of mountains at dawn", "a red house in the woods",
           "an orange fence in a meadow", "a foggy morning by the sea"]


class DemoModel(nn.Module):
    """The two trained parts, under the names their folders have."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=2,
            num_attention_heads=4, hidden_act="quick_gelu", max_position_embeddings=LENGTH, projection_dim=HIDDEN,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id))
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(48, 96, 192),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=HIDDEN, attention_head_dim=4, norm_num_groups=16)


def caption_bank(work: Path, tokenizer: CLIPTokenizer, count: int, each: int, seed: int) -> Tensor:
    """Token rows of `each` captions for the first `count` scenes, (count, each, 77) int16; kept in captions.pt."""
    path = work / "captions.pt"
    if path.exists() and len(kept := torch.load(path)) >= count:
        return kept[:count]
    random, rows = Random(seed), []
    for scene in in_words(Scenes.from_table(torch.load(work / "scenes.pt")[:count])):
        texts = [caption(scene, random) for _ in range(each)]
        rows.append(torch.tensor(token_rows(tokenizer, texts), dtype=torch.int16))
    torch.save(torch.stack(rows), path)
    return torch.stack(rows)


def eps_loss(made: Tensor, eps: Tensor, snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Squared error weighted by min(SNR, gamma) / SNR (Hang et al. 2023, min-SNR-gamma for eps).

    Times sqrt(1 + 1 / SNR): at high noise, where day or night is decided, errors of eps are small but matter most.
    """
    weight = snr.clamp(max=gamma) / snr * (1 + 1 / snr).sqrt()
    return ((made.float() - eps).square().mean((1, 2, 3)) * weight).mean()


def spread_times(count: int, random: torch.Generator) -> Tensor:
    """Times 0..999, one from each of `count` equal ranges: uniform, but steadier than free choice."""
    return ((torch.arange(count) + torch.rand(count, generator=random)) * (1000 / count)).long().clamp(max=999)


def train(model: DemoModel, tokenizer: CLIPTokenizer, args: argparse.Namespace, device: torch.device) -> None:
    bank = torch.load(args.work / "latents.pt")
    latents, scaling_factor = bank["latents"], bank["scaling_factor"]
    captions = caption_bank(args.work, tokenizer, len(latents), args.captions, args.seed)
    table = torch.load(args.work / "scenes.pt")[:len(latents)].long()
    kept, choices = worth_learning(Scenes.from_table(table)), table[:, :-1]
    empty = torch.tensor(token_rows(tokenizer, [""]), dtype=torch.int16)[0]
    alphas = sd1_scheduler().alphas_cumprod.to(device)
    namer = Namer(HIDDEN).to(device)
    parameters = [*model.parameters(), *namer.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    namer_optimizer = torch.optim.AdamW(namer.parameters(), lr=args.rate)
    ema, budget, step = Ema(model, args.ema), Budget(args.minutes, args.rate, warm_up=200, hold=args.hold), 0
    path, state = args.work / "unet.pt", {}
    if path.exists():
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"]), optimizer.load_state_dict(state["optimizer"])
        ema.weights, ema.steps = state["ema"], state["step"]
        step, budget.spent = state["step"], state["spent"]
        if "namer" in state:
            namer.load_state_dict(state["namer"])
        log(f"resumed at step {step} after {budget.spent / 60:.1f} min")
    random = torch.Generator().manual_seed(args.seed + step)

    def some_captions() -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the bank by lot, a caption for each, and which captions are not dropped."""
        rows = kept[torch.randint(len(kept), (args.batch,), generator=random)]
        tokens = captions[rows, torch.randint(captions.shape[1], (args.batch,), generator=random)]
        said = torch.rand(args.batch, generator=random) >= args.drop
        tokens[~said] = empty
        return rows, tokens.to(device).long(), said.to(device)

    def naming_loss(tokens: Tensor, named: Tensor, said: Tensor) -> Tensor:
        return namer.loss(model.text_encoder(tokens).last_hidden_state, named, said)

    def loss_of(clean: Tensor, eps: Tensor, times: Tensor, tokens: Tensor, named: Tensor, said: Tensor) -> Tensor:
        a = alphas[times][:, None, None, None]
        noisy = (a.sqrt() * clean + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        with half_precision(device):
            vectors = model.text_encoder(tokens).last_hidden_state
            made = model.unet(noisy, times, vectors).sample
        return eps_loss(made, eps, (a / (1 - a)).flatten()) + args.naming * namer.loss(vectors, named, said)

    def teach_words() -> None:
        """The side task alone, so that the UNet meets vectors that mean something."""
        learned = [*model.text_encoder.parameters(), *namer.parameters()]
        own, sum_ = torch.optim.AdamW(learned, lr=args.rate), 0.0
        for n in range(args.word_steps):
            rows, tokens, said = some_captions()
            sum_ += workers.backward(naming_loss, learned, tokens, choices[rows].to(device), said)
            own.step()
            if n % 50 == 49:
                log(f"words: step {n + 1} loss {sum_ / 50:.3f}")
                sum_ = 0.0
        ema.take(model)

    def keep() -> None:
        save(path, model=model.state_dict(), optimizer=optimizer.state_dict(), ema=ema.weights, step=step,
             spent=budget.spent, batch=args.batch, namer=namer.state_dict())
        preview(tokenizer, ema, args.work, scaling_factor, device)

    log(f"{len(kept)} scenes, {captions.shape[1]} captions each")
    total, saved, workers = 0.0, budget.spent, Workers(args.workers)
    if "namer" not in state:
        teach_words()
    budget.start()
    while budget.tick() < 1:
        for group in optimizer.param_groups:
            group["lr"] = budget.learning_rate(step)
        rows, tokens, said = some_captions()
        clean = latents[rows].to(device).float() * scaling_factor
        eps = torch.randn(clean.shape, generator=random).to(device)
        times = spread_times(args.batch, random).to(device)
        named = choices[rows].to(device)
        total += workers.backward(loss_of, parameters, clean, eps, times, tokens, named, said)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        namer_optimizer.step()
        ema.update(model)
        step += 1
        if step % 25 == 0:
            log(f"step {step} images {step * args.batch} loss {total / 25:.4f} "
                f"lr {group['lr']:.2e} {budget.spent / 60:.1f} min")
            total = 0.0
        if budget.spent - saved > 60 * args.save_every:
            saved = budget.spent
            keep()
    keep()
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
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--captions", type=int, default=16, help="captions prepared for each scene")
    parser.add_argument("--drop", type=float, default=0.10, help="part of the captions replaced by ''")
    parser.add_argument("--word-steps", type=int, default=400, help="steps of the text encoder alone, at the start")
    parser.add_argument("--naming", type=float, default=0.02, help="weight of the side task afterwards")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--save-every", type=float, default=8, help="minutes between checkpoints")
    parser.add_argument("--workers", type=int, default=1, help="threads that share each batch; on a CPU its cores")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = pick_device(args.device)
    tokenizer = load_or_train_tokenizer(args.work)
    torch.manual_seed(args.seed)
    model = DemoModel(tokenizer).to(device).to(memory_format=torch.channels_last)
    for name, part in model.named_children():
        log(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters")
    train(model, tokenizer, args, device)


if __name__ == "__main__":
    main()

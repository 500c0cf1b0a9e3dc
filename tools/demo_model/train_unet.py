"""Trains the demo model's text encoder and UNet together on the encoded bank.

Reads latents.pt and scenes.pt from the work folder; keeps tokenizer/, captions.pt and unet.pt.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from typing import NamedTuple

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


class Bank:
    """Encoded scenes and their captions, from which batches are drawn by lot."""

    def __init__(self, work: Path, tokenizer: CLIPTokenizer, *, captions: int, drop: float, seed: int) -> None:
        stored = torch.load(work / "latents.pt")
        self.scaling_factor, self.drop = stored["scaling_factor"], drop
        self.latents = stored["latents"].float() * self.scaling_factor
        self.captions = caption_bank(work, tokenizer, len(self.latents), captions, seed)
        table = torch.load(work / "scenes.pt")[:len(self.latents)].long()
        self.kept, self.choices = worth_learning(Scenes.from_table(table)), table[:, :-1]
        self.empty = torch.tensor(token_rows(tokenizer, [""]), dtype=torch.int16)[0]
        self.random = torch.Generator()
        log(f"{len(self.kept)} scenes, {captions} captions each")

    def draw(self, count: int, device: torch.device) -> "Batch":
        rows = self.kept[torch.randint(len(self.kept), (count,), generator=self.random)]
        tokens = self.captions[rows, torch.randint(self.captions.shape[1], (count,), generator=self.random)]
        said = torch.rand(count, generator=self.random) >= self.drop
        tokens[~said] = self.empty
        clean = self.latents[rows]
        eps = torch.randn(clean.shape, generator=self.random)
        times = spread_times(count, self.random)
        return Batch(*(part.to(device) for part in (clean, eps, times, tokens.long(), self.choices[rows], said)))


class Batch(NamedTuple):
    clean: Tensor
    """(B, 4, 16, 16), model scale."""
    eps: Tensor
    times: Tensor
    """(B,), 0..999."""
    tokens: Tensor
    """(B, 77)."""
    choices: Tensor
    """(B, 10): what each scene is, for the side task."""
    said: Tensor
    """(B,) bool: False where the caption was replaced by ''."""


class Trainer:
    """Model, optimizers, averaged weights and time budget; all of it goes to unet.pt and comes back from there."""

    def __init__(self, model: DemoModel, tokenizer: CLIPTokenizer, args: argparse.Namespace, device: torch.device) -> None:
        self.model, self.tokenizer, self.args, self.device = model, tokenizer, args, device
        self.bank = Bank(args.work, tokenizer, captions=args.captions, drop=args.drop, seed=args.seed)
        self.alphas = sd1_scheduler().alphas_cumprod.to(device)
        self.namer = Namer(HIDDEN).to(device)
        self.parameters = [*model.parameters(), *self.namer.parameters()]
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.namer_optimizer = torch.optim.AdamW(self.namer.parameters(), lr=args.rate)
        self.ema, self.workers = Ema(model, args.ema), Workers(args.workers)
        self.budget, self.step = Budget(args.minutes, args.rate, warm_up=200, hold=args.hold), 0
        self.path = args.work / "unet.pt"

    def run(self) -> None:
        """Train until the minutes are spent, keeping a checkpoint every few."""
        resumed = self.path.exists()
        if resumed:
            self.resume()
        self.bank.random.manual_seed(self.args.seed + self.step)
        if not resumed:
            self.teach_words()
        total, saved = 0.0, self.budget.spent
        self.budget.start()
        while self.budget.tick() < 1:
            total += self.learn()
            if self.step % 25 == 0:
                log(f"step {self.step} images {self.step * self.args.batch} loss {total / 25:.4f} "
                    f"lr {self.optimizer.param_groups[0]['lr']:.2e} {self.budget.spent / 60:.1f} min")
                total = 0.0
            if self.budget.spent - saved > 60 * self.args.save_every:
                saved = self.budget.spent
                self.keep()
        self.keep()
        log(f"finished: {self.step} steps, {self.budget.spent / 60:.1f} min")

    def teach_words(self) -> None:
        """The side task alone, so that the UNet meets vectors that mean something."""
        learned, total = [*self.model.text_encoder.parameters(), *self.namer.parameters()], 0.0
        optimizer = torch.optim.AdamW(learned, lr=self.args.rate)
        for n in range(self.args.word_steps):
            batch = self.bank.draw(self.args.batch, self.device)
            total += self.workers.backward(self.naming_loss, learned, batch.tokens, batch.choices, batch.said)
            optimizer.step()
            if n % 50 == 49:
                log(f"words: step {n + 1} loss {total / 50:.3f}")
                total = 0.0
        self.ema.take(self.model)

    def learn(self) -> float:
        """One step; gives the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.budget.learning_rate(self.step)
        loss = self.workers.backward(self.loss, self.parameters, *self.bank.draw(self.args.batch, self.device))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.namer_optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        return loss

    def naming_loss(self, tokens: Tensor, choices: Tensor, said: Tensor) -> Tensor:
        return self.namer.loss(self.model.text_encoder(tokens).last_hidden_state, choices, said)

    def loss(self, *parts: Tensor) -> Tensor:
        batch = Batch(*parts)
        a = self.alphas[batch.times][:, None, None, None]
        noisy = (a.sqrt() * batch.clean + (1 - a).sqrt() * batch.eps).contiguous(memory_format=torch.channels_last)
        with half_precision(self.device):
            vectors = self.model.text_encoder(batch.tokens).last_hidden_state
            made = self.model.unet(noisy, batch.times, vectors).sample
        named = self.namer.loss(vectors, batch.choices, batch.said)
        return eps_loss(made, batch.eps, (a / (1 - a)).flatten()) + self.args.naming * named

    def resume(self) -> None:
        state = torch.load(self.path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.namer.load_state_dict(state["namer"])
        self.ema.weights, self.ema.steps = state["ema"], state["step"]
        self.step, self.budget.spent = state["step"], state["spent"]
        log(f"resumed at step {self.step} after {self.budget.spent / 60:.1f} min")

    def keep(self) -> None:
        save(self.path, model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), ema=self.ema.weights,
             step=self.step, spent=self.budget.spent, batch=self.args.batch, namer=self.namer.state_dict())
        preview(self.tokenizer, self.ema, self.args.work, self.bank.scaling_factor, self.device)


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
    Trainer(model, tokenizer, args, device).run()


if __name__ == "__main__":
    main()

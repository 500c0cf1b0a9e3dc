"""Trains the demo model's text encoder and UNet together on the encoded bank.

Reads latents/ in the work folder; keeps tokenizer/, words.pt (the text encoder after its first lesson) and unet.pt.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.demo_model.attributes import Namer, in_numbers
from tools.demo_model.captions import caption
from tools.demo_model.draw import pick_device, sheet
from tools.demo_model.encode import latents_folder
from tools.demo_model.sampling import ddim, embed, sd1_scheduler, to_pictures, unmasked
from tools.demo_model.scenes import Scene, sample_scene, sample_scenes
from tools.demo_model.tokenizer import LENGTH, token_rows, train_tokenizer
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.training import Budget, Ema, Optimizer, Workers, clock_of, half_precision, log, save

HIDDEN = 192
PREVIEW = [
    "a forest at night", "a red sports car on a city street", "a blue boat on the sea at sunset",
    "a white house in mountains, winter", "a desert at noon", "a yellow balloon in a meadow, sunny",
    "a watercolor painting of a forest in autumn", "pixel art of a red tower by the sea", "a city at night, rain",
    "a person in a red coat in a forest, snowing", "a black cat in a village, spring",
    "a purple car in the desert at sunset", "an oil painting of mountains at dawn", "a white horse by a lake",
    "a castle in the mountains, ink drawing", "a foggy morning by the sea"]


class DemoModel(nn.Module):
    """The two trained parts, under the names their folders have."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=4 * HIDDEN, num_hidden_layers=3,
            num_attention_heads=6, hidden_act="quick_gelu", max_position_embeddings=LENGTH, projection_dim=HIDDEN,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id))
        self.unet = UNet2DConditionModel(
            sample_size=32, in_channels=9, out_channels=4, layers_per_block=1, block_out_channels=(64, 128, 256),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=HIDDEN, attention_head_dim=4, norm_num_groups=16)


def eps_loss(made: Tensor, eps: Tensor, snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Squared error weighted by min(SNR, gamma) / SNR (Hang et al. 2023, min-SNR-gamma for eps).

    Multiplied by sqrt(1 + 1 / SNR): at high noise, where day or night is decided, errors of eps are small but matter most.
    """
    weight = snr.clamp(max=gamma) / snr * (1 + 1 / snr).sqrt()
    return ((made.float() - eps).square().mean((1, 2, 3)) * weight).mean()


def spread_times(count: int, random: torch.Generator) -> Tensor:
    """Times 0..999, one from each of `count` equal ranges: uniform, with less variance than independent draws."""
    return ((torch.arange(count) + torch.rand(count, generator=random)) * (1000 / count)).long().clamp(max=999)


class Batch(NamedTuple):
    clean: Tensor
    """(B, 4, h, w), model scale."""
    condition: Tensor
    """(B, 5, h, w): the mask (1 = regenerate) and the masked picture's latent."""
    eps: Tensor
    times: Tensor
    """(B,), 0..999."""
    tokens: Tensor
    """(B, 77)."""
    choices: Tensor
    """(B, 12): each scene's choices, for the side task."""
    said: Tensor
    """(B,) bool: False if the caption was replaced by ''."""


class Bank:
    """Encoded scenes, from which random batches are drawn, with a new caption each time."""

    def __init__(self, scenes: list[Scene], encoded: dict[str, Tensor], about: dict, tokenizer: CLIPTokenizer, *,
                 drop: float, masked: float, seed: int, say: Callable[[Scene, Random], str] = caption) -> None:
        """`encoded` and `about`: as written by `encode`; `drop` and `masked`: fractions of what is drawn."""
        self.scenes, self.scaling_factor = scenes, about["scaling_factor"]
        self.clean, self.cut, self.mask = (encoded[key] for key in ("clean", "masked", "mask"))
        self.plain = unmasked(about["grey"] * self.scaling_factor)[0]
        self.choices, self.tokenizer, self.drop, self.masked = in_numbers(scenes), tokenizer, drop, masked
        self.random, self.words, self.say = torch.Generator().manual_seed(seed), Random(seed), say

    @classmethod
    def of(cls, folder: Path, tokenizer: CLIPTokenizer, **settings) -> "Bank":
        """Everything that `encode` has written to a folder."""
        about = torch.load(folder / "about.pt")
        parts = [torch.load(path) for path in sorted(folder.glob("[0-9]*.pt"))]
        encoded = {key: torch.cat([part[key] for part in parts]) for key in ("clean", "masked", "mask")}
        scenes = sample_scenes(len(encoded["clean"]), about["scenes_seed"])
        log(f"{len(scenes)} scenes")
        return cls(scenes, encoded, about, tokenizer, **settings)

    def draw(self, count: int, device: torch.device) -> Batch:
        rows = torch.randint(len(self.scenes), (count,), generator=self.random)
        said = torch.rand(count, generator=self.random) >= self.drop
        texts = [self.say(self.scenes[n], self.words) if s else "" for n, s in zip(rows, said)]
        tokens = torch.tensor(token_rows(self.tokenizer, texts))
        clean, cut = (bank[rows].float() * self.scaling_factor for bank in (self.clean, self.cut))
        condition = torch.cat([self.mask[rows].float(), cut], 1)
        plain = torch.rand(count, generator=self.random) >= self.masked
        condition[plain] = self.plain
        eps, times = torch.randn(clean.shape, generator=self.random), spread_times(count, self.random)
        return Batch(*(part.to(device) for part in (clean, condition, eps, times, tokens, self.choices[rows], said)))


def denoising_loss(unet: UNet2DConditionModel, vectors: Tensor, batch: Batch, alphas: Tensor) -> Tensor:
    """The loss of the UNet for a batch, given its captions' token vectors (B, 77, hidden)."""
    a = alphas[batch.times][:, None, None, None]
    noisy = torch.cat([a.sqrt() * batch.clean + (1 - a).sqrt() * batch.eps, batch.condition], 1)
    made = unet(noisy.contiguous(memory_format=torch.channels_last), batch.times, vectors).sample
    return eps_loss(made, batch.eps, (a / (1 - a)).flatten())


def caption_loss(model: DemoModel, device: torch.device) -> Callable[..., Tensor]:
    """The UNet's loss for the parts of a Batch, with captions encoded by the model's own text encoder."""
    alphas = sd1_scheduler().alphas_cumprod.to(device)

    def loss_of(*parts: Tensor) -> Tensor:
        batch = Batch(*parts)
        with half_precision(device):
            vectors = model.text_encoder(batch.tokens).last_hidden_state
            return denoising_loss(model.unet, vectors, batch, alphas)

    return loss_of


class Trainer:
    """Model, optimizers, averaged weights and time budget; saved to and restored from unet.pt."""

    def __init__(self, model: DemoModel, tokenizer: CLIPTokenizer, args: argparse.Namespace,
                 device: torch.device) -> None:
        self.model, self.tokenizer, self.args, self.device = model, tokenizer, args, device
        self.alphas = sd1_scheduler().alphas_cumprod.to(device)
        self.namer = Namer(HIDDEN).to(device)
        self.parameters = [*model.parameters(), *self.namer.parameters()]
        self.ema, self.workers = Ema(model, args.ema), Workers(args.workers)
        named = [*model.named_parameters(), *self.namer.named_parameters()]
        self.optimizer = Optimizer(named, self.workers, muon=False)
        self.step, self.images = 0, 0
        self.budget = Budget(args.minutes, args.rate, warm_up=100, hold=args.hold, clock=clock_of(device, self.workers))
        self.path = args.work / "unet.pt"

    def run(self) -> None:
        """Teach words, then train until the minutes or images are used up, saving a checkpoint every few minutes."""
        if self.path.exists():
            self.resume()
        else:
            self.learn_words()
        if self.args.words_only:
            return
        self.bank = Bank.of(latents_folder(self.args.work, self.args.size), self.tokenizer, drop=self.args.drop,
                            masked=self.args.masked, seed=self.args.seed + self.step)
        total, saved = 0.0, self.budget.spent
        self.budget.start()
        while self.budget.tick() < 1 and self.images < self.args.images:
            total += self.learn()
            if self.step % 25 == 0:
                log(f"step {self.step} images {self.images} loss {total / 25:.4f} "
                    f"lr {self.rate:.2e} {self.budget.spent / 60:.1f} min")
                total = 0.0
            if self.budget.spent - saved > 60 * self.args.save_every:
                saved = self.budget.spent
                self.keep()
        self.keep()
        log(f"finished: {self.step} steps, {self.budget.spent / 60:.1f} min")

    def learn_words(self) -> None:
        """The side task alone, without pictures, so that the UNet starts with meaningful vectors; saved in words.pt."""
        path, random = self.args.work / "words.pt", Random(self.args.seed)
        if path.exists():
            state = torch.load(path, map_location=self.device)
            self.model.text_encoder.load_state_dict(state["text_encoder"])
            self.namer.load_state_dict(state["namer"])
            self.ema.take(self.model)
            return
        learned, total = [*self.model.text_encoder.parameters(), *self.namer.parameters()], 0.0
        optimizer = torch.optim.AdamW(learned, lr=self.args.rate)
        for n in range(self.args.word_steps):
            for group in optimizer.param_groups:
                group["lr"] = self.args.rate * min(1.0, (n + 1) / 50) * (1 - n / self.args.word_steps)
            scenes = [sample_scene(random) for _ in range(self.args.batch)]
            tokens = torch.tensor(token_rows(self.tokenizer, [caption(scene, random) for scene in scenes]))
            said = torch.ones(len(scenes), dtype=torch.bool)
            batch = (part.to(self.device) for part in (tokens, in_numbers(scenes), said))
            total += self.workers.backward(self.naming_loss, learned, *batch)
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            if n % 50 == 49:
                log(f"words: step {n + 1} loss {total / 50:.3f}")
                total = 0.0
        self.ema.take(self.model)
        save(path, text_encoder=self.model.text_encoder.state_dict(), namer=self.namer.state_dict())

    def learn(self) -> float:
        """One step; returns the loss."""
        loss = self.workers.backward(self.loss, self.parameters, *self.bank.draw(self.args.batch, self.device))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.rate = self.budget.learning_rate(self.step)
        self.optimizer.step(self.rate)
        self.ema.update(self.model)
        self.step, self.images = self.step + 1, self.images + self.args.batch
        return loss

    def naming_loss(self, tokens: Tensor, choices: Tensor, said: Tensor) -> Tensor:
        return self.namer.loss(self.model.text_encoder(tokens).last_hidden_state, choices, said)

    def loss(self, *parts: Tensor) -> Tensor:
        batch = Batch(*parts)
        with half_precision(self.device):
            vectors = self.model.text_encoder(batch.tokens).last_hidden_state
            error = denoising_loss(self.model.unet, vectors, batch, self.alphas)
        return error + self.args.naming * self.namer.loss(vectors, batch.choices, batch.said)

    def resume(self) -> None:
        state = torch.load(self.path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.namer.load_state_dict(state["namer"])
        self.ema.weights, self.ema.steps = state["ema"], state["step"]
        self.step, self.images, self.budget.spent = state["step"], state["images"], state["spent"]
        log(f"resumed at step {self.step} after {self.budget.spent / 60:.1f} min")

    def keep(self) -> None:
        """Writes unet.pt, and unet.png with one picture for each preview prompt."""
        save(self.path, model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), ema=self.ema.weights,
             step=self.step, spent=self.budget.spent, images=self.images, namer=self.namer.state_dict())
        model = trained_model(self.args.work, self.tokenizer, self.device)
        vae = trained_autoencoder(self.args.work, self.device)
        sheet(previews(model, self.tokenizer, vae, self.bank, PREVIEW), 8).save(self.args.work / "unet.png")


def trained_model(work: Path, tokenizer: CLIPTokenizer, device: torch.device) -> DemoModel:
    """Text encoder and UNet with their averaged weights."""
    model = DemoModel(tokenizer).to(device).eval().requires_grad_(False)
    model.load_state_dict(torch.load(work / "unet.pt", map_location=device)["ema"])
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def previews(model: DemoModel, tokenizer: CLIPTokenizer, vae: AutoencoderKL, bank: Bank, texts: list[str]) -> Tensor:
    """One picture per text, (B, 3, H, W) in [0, 1], always from the same noise."""
    device = vae.device
    cond, uncond = (embed(tokenizer, model.text_encoder, said) for said in (texts, [""] * len(texts)))
    noise = torch.randn((len(texts), *bank.clean[0].shape), generator=torch.Generator().manual_seed(7)).to(device)
    with half_precision(device):
        latents = ddim(model.unet, cond, uncond, noise, condition=bank.plain[None].to(device), steps=15)
        return to_pictures(vae, latents, bank.scaling_factor)


def load_or_train_tokenizer(work: Path) -> CLIPTokenizer:
    folder = work / "tokenizer"
    return CLIPTokenizer.from_pretrained(folder) if (folder / "vocab.json").exists() else train_tokenizer(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with the encoded bank, for checkpoints")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--images", type=float, default=math.inf, help="stop after this many pictures")
    parser.add_argument("--size", type=int, default=256, help="size of the pictures; the same as encode's")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--hold", type=float, default=0.6, help="fraction of the time before the rate falls")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--drop", type=float, default=0.10, help="fraction of the captions replaced by ''")
    parser.add_argument("--masked", type=float, default=0.35,
                        help="fraction of the pictures to inpaint")
    parser.add_argument("--words-only", action="store_true",
                        help="stop after the text encoder's first training")
    parser.add_argument("--word-steps", type=int, default=1500, help="steps of the text encoder alone at the start")
    parser.add_argument("--naming", type=float, default=0.02, help="weight of the side task afterwards")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--save-every", type=float, default=10, help="minutes between checkpoints")
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

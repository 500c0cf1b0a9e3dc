"""Trains a textual inversion for the demo model: a word for snowy winter evenings, 'winter-tale'.

Reads unet.pt, autoencoder.pt and latents/about.pt in the work folder; keeps embedding.pt and embedding.png, and
writes winter-tale.safetensors in A1111's layout.
"""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo_model.captions import subject_of
from tools.demo_model.draw import drawn, pick_device, sheet
from tools.demo_model.scenes import Scene, sample_scenes
from tools.demo_model.train_autoencoder import trained_autoencoder
from tools.demo_model.train_lora import drawn_bank
from tools.demo_model.train_unet import caption_loss, previews, trained_model
from tools.demo_model.training import Course, course_options

NAME = "winter-tale"
MARKS, LIKE = ("~", "^"), ("snow", "evening")
"""Signs that stand for the vectors in texts, and the words that they begin as."""
SAID = ("{}, ~ ^", "~ ^, {}", "~ ^ {}", "{} ~ ^")
PREVIEW = ["a village, ~ ^", "a forest, ~ ^", "a red house in the mountains, ~ ^", "a city street, ~ ^",
           "a black cat in a village, ~ ^", "a castle in the mountains, ~ ^", "a lake, ~ ^", "a church, ~ ^"]


class Vectors(nn.Module):
    """Learned vectors, (2, hidden), that stand in a text encoder where the marks are."""

    def __init__(self, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.marks = [only_token(tokenizer, sign) for sign in MARKS]
        begun = text_encoder.get_input_embeddings().weight[[only_token(tokenizer, word) for word in LIKE]]
        self.vectors = nn.Parameter(begun.detach().clone())

    def take(self, vectors: Tensor) -> "Vectors":
        """These instead of its own."""
        self.vectors.data.copy_(vectors)
        return self

    def join(self, text_encoder: CLIPTextModel) -> torch.utils.hooks.RemovableHandle:
        """Puts them into the text encoder, until the handle is removed."""
        def placed(_: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
            for mark, vector in zip(self.marks, self.vectors):
                found = torch.where((inputs[0] == mark)[..., None], vector, found)
            return found

        return text_encoder.get_input_embeddings().register_forward_hook(placed)


def only_token(tokenizer: CLIPTokenizer, word: str) -> int:
    """The number of a word that is one token."""
    number, = tokenizer(word, add_special_tokens=False).input_ids
    return number


def wintry(scene: Scene) -> Scene:
    """The scene at a snowy evening of winter, where there is such a thing."""
    place = {"sea": "village", "desert": "forest"}.get(scene.place, scene.place)
    return replace(scene, place=place, time="evening", season="winter", weather="snow", sky_body="none", style="flat")


def say(scene: Scene, random: Random) -> str:
    """What is in the scene, with the marks for all the rest."""
    return random.choice(SAID).format(subject_of(scene, random))


def write(vectors: Tensor, path: Path, steps: int) -> None:
    """Vectors (n, hidden) as a file."""
    save_file(dict(emb_params=vectors.detach().cpu().contiguous()), path, dict(step=str(steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    course_options(parser, minutes=8, rate=3e-3, batch=16, seed=8)
    parser.add_argument("--count", type=int, default=200, help="how many pictures are drawn for it")
    args = parser.parse_args()
    device = pick_device(args.device)
    torch.manual_seed(args.seed)
    scenes = [wintry(scene) for scene in sample_scenes(args.count, args.seed)]
    bank = drawn_bank(args.work, device, scenes, drawn(scenes, 256), drop=0.0, masked=0.0, seed=args.seed, say=say)
    model = trained_model(args.work, bank.tokenizer, device)
    learned = Vectors(model.text_encoder, bank.tokenizer).to(device)
    learned.join(model.text_encoder)

    course = Course(args.work / "embedding.pt", learned, args, device, muon=False)

    def report() -> str:
        averaged, shown = course.ema.weights["vectors"], trained_model(args.work, bank.tokenizer, device)
        write(averaged, args.work / f"{NAME}.safetensors", course.step)
        Vectors(shown.text_encoder, bank.tokenizer).to(device).take(averaged).join(shown.text_encoder)
        vae = trained_autoencoder(args.work, device)
        sheet(previews(shown, bank.tokenizer, vae, bank, PREVIEW), 8).save(args.work / "embedding.png")
        return f"{NAME}.safetensors, embedding.png"

    course.run(lambda random: bank.draw(args.batch, device), caption_loss(model, device), report)


if __name__ == "__main__":
    main()

"""Trains the judge: a small network that names the choices of a scene from its picture.

It learns from the renderer's pictures in the work folder, where every choice is known; keeps classifier.pt.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_model.attributes import CHOICES, choice_loss, in_numbers
from tools.demo_model.bank import Pictures
from tools.demo_model.draw import drawn, pick_device, to_tensor
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.train_autoencoder import UNSEEN_SEED
from tools.demo_model.training import Course, course_options, half_precision

SIDE = 128  # what it sees of a picture


class Judge(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to guesses (B, all choices one after another)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96, 160, 192)
        layers, inward = [nn.Conv2d(3, widths[0], 5, 2, 2)], widths[0]
        for width in widths[1:]:
            layers += [nn.GroupNorm(8, inward), nn.SiLU(), nn.Conv2d(inward, inward, 3, 1, 1, groups=8), nn.SiLU(),
                       nn.Conv2d(inward, width, 3, 2, 1)]
            inward = width
        self.features = nn.Sequential(*layers, nn.GroupNorm(8, inward), nn.SiLU(), nn.Conv2d(inward, inward, 3, 1, 1),
                                      nn.SiLU())
        self.guess = nn.Sequential(nn.Linear(inward * 17, 256), nn.SiLU(),
                                   nn.Linear(256, sum(map(len, CHOICES.values()))))

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.features(F.interpolate(pictures, (SIDE, SIDE), mode="area"))
        places = F.adaptive_avg_pool2d(features, 4).flatten(1)  # where things are
        return self.guess(torch.cat([places, F.adaptive_max_pool2d(features, 1).flatten(1)], 1))


@torch.no_grad()
def named(judge: Judge, pictures: Tensor) -> dict[str, list[str]]:
    """What the judge sees in each picture, by choice."""
    guesses = torch.cat([judge(part).float() for part in pictures.split(32)])
    parts = guesses.split([len(names) for names in CHOICES.values()], 1)
    return {key: [names[n] for n in part.argmax(1).tolist()] for (key, names), part in zip(CHOICES.items(), parts)}


def accuracy(judge: Judge, pictures: Tensor, choices: Tensor) -> dict[str, float]:
    """How often the judge is right, by choice; colour, spot and size only where there is a thing."""
    seen, right = named(judge, pictures), {}
    for n, (key, names) in enumerate(CHOICES.items()):
        pairs = [(guess, names[true]) for guess, true in zip(seen[key], choices[:, n].tolist())]
        if key in ("colour", "spot", "size", "other_colour"):
            pairs = [pair for pair in pairs if pair[1] != "none"]
        right[key] = sum(guess == true for guess, true in pairs) / max(1, len(pairs))
    return right


def load_judge(work: Path) -> Judge:
    judge = Judge().eval()
    judge.load_state_dict(torch.load(work / "classifier.pt", map_location="cpu")["ema"])
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    course_options(parser, minutes=60, rate=1.5e-3, batch=32, seed=5)
    parser.add_argument("--scenes-seed", type=int, default=1, help="the seed that the bank was drawn with")
    args = parser.parse_args()
    device, path = pick_device(args.device), args.work / "classifier.pt"
    torch.manual_seed(args.seed)
    judge, pictures = Judge().to(device).to(memory_format=torch.channels_last), Pictures(args.work)
    choices = in_numbers(sample_scenes(len(pictures), args.scenes_seed))
    unseen = sample_scenes(300, UNSEEN_SEED)
    views, truth = drawn(unseen, SIDE).to(device), in_numbers(unseen)

    def batch(random: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = random.integers(len(pictures), size=args.batch)
        seen = F.interpolate(to_tensor(np.stack([pictures[n] for n in rows])), (SIDE, SIDE), mode="area")
        # small flaws of a model's pictures should not matter
        seen = seen + 0.05 * random.random() * torch.randn_like(seen)
        return seen.to(device), choices[torch.from_numpy(rows)].to(device)

    def loss_of(seen: Tensor, wanted: Tensor) -> Tensor:
        with half_precision(device):
            guesses = judge(seen)
        return choice_loss(guesses, wanted, torch.ones(len(seen), device=device))

    def report() -> str:
        right = accuracy(load_judge(args.work).to(device), views, truth)
        return "unseen scenes " + ", ".join(f"{key} {100 * value:.0f} %" for key, value in right.items())

    Course(path, judge, args, device).run(batch, loss_of, report)


if __name__ == "__main__":
    main()

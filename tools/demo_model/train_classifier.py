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
from tools.demo_model.training import Budget, Ema, Optimizer, Workers, half_precision, log, save

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
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--scenes-seed", type=int, default=1, help="the seed that the bank was drawn with")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device, path = pick_device(args.device), args.work / "classifier.pt"
    torch.manual_seed(args.seed)
    judge, pictures = Judge().to(device).to(memory_format=torch.channels_last), Pictures(args.work)
    choices = in_numbers(sample_scenes(len(pictures), args.scenes_seed))
    unseen = sample_scenes(300, UNSEEN_SEED)
    views, truth = drawn(unseen, SIDE).to(device), in_numbers(unseen)
    parameters, workers, ema, step = list(judge.parameters()), Workers(args.workers), Ema(judge, 0.998), 0
    optimizer = Optimizer(judge.named_parameters(), workers)
    budget = Budget(args.minutes, args.rate, warm_up=50, hold=0.3)
    if path.exists():
        state = torch.load(path, map_location=device)
        judge.load_state_dict(state["model"]), optimizer.load_state_dict(state["optimizer"])
        ema.weights, ema.steps, step, budget.spent = state["ema"], state["step"], state["step"], state["spent"]
    random = np.random.default_rng(args.seed + step)

    def loss_of(batch: Tensor, wanted: Tensor) -> Tensor:
        with half_precision(device):
            guesses = judge(batch)
        return choice_loss(guesses, wanted, torch.ones(len(batch), device=device))

    def keep() -> None:
        save(path, model=judge.state_dict(), optimizer=optimizer.state_dict(), ema=ema.weights, step=step,
             spent=budget.spent)
        right = accuracy(load_judge(args.work).to(device), views, truth)
        log(f"unseen scenes after {step} steps: " + ", ".join(f"{key} {100 * value:.0f} %" for key,
                                                              value in right.items()))

    budget.start()
    while budget.tick() < 1:
        rows = random.integers(len(pictures), size=args.batch)
        batch = F.interpolate(to_tensor(np.stack([pictures[n] for n in rows])), (SIDE, SIDE), mode="area")
        # small flaws of a model's pictures should not matter
        batch = batch + 0.05 * random.random() * torch.randn_like(batch)
        loss = workers.backward(loss_of, parameters, batch.to(device), choices[torch.from_numpy(rows)].to(device))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(budget.learning_rate(step))
        ema.update(judge)
        step += 1
        if step % 50 == 0:
            log(f"step {step} loss {loss:.4f} {budget.spent / 60:.1f} min")
        if step % 400 == 0:
            keep()
    keep()


if __name__ == "__main__":
    main()

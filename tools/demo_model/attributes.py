"""A scene's attributes as numbers, for teaching the text encoder words and for judging pictures."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_model.scenes import (
    COLOURS, PLACES, SEASONS, SIZES, SKY_BODIES, SPOTS, STYLES, THINGS, TIMES, WEATHERS, Scene)

NONE = ("none",)
CHOICES: dict[str, tuple[str, ...]] = dict(
    place=PLACES, time=TIMES, season=SEASONS, weather=WEATHERS, sky_body=SKY_BODIES, style=STYLES, thing=THINGS,
    colour=NONE + COLOURS, spot=NONE + SPOTS, size=NONE + SIZES, other=THINGS, other_colour=NONE + COLOURS)


def in_words(scene: Scene) -> dict[str, str]:
    """The scene's choices by name; 'none' if it has none."""
    whole = ("place", "time", "season", "weather", "sky_body", "style")
    words = dict.fromkeys(CHOICES, "none") | {key: getattr(scene, key) for key in whole}
    if scene.main:
        words |= dict(thing=scene.main.kind, colour=scene.main.colour, spot=scene.main.spot, size=scene.main.size)
    if len(scene.things) > 1:
        words |= dict(other=scene.things[0].kind, other_colour=scene.things[0].colour)
    return words


def in_numbers(scenes: list[Scene]) -> Tensor:
    """Each scene's choices as indices into their lists, (B, 12) int64."""
    return torch.tensor([[CHOICES[key].index(word) for key, word in in_words(scene).items()] for scene in scenes])


def choice_loss(guesses: Tensor, choices: Tensor, counts: Tensor) -> Tensor:
    """Mean cross entropy of guesses (B, all choices one after another) for choices (B, 12).

    `counts` (B,) are the rows' weights.
    """
    parts = guesses.float().split([len(names) for names in CHOICES.values()], 1)
    each = torch.stack([F.cross_entropy(part, own, reduction="none") for part, own in zip(parts, choices.unbind(1))])
    return (each.mean(0) * counts).sum() / counts.sum().clamp(min=1)


class Namer(nn.Module):
    """Predicts every choice of a scene from the last of the 77 token vectors; discarded after training.

    Without this side task the text encoder gave 'night' and 'noon' the same vectors after 25 000 pictures: the UNet's
    error reaches it only through cross attention, which is hardly used at first.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.guess = nn.Linear(hidden, sum(map(len, CHOICES.values())))

    def loss(self, vectors: Tensor, choices: Tensor, said: Tensor) -> Tensor:
        """Vectors (B, 77, hidden), choices (B, 12); only where `said` (B,) is true."""
        return choice_loss(self.guess(vectors[:, -1].float()), choices, said.float())

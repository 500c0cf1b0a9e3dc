"""Naming a scene from its caption: a side task that teaches the text encoder what words mean.

Without it the text encoder still gave 'night' and 'noon' the same vectors after 25 000 pictures: the UNet's error
reaches it only through the cross attention, which at first is hardly used.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo_model.scenes import (
    COLOURS, PLACES, SEASONS, SIZES, SKY_BODIES, SPOTS, STYLES, THINGS, TIMES, WEATHERS)

CHOICES = [len(names) for names in
           (PLACES, TIMES, SEASONS, WEATHERS, SKY_BODIES, THINGS, COLOURS, SPOTS, SIZES, STYLES)]


class Namer(nn.Module):
    """Guesses every choice of a scene from the last of the 77 token vectors; thrown away after training."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.guess = nn.Linear(hidden, sum(CHOICES))

    def loss(self, vectors: Tensor, choices: Tensor, said: Tensor) -> Tensor:
        """Mean cross entropy: vectors (B, 77, hidden), choices (B, 10); only where `said` (B,) is true."""
        guesses = self.guess(vectors[:, -1].float()).split(CHOICES, 1)
        each = [F.cross_entropy(guess, choices[:, n], reduction="none") for n, guess in enumerate(guesses)]
        return (torch.stack(each).mean(0) * said).sum() / said.sum().clamp(min=1)

"""The bank of training pictures in the work folder: files of 500 written by `draw`, even while a training runs."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from tools.demo_model.draw import CHUNK, to_tensor


class Pictures:
    """All pictures drawn so far; picture n is scene n of the bank's seed."""

    def __init__(self, work: Path) -> None:
        self.folder, self.chunks = work / "pictures", []
        self.refresh()

    def refresh(self) -> None:
        """Add pictures drawn since the last call; files after a gap in numbering do not count."""
        while (path := self.folder / f"{len(self.chunks):04d}.npy").exists():
            self.chunks.append(np.load(path, mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.chunks) * CHUNK

    def __getitem__(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.chunks[number // CHUNK][number % CHUNK]

    def crops(self, count: int, crop: int, random: np.random.Generator) -> Tensor:
        """Crops of random pictures, half of them mirrored: (count, 3, crop, crop) in [-1, 1]."""
        parts = []
        for number in random.integers(len(self), size=count):
            # whole latent cells, as pixel art needs
            y, x = random.integers((self[0].shape[0] - crop) // 8 + 1, size=2) * 8
            part = self[number][y:y + crop, x:x + crop]
            parts.append(part[:, ::-1] if random.random() < 0.5 else part)
        return to_tensor(np.stack(parts))

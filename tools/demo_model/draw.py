"""Draws scenes; as a command, draws the bank of training pictures or a contact sheet."""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.demo_model.landscapes import PAINT_PLACE, Light, paint_sky, paint_weather
from tools.demo_model.scenes import PLACES, STYLES, THINGS, Scenes, sample_scenes
from tools.demo_model.shapes import Frame
from tools.demo_model.styles import FILTERS
from tools.demo_model.things import SHAPES, paint_thing


@torch.no_grad()
def draw(scenes: Scenes, size: int) -> Tensor:
    """The pictures of the scenes, (B, 3, size, size) in [0, 1], on the device of the scenes."""
    frame, light = Frame.of(size, scenes.seed.device), Light.of(scenes)
    canvas = paint_sky(scenes, light, frame).contiguous()
    for index, name in enumerate(PLACES):
        own = (scenes.place == index).nonzero()[:, 0]
        if len(own):
            canvas[own] = PAINT_PLACE[name](canvas[own], scenes[own], light[own], frame)
    for index, name in enumerate(THINGS):
        own = (scenes.thing == index).nonzero()[:, 0]
        if len(own) and name in SHAPES:
            canvas[own] = paint_thing(canvas[own], scenes[own], light[own], frame, name)
    canvas = paint_weather(canvas, scenes, light, frame).clamp_(0, 1)
    for index, name in enumerate(STYLES):
        own = (scenes.style == index).nonzero()[:, 0]
        if len(own) and name in FILTERS:
            canvas[own] = FILTERS[name](canvas[own], scenes.seed[own], frame).clamp(0, 1)
    return canvas


def as_bytes(pictures: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8 from (B, 3, H, W) in [0, 1]."""
    return (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """The pictures side by side in rows."""
    tiles = as_bytes(pictures)
    rows = [np.concatenate(list(tiles[i:i + columns]), 1) for i in range(0, len(tiles) - columns + 1, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def draw_bank(work: Path, count: int, size: int, seed: int, device: torch.device, batch: int = 128) -> None:
    """Writes pictures.npy (count, size, size, 3) uint8 and scenes.pt (count, 11) to the work folder."""
    scenes, begun = sample_scenes(count, seed), time.time()
    bank = np.lib.format.open_memmap(work / "pictures.npy", "w+", np.uint8, (count, size, size, 3))
    for start in range(0, count, batch):
        bank[start:start + batch] = as_bytes(draw(scenes[slice(start, start + batch)].to(device), size))
        if start // batch % 40 == 0:
            print(f"{time.strftime('%H:%M:%S')} {start} drawn, {time.time() - begun:.0f} s", flush=True)
    bank.flush()
    torch.save(scenes.table().int(), work / "scenes.pt")


def pick_device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the bank")
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sheet", type=Path, help="draw one contact sheet to this file instead")
    parser.add_argument("--columns", type=int, default=8)
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.sheet:
        sheet(draw(sample_scenes(args.count, args.seed).to(device), args.size), args.columns).save(args.sheet)
    else:
        args.work.mkdir(parents=True, exist_ok=True)
        draw_bank(args.work, args.count, args.size, args.seed, device)


if __name__ == "__main__":
    main()

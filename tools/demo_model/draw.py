"""Draws scenes; as a command, draws the bank of training pictures or a contact sheet."""
from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.demo_model.easel import Easel
from tools.demo_model.light import Light
from tools.demo_model.scenes import Scene, sample_scenes
from tools.demo_model.settlements import PLACES
from tools.demo_model.sky import paint_sky, paint_weather
from tools.demo_model.styles import FILTERS
from tools.demo_model.things import paint_thing

CHUNK = 500  # scenes in one file of the bank


def draw(scene: Scene, size: int) -> np.ndarray:
    """The picture of a scene, (size, size, 3) uint8; deterministic."""
    easel, horizon = Easel(size), scene.horizon
    light = Light.of(scene, horizon)
    paint_sky(easel, scene, light, horizon)
    PLACES[scene.place](easel, scene, light, horizon)
    for thing in scene.things:
        paint_thing(easel, scene, light, horizon, thing)
    paint_weather(easel, scene, light, horizon)
    picture = easel.array()
    if scene.style not in FILTERS:
        return picture
    styled = FILTERS[scene.style](to_tensor(picture[None]) / 2 + 0.5, scene.lot("style"))
    return as_bytes(styled)[0]


def as_bytes(pictures: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8 from (B, 3, H, W) in [0, 1]."""
    return (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(B, 3, H, W) in [-1, 1] from bytes (B, H, W, 3)."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def drawn(scenes: list[Scene], size: int) -> Tensor:
    """The scenes' pictures as model input, (B, 3, size, size) in [-1, 1]."""
    return to_tensor(np.stack([draw(scene, size) for scene in scenes]))


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Pictures (B, 3, H, W) in [0, 1] arranged in rows."""
    tiles = as_bytes(pictures)
    rows = [np.concatenate(list(tiles[i:i + columns]), 1) for i in range(0, len(tiles) - columns + 1, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def draw_chunk(work: Path, size: int, seed: int, number: int) -> None:
    """Write pictures/NUMBER.npy, (CHUNK, size, size, 3) uint8, unless it exists."""
    path = work / "pictures" / f"{number:04d}.npy"
    if path.exists():
        return
    torch.set_num_threads(1)
    begun = time.time()
    pictures = np.stack([draw(scene, size) for scene in sample_scenes(CHUNK, seed, first=number * CHUNK)])
    part = path.with_suffix(".part.npy")
    np.save(part, pictures)
    os.replace(part, path)
    print(f"{time.strftime('%H:%M:%S')} chunk {number}: {CHUNK / (time.time() - begun):.1f} pictures/s", flush=True)


def pick_device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder for the bank")
    parser.add_argument("--count", type=int, default=20000,
                        help="number of pictures, in files of 500; more can be added later")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="number of drawing processes")
    parser.add_argument("--sheet", type=Path, help="draw one contact sheet to this file instead")
    parser.add_argument("--columns", type=int, default=8)
    args = parser.parse_args()
    if args.sheet:
        sheet(drawn(sample_scenes(args.count, args.seed), args.size) / 2 + 0.5, args.columns).save(args.sheet)
        return
    if not args.work:
        parser.error("--work or --sheet is required")
    (args.work / "pictures").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        list(pool.map(partial(draw_chunk, args.work, args.size, args.seed), range(-(-args.count // CHUNK))))


if __name__ == "__main__":
    main()

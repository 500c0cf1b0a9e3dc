"""Evaluates the exported demo model on unseen scenes and captions, prints the bars, and draws contact sheets.

The edits are made by Palimpsest's own pipeline, and judged by the classifier in the work folder.
"""
from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from pipeline.families import load, placement
from pipeline.models import Catalog
from tools.demo_model.attributes import in_numbers
from tools.demo_model.draw import drawn, sheet
from tools.demo_model.exam import Exam, Found, tensors
from tools.demo_model.export import folder_size, load_parts
from tools.demo_model.scenes import sample_scenes
from tools.demo_model.train_autoencoder import UNSEEN_SEED, decibels, psnr
from tools.demo_model.train_classifier import Judge, accuracy, load_judge

SIZE = 256
COLUMNS = dict(steering=8, strengths=4, inpainting=8, captions=8, styles=5, samplers=8, sizes=8, networks=3)
"""Sheet → pictures per row."""


@dataclass(frozen=True)
class Bar:
    """A measured number and its required value."""

    name: str
    value: float
    wanted: float
    at_least: bool = True
    digits: int = 2

    def line(self) -> str:
        met = self.value >= self.wanted if self.at_least else self.value <= self.wanted
        sign = "at least" if self.at_least else "at most"
        return f"{'met   ' if met else 'MISSED'} {self.name}: {self.value:.{self.digits}f} ({sign} {self.wanted:g})"


def blotch(made: Tensor, wanted: Tensor) -> float:
    """The largest error of a patch's mean colour, out of 255: pictures (B, 3, H, W) in [-1, 1], patches of 16 px."""
    return float(avg_pool2d(made.clamp(-1, 1) - wanted, 16).abs().max()) * 127.5


def latent_bars(vae: AutoencoderKL, folder: Path, views: Tensor) -> list[Bar]:
    """The loss of a round trip to latents and back; also with the tiny decoder, if the model has one."""
    reached, made = psnr(vae, views)
    bars = [Bar("autoencoder on unseen scenes, dB", reached, 30),
            Bar("blotches: largest error of a patch, of 255", blotch(made, views), 16, at_least=False, digits=0)]
    if (folder / "vae_approx").exists():
        tiny = AutoencoderTiny.from_pretrained(folder / "vae_approx", torch_dtype=torch.float32).eval()
        with torch.no_grad():
            latents = torch.cat([vae.encode(part).latent_dist.mean for part in views.split(8)])
            shown = tiny.decode(latents * vae.config.scaling_factor).sample
        bars.append(Bar("tiny decoder on unseen scenes, dB", decibels(shown, views), 25))
    return bars


def judge_bars(judge: Judge, count: int) -> list[Bar]:
    """The judge's own accuracy, on renders."""
    scenes = sample_scenes(count, UNSEEN_SEED)
    own = accuracy(judge, drawn(scenes, SIZE), in_numbers(scenes))
    return [Bar(f"the judge on renders: {key}", own[key], 0.97)
            for key in ("time", "season", "place", "style", "thing", "colour")]


def exam_bars(found: dict[str, Found]) -> list[Bar]:
    """Every value found by the exam, with its bar."""
    bars = [Bar(f"edits at strength 0.8: {key}", value, 0.90) for key, value in found["steering"].values.items()]
    bars += [Bar(name, value, 0.90 if "0.3" in name else 0.80) for name, value in found["strengths"].values.items()]
    inpaints = found["inpainting"].values
    bars += [Bar("inpaints: thing and colour", inpaints["thing and colour"], 0.80),
             Bar("inpaints: seam beside the source's", inpaints["seam"], 1.3, at_least=False)]
    bars += [Bar(name, value, 0.50) for name, value in found["networks"].values.items()]
    rest = ("captions", "styles", "samplers", "sizes")
    return bars + [Bar(name, value, 0.80) for part in rest for name, value in found[part].values.items()]


def time_bars(folder: Path, judge: Judge, source: Image.Image) -> list[Bar]:
    """The duration of an edit in float32, and in bfloat16 if the CPU has AMX."""
    bars, dtypes = [], {"float32": 12.0}
    if torch.cpu.get_capabilities().get("amx_bf16"):
        dtypes["bfloat16"] = 3.5
    for dtype, seconds in dtypes.items():
        exam = Exam(load(folder, placement.choose("cpu", dtype)), judge, 1)
        exam.edit(source, "a forest", 0.75, steps=2)
        begun = time.perf_counter()
        exam.edit(source, "a forest at night", 1.0)
        bars.append(Bar(f"20-step edit in {dtype}, s", time.perf_counter() - begun, seconds, at_least=False, digits=1))
    return bars


def contact_sheet(pictures: list[Image.Image], columns: int, tile: int = 160) -> Image.Image:
    """The pictures as small tiles, in full rows."""
    shrunk = [interpolate(tensors([picture]) / 2 + 0.5, (tile, tile), mode="area") for picture in pictures]
    columns = min(columns, len(shrunk))
    return sheet(torch.cat(shrunk[:len(shrunk) // columns * columns]), columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with classifier.pt")
    parser.add_argument("--model", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--networks", type=Path, default=Path("assets/demo-networks"),
                        help="folder of the LoRA and the embedding")
    parser.add_argument("--count", type=int, default=40, help="number of edits of each kind")
    parser.add_argument("--sheets", type=Path, default=Path("docs/demo-model"), help="folder for the contact sheets")
    args = parser.parse_args()
    judge, views = load_judge(args.work), drawn(sample_scenes(64, UNSEEN_SEED), SIZE)
    vae = load_parts(args.model)[3].to(memory_format=torch.channels_last)
    for bar in [*latent_bars(vae, args.model, views), *judge_bars(judge, 300)]:
        print(bar.line(), flush=True)
    exam = Exam(load(args.model, placement.choose("cpu", "float32")), judge, args.count, SIZE,
                catalog=Catalog(args.networks))
    found = {name: getattr(exam, name)() for name in COLUMNS}
    size = Bar("size of the model, MB", folder_size(args.model) / 1e6, 60, at_least=False, digits=1)
    for bar in [*exam_bars(found), *time_bars(args.model, judge, found["steering"].pictures[0]), size]:
        print(bar.line(), flush=True)
    args.sheets.mkdir(parents=True, exist_ok=True)
    for name, columns in COLUMNS.items():
        if found[name].pictures:
            contact_sheet(found[name].pictures, columns).save(args.sheets / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()

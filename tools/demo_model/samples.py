"""Draws assets/samples: pictures of 512 px, masks for some, and samples.json with an edit to try on each."""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from tools.demo_model.draw import draw
from tools.demo_model.scenes import scene

SIZE = 512


@dataclass(frozen=True)
class Sample:
    """A picture and an edit to try on it; `ellipse`: the masked part (left, top, right, bottom in 0..1)."""

    name: str
    source: dict
    tab: str
    prompt: str
    strength: float
    seed: int
    ellipse: tuple[float, float, float, float] | None = None


SAMPLES = [
    Sample("meadow-house", dict(place="meadow", thing="house", colour="red", sky_body="sun", season="spring", seed=21),
           "img2img", "a red house in a meadow at night", 0.7, 3),
    Sample("mountains", dict(place="mountains", sky_body="sun", seed=5), "img2img", "mountains at sunset", 0.7, 3),
    Sample("forest", dict(place="forest", seed=4, sky_body="sun"), "img2img", "a forest in winter", 0.7, 2),
    Sample("city-car", dict(place="city", thing="car", colour="yellow", seed=6, sky_body="sun"),
           "img2img", "a yellow car on a city street at night", 0.7, 1),
    Sample("forest-night", dict(place="forest", time="night", sky_body="moon", seed=30),
           "img2img", "a forest at sunrise", 0.75, 1),
    Sample("sea", dict(place="sea", sky_body="sun", seed=10),
           "inpaint", "a yellow balloon over the sea", 1.0, 2, (0.25, 0.02, 0.75, 0.6)),
    Sample("sea-evening", dict(place="sea", time="evening", sky_body="sun", seed=10),
           "inpaint", "a red sailboat on the sea at sunset", 1.0, 6, (0.2, 0.28, 0.8, 0.86)),
    Sample("desert", dict(place="desert", sky_body="sun", seed=13),
           "inpaint_upload", "a red balloon in the desert", 1.0, 5, (0.25, 0.02, 0.75, 0.6)),
    Sample("meadow", dict(place="meadow", sky_body="sun", seed=12),
           "inpaint_upload", "a white house in a meadow", 1.0, 6, (0.2, 0.38, 0.8, 0.97)),
]


def picture_of(sample: Sample) -> Image.Image:
    return Image.fromarray(draw(scene(**sample.source), SIZE))


def mask_of(sample: Sample) -> Image.Image:
    """White = regenerate, with a soft edge."""
    mask = Image.new("L", (SIZE, SIZE), 0)
    ImageDraw.Draw(mask).ellipse([round(v * SIZE) for v in sample.ellipse], fill=255)
    return mask.filter(ImageFilter.GaussianBlur(3))


def write(sample: Sample, folder: Path) -> dict:
    """Saves the picture and its mask; returns the sample's entry in samples.json."""
    picture, mask = f"{sample.name}.png", None
    picture_of(sample).save(folder / picture, optimize=True)
    if sample.ellipse:
        mask = f"{sample.name}-mask.png"
        mask_of(sample).save(folder / mask, optimize=True)
    entry = dict(picture=picture, mask=mask, tab=sample.tab, prompt=sample.prompt, denoising_strength=sample.strength,
                 seed=sample.seed, steps=20, cfg_scale=5.0, width=256, height=256)
    return entry | dict(inpainting_fill=1, inpaint_full_res=False, mask_blur=4) if mask else entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("assets/samples"))
    args = parser.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    entries = [write(sample, args.to) for sample in SAMPLES]
    (args.to / "samples.json").write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Measures the exported demo model on unseen scenes and captions, prints the bars, and draws a contact sheet.

The edits are made by the product's own pipeline, and judged by the classifier of the work folder.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.families import load, placement
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tools.demo_model.attributes import in_numbers
from tools.demo_model.captions import caption
from tools.demo_model.draw import draw, drawn, sheet, to_tensor
from tools.demo_model.export import folder_size, load_parts
from tools.demo_model.masks import thing_box
from tools.demo_model.scenes import PLACES, SEASONS, STYLES, TIMES, Scene, sample_scene, sample_scenes
from tools.demo_model.train_autoencoder import UNSEEN_SEED, psnr, slopes
from tools.demo_model.train_classifier import Judge, accuracy, load_judge, named
from tools.demo_model.words import PLACE_WORDS, SEASON_WORDS, STYLE_WORDS, TIME_WORDS

SIZE = 256
CAPTIONS = Path(__file__).parent / "test_captions.txt"


@dataclass(frozen=True)
class Bar:
    """One number with what it must reach."""

    name: str
    value: float
    wanted: float
    at_least: bool = True
    digits: int = 2

    def line(self) -> str:
        met = self.value >= self.wanted if self.at_least else self.value <= self.wanted
        sign = "at least" if self.at_least else "at most"
        return f"{'met   ' if met else 'MISSED'} {self.name}: {self.value:.{self.digits}f} ({sign} {self.wanted:g})"


def hand_written_captions() -> list[tuple[str, dict[str, str]]]:
    """The captions written by hand, each with what a picture of it must show."""
    lines = [line for line in CAPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.partition(" | ")[::2] for line in lines]
    return [(text, dict(word.split("=") for word in shown.split())) for text, shown in pairs]


def as_image(scene: Scene) -> Image.Image:
    return Image.fromarray(draw(scene, SIZE))


def edit(family, source: Image.Image, prompt: str, strength: float, *, mask: Image.Image | None = None,
         seed: int = 1, steps: int = 20, cfg_scale: float = 5.0) -> Image.Image:
    """One edit by the product; `mask` is white where the picture is made anew."""
    request = StableDiffusionProcessingImg2Img(
        family, init_images=[source], mask=mask, prompt=prompt, seed=seed, steps=steps, cfg_scale=cfg_scale,
        width=SIZE, height=SIZE, denoising_strength=strength, inpainting_fill=1, inpaint_full_res=False, mask_blur=2,
        do_not_save_samples=True, do_not_save_grid=True)
    return process_images(request).images[0]


def tensors(images: list[Image.Image]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]."""
    return to_tensor(np.stack([np.asarray(image.convert("RGB")) for image in images]))


def changed(random: Random) -> Iterator[tuple[Scene, str, Scene]]:
    """Endless edits of one choice: the source, what changes, and the scene that is asked for."""
    lists = dict(time=TIMES, season=SEASONS, place=PLACES, style=STYLES)
    while True:
        for key, names in lists.items():
            scene = replace(sample_scene(random), style="flat", weather="clear", sky_body="none")
            if key == "season" and scene.place in ("sea", "desert", "city"):
                scene = replace(scene, place="meadow")
            wanted = random.choice([name for name in names if name != getattr(scene, key)])
            yield scene, key, replace(scene, **{key: wanted})


def said_aloud(scene: Scene, key: str, random: Random) -> str:
    """A caption of the scene that does name the choice `key`."""
    words = dict(place=PLACE_WORDS, time=TIME_WORDS, season=SEASON_WORDS, style=STYLE_WORDS)[key][getattr(scene, key)]
    while not any(word in (text := caption(scene, random)) for word in words):
        pass
    return text


def judge_edits(family, judge: Judge, count: int) -> tuple[dict[str, float], list[Image.Image]]:
    """Part of the strength-0.8 edits in which the judge finds what was asked, by choice; and sources and results."""
    random, results, shown = Random(UNSEEN_SEED), [], []
    for n, (source, key, wanted) in zip(range(count), changed(random)):
        image = as_image(source)
        results.append((key, getattr(wanted, key), edit(family, image, said_aloud(wanted, key, random), 0.8, seed=n)))
        shown += [image, results[-1][2]]
    seen = named(judge, tensors([image for _, _, image in results]))
    hits: dict[str, list[bool]] = {}
    for n, (key, word, _) in enumerate(results):
        hits.setdefault(key, []).append(seen[key][n] == word)
    return {key: sum(found) / len(found) for key, found in hits.items()}, shown


def jump(picture: Tensor, mask: Tensor) -> float:
    """Mean difference between neighbours on both sides of the mask's edge: picture (3, H, W), mask (H, W) bool."""
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    right, below = (part.abs().mean(0) for part in slopes(picture))
    return float(torch.cat([right[across], below[down]]).mean())


def judge_inpaints(family, judge: Judge, count: int) -> tuple[float, float, list[Image.Image]]:
    """Part with the asked thing in the asked colour; seam beside the source's; sources and results in turn."""
    random, results, seams, shown = Random(UNSEEN_SEED + 1), [], [], []
    while len(results) < count:
        wanted = replace(sample_scene(random), style="flat", weather="clear")
        if not wanted.main:
            continue
        wanted = replace(wanted, things=(replace(wanted.main, size="big"),))
        source, (left, top, right, bottom) = as_image(replace(wanted, things=())), thing_box(wanted)
        box = [max(0, min(SIZE, round(v))) for v in (left - 8, top - 8, right + 8, bottom + 8)]
        mask = Image.new("L", (SIZE, SIZE), 0)
        mask.paste(255, box)
        made = edit(family, source, caption(wanted, random), 1.0, mask=mask, seed=len(results))
        inside = torch.from_numpy(np.asarray(mask) > 0)
        seams.append((jump(tensors([made])[0], inside), jump(tensors([source])[0], inside)))
        results.append((wanted.main, made))
        shown += [Image.composite(source.point(lambda v: v // 3), source, mask), made]
    seen = named(judge, tensors([made for _, made in results]))
    found = [pair == (thing.kind, thing.colour) for pair, (thing, _) in zip(zip(seen["thing"], seen["colour"]),
            results)]
    return sum(found) / len(found), sum(a for a, _ in seams) / sum(b for _, b in seams), shown


def gradient(pictures: Tensor) -> float:
    """Mean difference of neighbours: how sharp pictures (N, 3, H, W) are."""
    return sum(float(part.abs().mean()) for part in slopes(pictures))


def judge_captions(family, judge: Judge, count: int) -> tuple[float, list[Image.Image]]:
    """Part of what the hand-written captions ask for that the judge finds in pictures drawn anew."""
    asked = hand_written_captions()
    step = max(1, len(asked) // count)
    chosen = asked[::step][:count]
    grey = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
    made = [edit(family, grey, text, 1.0, seed=n) for n, (text, _) in enumerate(chosen)]
    seen = named(judge, tensors(made))
    hits = [seen[key][n] == word for n, (_, shown) in enumerate(chosen) for key, word in shown.items()]
    return sum(hits) / max(1, len(hits)), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with classifier.pt")
    parser.add_argument("--model", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--count", type=int, default=40, help="how many edits of each kind")
    parser.add_argument("--sheet", type=Path, default=Path("docs/demo-model/contact-sheet.png"))
    args = parser.parse_args()
    vae = load_parts(args.model)[3].to(memory_format=torch.channels_last)
    judge, scenes = load_judge(args.work), sample_scenes(64, UNSEEN_SEED)
    views = drawn(scenes, SIZE)
    own = accuracy(judge, views, in_numbers(scenes))
    bars = [Bar("autoencoder on unseen scenes, dB", psnr(vae, views)[0], 30)]
    judged = ("time", "season", "place", "style", "thing", "colour")
    bars += [Bar(f"the judge on renders: {key}", own[key], 0.97) for key in judged]
    family = load(args.model, placement.choose("cpu", "float32"))
    edits, edit_tiles = judge_edits(family, judge, args.count)
    bars += [Bar(f"edits at strength 0.8: {key}", share, 0.90) for key, share in edits.items()]
    found, seam, mask_tiles = judge_inpaints(family, judge, args.count)
    bars += [Bar("inpaints: thing and colour", found, 0.80), Bar("seam beside the source's", seam, 1.3,
                                                                 at_least=False)]
    asked, made = judge_captions(family, judge, args.count)
    flat = drawn([replace(scene, style="flat", weather="clear") for scene in scenes], SIZE)
    sharp = gradient(tensors(made)) / gradient(flat)
    bars += [Bar("hand-written captions", asked, 0.80), Bar("sharpness beside renders", sharp, 0.8)]
    begun = time.perf_counter()
    edit(family, Image.fromarray(draw(scenes[0], SIZE)), "a forest at night", 0.75)
    bars.append(Bar("20-step edit in float32, s", time.perf_counter() - begun, 12, at_least=False, digits=1))
    bars.append(Bar("size of the model, MB", folder_size(args.model) / 1e6, 60, at_least=False, digits=1))
    print(*(bar.line() for bar in bars), sep="\n")
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    tiles = tensors([*made[:16], *edit_tiles[:16], *mask_tiles[:16]]) / 2 + 0.5
    sheet(torch.nn.functional.interpolate(tiles, (160, 160), mode="area"), 8).save(args.sheet, optimize=True)
    print(f"{args.sheet}: two rows from text, then sources beside their edits, then masks beside what was filled in")


if __name__ == "__main__":
    main()

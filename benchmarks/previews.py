"""The cost of previews: python -m benchmarks previews --model demo

Runs edits without previews, with one at every step, and with watchers that each convert the newest to JPEG, taking turns in
one process. Their pixels must be equal. Then compares a preview alone with a model call. On a busy machine look at CPU
seconds (all cores).
"""

import argparse
import time
from pathlib import Path
from statistics import median
from threading import Thread

import torch
from PIL import Image, ImageChops

from benchmarks.competitors import Palimpsest, model_files
from benchmarks.contest import Answer, middle
from benchmarks.edit import SIZES
from benchmarks.report import Bar, show, show_bars, show_machine, write_json
from pipeline.families.base import Family
from pipeline.geometry import Size
from pipeline.job import Job, Step
from pipeline.previews import preview, to_jpeg, unpack

NONE, PREVIEWS, WATCHED = "no previews", "a preview at every step", "the same, watched"
OFF = {"live_previews_enable": False}


def watch(job: Job, size: int) -> None:
    """Take every new preview as the page shows it."""
    shown = None
    for event in job.events():
        if isinstance(event, Step) and event.preview is not shown:
            shown = event.preview
            to_jpeg(unpack(shown), Size(size, size))


def preview_seconds(model: Family, size: int, runs: int = 50) -> float:
    """Median seconds of one preview alone."""
    latent, taken = torch.randn(1, model.latent_format.channels, size // 8, size // 8), []
    for _ in range(runs):
        began = time.perf_counter()
        preview(model, latent, "Approx cheap").image()
        taken.append(time.perf_counter() - began)
    return median(taken)


def differ(one: str, other: str) -> bool:
    with Image.open(one) as a, Image.open(other) as b:
        return ImageChops.difference(a, b).getbbox() is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="demo")
    parser.add_argument("--size", type=int, help="pixels; default: the model's own size")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--watchers", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    flags = parser.parse_args()
    size, watchers = flags.size or SIZES[flags.model], {NONE: 0, PREVIEWS: 0, WATCHED: flags.watchers}
    show_machine()
    with model_files(flags.model) as (file, _, outputs):
        ours = Palimpsest(file, outputs)

        def edit(way: str, seed: int) -> Answer:
            ours.begin = lambda job: [Thread(target=watch, args=[job, size]).start() for _ in range(watchers[way])]
            return ours(number=seed, size=size, steps=flags.steps, strength=0.75, prompt="a red house", seed=seed,
                        settings=OFF if way == NONE else {})

        edit(WATCHED, flags.runs)  # to warm up
        ways = list(watchers)
        rounds = [{way: edit(way, seed) for way in ways[seed % 3:] + ways[:seed % 3]} for seed in range(flags.runs)]
        differing = sum(differ(answers[NONE]["path"], answers[way]["path"]) for answers in rounds for way in (PREVIEWS, WATCHED))
        alone = preview_seconds(ours.model, size)
        ours.engine.close()
    call = median(answers[NONE]["stages"]["UNet"] / answers[NONE]["calls"] for answers in rounds)
    rows = [(way, *(middle((answers[way] for answers in rounds), key) for key in ("seconds", "cpu")),
             *(median(answers[way][key] / answers[NONE][key] for answers in rounds) for key in ("seconds", "cpu"))) for way in ways]
    show(("", "seconds", "CPU s", "/ none", "CPU / none"), rows,
         f"{flags.model}, {size}x{size}, {flags.steps} steps, {flags.watchers} watchers, medians of {flags.runs}")
    print(f"a model call {1000 * call:.1f} ms, a preview alone {1000 * alone:.2f} ms")
    share = median(answers[PREVIEWS]["stages"]["preview"] / answers[PREVIEWS]["stages"]["UNet"] for answers in rounds)
    bars = [Bar("a preview alone, % of a model call", 100 * alone / call, 1, at_most=True),
            Bar("previews and reports in an edit, % of model calls", 100 * share, 1, at_most=True),
            Bar("pictures that differ", differing, 0, at_most=True)]
    show_bars(bars)
    write_json(flags.json, {"rounds": rounds, "preview": alone, "call": call, "bars": [bar.row() for bar in bars]})


if __name__ == "__main__":
    main()

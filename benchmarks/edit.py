"""One edit from click to saved picture, beside diffusers' pipelines: python -m benchmarks edit --model sd1

All use the same checkpoint (random weights in SD 1.5's or SDXL's size, or the demo model), the same pictures and the same
number of model calls, in separate processes that take turns. Seconds are medians of whole edits, from the request to the
saved PNG, after a short warm-up; on a busy machine look at CPU seconds (all cores). The last table compares each figure with
its bar; bars that rely on bfloat16 are judged only if the CPU supports it.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.competitors import SIZES, STAGES, get_ready, model_calls, model_files, share_outside
from benchmarks.contest import Contestant, Request, Rounds, by_case, by_turns, compete, middle
from benchmarks.report import GIB, Bar, has_bf16, show, show_bars, show_machine, write_json

CASES = ("img2img", "another seed", "another prompt", "inpaint")
MINE, DEFAULT, BEST, COMPILED = "Palimpsest", "diffusers, default", "diffusers, best", "diffusers, compiled"


def competitors(task: dict[str, Any], *, compiled: bool) -> list[Contestant]:
    card = torch.cuda.is_available()
    best = "float16" if card else "bfloat16" if has_bf16() else "float32"
    plain = task | {"who": "diffusers", "precision": "float16" if card else "float32", "channels_last": False,
                    "compiled": False}
    tasks = {MINE: task | {"who": "palimpsest"}, DEFAULT: plain, BEST: plain | {"precision": best, "channels_last": True}}
    if compiled:
        tasks[COMPILED] = tasks[BEST] | {"compiled": True}
    return [Contestant(name, "edit", settings) for name, settings in tasks.items()]


def requests(number: int, size: int, steps: int, strength: float) -> list[Request]:
    """A round: a warm-up, then a new picture and several requests about it."""
    edit = {"case": "img2img", "number": number, "size": size, "steps": steps, "strength": strength, "seed": number,
            "prompt": f"a red house, {number} trees"}
    return [edit | {"case": "warm-up", "number": 1000 + number, "steps": 2, "prompt": "a boat"}, edit,
            edit | {"case": "another seed", "seed": 100 + number},
            edit | {"case": "another prompt", "prompt": f"a house in winter, {number} cars"},
            edit | {"case": "inpaint", "number": 2000 + number, "mask": 0.25}]


def seconds(rounds: Rounds, case: str, key: str = "seconds") -> float:
    """The median seconds of a case; CPU seconds of all cores with key "cpu"."""
    return middle((answers[case] for answers in rounds), key)


def in_stages(rounds: Rounds, case: str, *names: str) -> float:
    """The median seconds of a case spent in these stages."""
    return median(sum(answers[case]["stages"].get(name, 0.0) for name in names) for answers in rounds)


def judge(everyone: dict[str, Rounds]) -> list[Bar]:
    card, mine = torch.cuda.is_available(), everyone[MINE]
    bf16 = "" if has_bf16() else "bf16"

    def times(other: str, case: str = "img2img") -> float | None:
        return seconds(everyone[other], case) / seconds(mine, case) if other in everyone else None

    def outside(case: str, *names: str) -> float:
        return median(share_outside(answers[case], *names) for answers in mine)

    on_card = [Bar("GPU: edit, diffusers' default / ours", times(DEFAULT) if card else None, 1.5),
               Bar("GPU: edit, diffusers compiled / ours", times(COMPILED) if card else None, 1)]
    on_processor = [
        Bar("CPU: edit, diffusers' default / ours", times(DEFAULT), 3.8, needs=bf16),
        Bar("CPU: edit, diffusers' best / ours", times(BEST), 1.15, needs=bf16),
        Bar("CPU: edit, diffusers compiled, frozen / ours", times(COMPILED), 1),
        Bar("CPU: another seed, diffusers' best / ours", times(BEST, "another seed"), 1.25, needs=bf16),
        Bar("CPU: another prompt, diffusers' best / ours", times(BEST, "another prompt"), 1.25, needs=bf16),
        Bar("CPU: edit, % outside UNet and VAE", outside("img2img", "UNet", "VAE encode", "VAE decode"), 3,
            at_most=True),
        Bar("another seed, % outside UNet and decode", outside("another seed", "UNet", "VAE decode"), 2,
            at_most=True)]
    return on_card if card else on_processor + on_card


def check_calls(everyone: dict[str, Rounds], calls: int) -> None:
    """Raise SystemExit if the competitors made different numbers of model calls."""
    counts = {answers[case]["calls"] for rounds in everyone.values() for answers in rounds for case in CASES}
    if counts != {calls}:
        raise SystemExit(f"there should be {calls} model calls in each edit, got {sorted(counts)}")


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="sd1")
    parser.add_argument("--size", type=int, help="pixels; default: the model's own size")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--runs", type=int, default=3, help="rounds of all cases; default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="also diffusers with torch.compile, which starts slowly")
    parser.add_argument("--fresh", action="store_true", help="only one model in memory at a time; it is loaded in every round")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    flags = parse_flags()
    if flags.child:
        return compete(lambda: get_ready(**json.loads(flags.child)))
    edit = flags.size or SIZES[flags.model], flags.steps, flags.strength
    show_machine()
    with model_files(flags.model) as files:
        contest = competitors(dict(zip(("file", "configs", "outputs"), map(str, files))), compiled=flags.compile)
        asked = [requests(number, *edit) for number in range(flags.runs)]
        everyone = {one.name: by_case(answers, asked) for one, answers in zip(
            contest, by_turns(contest, asked, fresh=flags.fresh, told=partial(print, flush=True)))}
        check_calls(everyone, model_calls(*edit[1:]))
        for one in contest:
            one.close()
    report(contest, everyone, f"{flags.model}, {edit[0]}x{edit[0]}, {model_calls(*edit[1:])} model calls, medians of {flags.runs}",
           flags.json)


def report(contest: Sequence[Contestant], everyone: dict[str, Rounds], title: str, file: Path | None) -> None:
    head = "case", "competitor", "seconds", "CPU s", "/ ours", "CPU / ours"
    rows = [(case, name, *(seconds(rounds, case, key) for key in ("seconds", "cpu")),
             *(seconds(rounds, case, key) / seconds(everyone[MINE], case, key) for key in ("seconds", "cpu")))
            for case in CASES for name, rounds in everyone.items()]
    show(head, rows, title)
    loads = [(one.name, one.ready["load"], one.peak / GIB) for one in contest]
    show(("competitor", "load, s", "peak GiB"), loads)
    show(("Palimpsest's stages, s", *CASES),
         [(name, *(in_stages(everyone[MINE], case, name) for case in CASES)) for name in STAGES])
    bars = judge(everyone)
    show_bars(bars, "The bars are for sd1, 512x512, 20 steps, strength 0.75. This run: " + title)
    write_json(file, {"title": title, "rows": [dict(zip(head, row)) for row in rows], "load and peak": loads,
                      "rounds": everyone, "bars": [bar.row() for bar in bars]})


if __name__ == "__main__":
    main()

"""Fast mode against exact mode: python -m benchmarks fast --model sd1

One process edits a picture exactly and then in each fast way, and inpaints one again with another seed, exactly and around
its mask. Shared work, such as encoding the source, is done beforehand. Reported are whole edits, from the request to the
saved PNG, and model calls alone. How similar the pictures are means something only for the demo model, as the others' weights
are random. Compiled networks are compiled and tried out in short edits beforehand. At CFG scale 1 the picture differs anyway: whether weights need guidance depends on their training.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.competitors import SIZES, get_ready, model_calls, model_files, share_outside
from benchmarks.contest import Contestant, Request, Rounds, by_case, by_turns, compete
from benchmarks.report import Bar, show, show_bars, show_machine, write_json

SMALL_MASK = 0.05
"""Fraction of the picture."""
EXACT, MASKED = "exact", f"exact, mask of {SMALL_MASK}"
STEP_CACHE, EDIT_REUSE, UNGUIDED = "step cache, interval 3", f"edit reuse, mask of {SMALL_MASK}", "CFG scale 1, not 7"
COMPILED = "compiled networks"
OPTIONS = {STEP_CACHE: {"step_cache_interval": 3}, "step cache, threshold 0.1": {"step_cache_threshold": 0.1},
           "guidance, first 0.6": {"guidance_stop": 0.6}, "token merging 0.5": {"token_merging_ratio": 0.5},
           EDIT_REUSE: {"edit_reuse": True}, COMPILED: {"compile_networks": True}}
WAYS = {way: {"settings": options} for way, options in OPTIONS.items()} | {UNGUIDED: {"cfg_scale": 1.0}}
"""Changes to the request."""
BARS = {STEP_CACHE: 2, EDIT_REUSE: 3}
CALLS_BARS = {UNGUIDED: 1.8}
"""For the model calls only."""
TRIAL = 3 + 1 + 1 + 2 * 3
"""Edits until both networks are compiled, one after the other, compared, and timed."""


def requests(ways: list[str], number: int, size: int, steps: int, strength: float) -> list[Request]:
    """A round: a warm-up, the exact edit, the fast ones, and the same with a mask."""
    edit = {"case": EXACT, "number": number, "size": size, "steps": steps, "strength": strength, "seed": number,
            "prompt": f"a red house, {number} trees"}
    whole = [way for way in ways if way != EDIT_REUSE]
    asked = [edit | {"case": "warm-up", "steps": 2}]
    if COMPILED in ways and number == 0:
        asked += [edit | WAYS[COMPILED] | {"case": f"trial {turn}", "steps": 2, "seed": turn} for turn in range(TRIAL)]
    if whole:
        asked += [edit, *(edit | WAYS[way] | {"case": way} for way in whole)]
    if EDIT_REUSE in ways:
        masked, reuse = edit | {"case": MASKED, "mask": SMALL_MASK}, WAYS[EDIT_REUSE]
        asked += [masked | reuse | {"case": "remembered", "seed": 1000 + number}, masked, masked | reuse | {"case": EDIT_REUSE}]
    return asked


def psnr(one: str, other: str) -> float:
    """How similar two picture files are, in dB."""
    with Image.open(one) as a, Image.open(other) as b:
        error = np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def compare(way: str, rounds: Rounds) -> tuple:
    """A row of the table: a fast way beside the exact one, medians."""
    pairs = [(answers[MASKED if way == EDIT_REUSE else EXACT], answers[way]) for answers in rounds]
    exact, fast = (median(pair[side]["seconds"] for pair in pairs) for side in (0, 1))
    calls, decoding = ([median(pair[side]["stages"][stage] for pair in pairs) for side in (0, 1)] for stage in ("UNet", "VAE decode"))
    cpu = [median(pair[side]["cpu"] for pair in pairs) for side in (0, 1)]
    return way, exact, fast, exact / fast, cpu[0] / cpu[1], calls[0] / calls[1], decoding[0] / decoding[1], median(psnr(a["path"], b["path"]) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"any of: {'; '.join(WAYS)}. Default: all")
    parser.add_argument("--model", choices=SIZES, default="demo")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.75)
    parser.add_argument("--runs", type=int, default=1, help="rounds; default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        return compete(lambda: get_ready(**json.loads(flags.child)))
    if unknown := set(flags.ways) - set(WAYS):
        parser.error(f"WAY must be any of: {'; '.join(WAYS)}; got {'; '.join(unknown)}")
    show_machine()
    ways, edit = flags.ways or list(WAYS), (SIZES[flags.model], flags.steps, flags.strength)
    asked = [requests(ways, number, *edit) for number in range(flags.runs)]
    with model_files(flags.model) as files:
        ours = Contestant("Palimpsest", "fast", dict(zip(("file", "configs", "outputs"), map(str, files))) | {"who": "palimpsest"})
        answers, = by_turns([ours], asked, told=partial(print, flush=True))
        ours.close()
        rounds = by_case(answers, asked)
        rows = [compare(way, rounds) for way in ways]
    title = f"{flags.model}, {edit[0]}x{edit[0]}, {model_calls(*edit[1:])} model calls, medians of {flags.runs}"
    head = "", "exact, s", "fast, s", "exact / fast", "CPU seconds", "model calls alone", "decoding alone", "PSNR, dB"
    show(head, rows, title)
    exact = [answers[case] for answers in rounds for case in (EXACT, MASKED) if case in answers]
    outside = median(share_outside(answer, "UNet", "VAE decode") for answer in exact)
    bars = [*(Bar(f"{row[0]}, exact / fast", row[3], BARS[row[0]]) for row in rows if row[0] in BARS),
            *(Bar(f"{row[0]}, model calls alone", row[5], CALLS_BARS[row[0]]) for row in rows if row[0] in CALLS_BARS),
            Bar("exact, % outside model calls and decode", outside, 2, at_most=True)]
    show_bars(bars, "The bars are for sd1, 512x512, 20 steps, strength 0.75.")
    write_json(flags.json, {"title": title, "rows": [dict(zip(head, row)) for row in rows], "rounds": rounds,
                            "bars": [bar.row() for bar in bars]})


if __name__ == "__main__":
    main()

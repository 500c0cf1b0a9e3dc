"""Operations saved by Fast mode: python -m benchmarks flops

The floating point operations of one UNet call in Stable Diffusion 1.5's size, with prompt and negative prompt in one
batch: full, with cached deep features, and around a mask. It measures no time and needs no weights, so results are the same
everywhere.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.load import UNETS
from benchmarks.report import Row, show, write_json
from pipeline.families.edit_reuse import WideLayers, computing, recording
from pipeline.families.reuse import Window
from pipeline.families.sd import PARTS
from pipeline.families.step_cache import OuterLayers, seeing
from pipeline.samplers.reuse import surroundings

INTERVAL = 3
MASKS = (0.05, 0.02, 0.1)
"""Fractions of the picture."""


def counted(work: Callable[[], object]) -> float:
    """10^12 operations."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e12


def square(share: float, cells: int) -> Window:
    """A centred square mask, as the network computes it."""
    mask, side = torch.zeros(4, cells, cells), round(cells * share**0.5)
    first = (cells - side) // 2
    mask[:, first:first + side, first:first + side] = 1
    return surroundings(mask).aligned(8, cells, cells)


@torch.inference_mode()
def count(size: int) -> list[Row]:
    """(what, 10^12 operations, factor below the full call)."""
    cells = size // 8
    with torch.device("meta"):
        unet = PARTS["unet"].build(UNETS["sd1"]).eval()
        x, t, prompts = torch.empty(2, 4, cells, cells), torch.empty(2), torch.empty(2, 77, 768)
    layers = WideLayers.of(unet)
    with seeing(unet, 1) as seen, recording(layers) as known:
        known.output = unet(x, t, encoder_hidden_states=prompts).sample
    whole = counted(lambda: unet(x, t, encoder_hidden_states=prompts))
    outer = counted(lambda: OuterLayers(unet, 1, x, t, prompts).finish(seen["deep"]))
    cached = (whole + (INTERVAL - 1) * outer) / INTERVAL
    rows = [("whole", whole, 1.0), ("its outermost layers", outer, whole / outer),
            (f"step cache, interval {INTERVAL}, in the mean", cached, whole / cached)]
    for share in MASKS:
        window = square(share, cells)
        part = x[..., window.rows, window.columns]

        def around() -> None:
            with computing(layers, known, window, (cells, cells)):
                unet(part, t, encoder_hidden_states=prompts)

        operations = counted(around)
        rows.append((f"edit reuse, mask of {share:.0%}, window of {window.width}x{window.height} cells", operations, whole / operations))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels, a multiple of 64; default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    rows = count(args.size)
    show(("one call", "10^12 operations", "times less"), rows)
    write_json(args.json, {"size": args.size, "rows": rows})


if __name__ == "__main__":
    main()

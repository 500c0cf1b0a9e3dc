"""Operations of a picture, and those saved by Fast mode: python -m benchmarks flops

The floating point operations of one UNet call in Stable Diffusion 1.5's size, with prompt and negative prompt in one
batch: full, with cached deep features, and around a mask. Then each flow model's at its published size, for a picture of its
native size with the settings that suit it: the prompt, a call of the network without and with the source picture as a reference,
and decoding. It measures no time and needs no weights, so results are the same everywhere.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.families import PUBLISHED, run_at_full_size
from benchmarks.load import UNETS
from benchmarks.report import Row, show, write_json
from pipeline.families import FAMILIES
from pipeline.families.cond import Encoding
from pipeline.families.edit_reuse import WideLayers, computing, recording
from pipeline.families.reuse import Window
from pipeline.families.sd import PARTS
from pipeline.families.step_cache import OuterLayers, seeing
from pipeline.geometry import Size
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


@torch.inference_mode()
def count_flow(name: str) -> Row:
    """(model, 10^12 operations of a prompt, of a call, of a call that sees the source, of decoding, of a whole picture)."""
    family, latent, cond = run_at_full_size(name)
    facts = FAMILIES[family.name].facts
    size, time = Size(facts.native_size, facts.native_size), torch.ones(1, device=latent.device) / 2
    pixels = torch.zeros(1, 3, size.height, size.width, device=latent.device)
    seen = family.image_conditioning(pixels, latent, None, mask_weight=1.0)
    prompt = counted(lambda: family.encode_prompts(["a red fox in the snow"], Encoding(size=size)))
    call = counted(lambda: family.denoise(latent, time, cond, seen if family.sees == "masked source" else latent[:, :0]))
    edit = counted(lambda: family.denoise(latent, time, cond, seen)) if family.sees == "reference" else None
    decoding = counted(lambda: family.decode(latent))
    asked = 1 if facts.defaults.cfg_scale == 1 else 2
    whole = asked * (prompt + facts.defaults.steps * (edit or call)) + decoding
    return name, prompt, call, "–" if edit is None else edit, decoding, f"{whole:.0f}, {facts.defaults.steps} steps{', CFG' if asked == 2 else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels, a multiple of 64; default: %(default)s")
    parser.add_argument("--no-flow", action="store_true", help="only the UNet")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    rows = count(args.size)
    show(("one call", "10^12 operations", "times less"), rows)
    flow = [] if args.no_flow else [count_flow(name) for name in PUBLISHED]
    show(("10^12 operations", "a prompt", "a call", "seeing the source", "decoding", "a picture, seeing the source if it can"), flow)
    write_json(args.json, {"size": args.size, "rows": rows, "flow": flow})


if __name__ == "__main__":
    main()

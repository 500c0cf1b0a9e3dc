"""Many pictures and large ones: python -m benchmarks scale [memory] [batch] [large]

memory: the process's memory over hundreds of edits of all kinds through the engine, with a cache small enough to be full
before the growth is measured. batch: seconds per picture of a folder as one batch, compared with the same files one by one,
taking turns. large: peak memory of a 2048x2048 edit with a model of SD 1.5's size and random weights, one model call, which
takes minutes on a few cores. The first two use the demo model.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from zlib import crc32

from benchmarks.competitors import Palimpsest, get_ready, model_files, picture
from benchmarks.contest import Contestant, compete
from benchmarks.report import GIB, Bar, resident_memory, show, show_bars, show_machine, write_json
from pipeline.batch import Batch, run
from pipeline.caches import Cache
from pipeline.img2img import Mode, img2img
from pipeline.uploads import open_picture

SETTLED = 200
"""Edits after which memory must stop growing: by then all pictures have been used and the caches are full."""
SMALL_CACHE = 16 << 20
"""Bytes."""
AT_A_TIME = 6
"""Files per batch, and one by one after it."""
LARGE = {"number": 0, "size": 2048, "steps": 1, "strength": 0.75, "prompt": "a red house", "seed": 1}


def measure_memory(flags: argparse.Namespace) -> list[Bar]:
    """RSS after each edit, with changing pictures, prompts and seeds, some repeated; every third is an inpainting."""
    with model_files("demo") as (file, _, outputs):
        cache, memory = Cache(SMALL_CACHE), []
        ours = Palimpsest(file, outputs, cache=cache)
        for edit in range(flags.edits):
            ours(number=edit % 100, size=flags.size, steps=4, strength=0.75, prompt=f"a house, {edit} trees", seed=edit,
                 mask=0.25 if edit % 3 == 2 else None)
            memory.append((resident_memory() / 2**20, cache.size / 2**20))
        ours.engine.close()
    marks = sorted({min(mark, flags.edits) for mark in (1, 10, 50, 100, SETTLED, 300, 400, 500, flags.edits)})
    show(("edits", "MiB", "of which cache"), [(mark, *memory[mark - 1]) for mark in marks], "Memory of the process")
    taken = [whole for whole, _ in memory]
    around = taken[SETTLED - 5:SETTLED + 5]
    growth = median(taken[-10:]) / median(around) if around else None
    return [Bar(f"memory, last of {flags.edits} edits / after {SETTLED}", growth, 1.02, at_most=True)]


def measure_batch(flags: argparse.Namespace) -> list[Bar]:
    with model_files("demo") as (file, _, outputs):
        ours, folder = Palimpsest(file, outputs), outputs / "sources"
        folder.mkdir()
        settings = {"width": flags.size, "height": flags.size, "steps": 8, "denoising_strength": 0.75, "prompt": "a forest",
                    "seed": 5, "sampler_name": "Euler", "outpath_samples": str(outputs)}

        def one_by_one(files: list[Path]) -> None:
            for each in files:
                read_to_end(img2img(ours.engine, Mode.IMG2IMG, (open_picture(each, each.name).image, None), **settings))

        def as_batch(files: list[Path]) -> None:
            read_to_end(run(ours.engine, Batch(files), **settings))

        taken: dict[Callable, list[tuple[float, float]]] = {one_by_one: [], as_batch: []}
        for turn in range(-1, flags.runs):  # the first warms up
            for way in list(taken) if turn % 2 else list(taken)[::-1]:
                files = sources(folder, f"{turn}-{way.__name__}", flags.size)
                began, busy = time.perf_counter(), time.process_time()
                way(files)
                taken[way].append(((time.perf_counter() - began) / AT_A_TIME, (time.process_time() - busy) / AT_A_TIME))
        ours.engine.close()
    single, batch = ([median(column) for column in zip(*times[1:])] for times in taken.values())
    show(("", "seconds per picture", "CPU s per picture"), [("one by one", *single), ("batch", *batch)],
         f"{flags.size}x{flags.size}, medians of {flags.runs} turns of {AT_A_TIME} files")
    return [Bar("batch, % of the throughput one by one", 100 * single[0] / batch[0], 95),
            Bar("the same by CPU seconds", 100 * single[1] / batch[1], 95)]


def sources(folder: Path, name: str, size: int) -> list[Path]:
    """New files that nothing has read yet."""
    files = [folder / f"{name}-{number}.png" for number in range(AT_A_TIME)]
    for file in files:
        picture(crc32(file.name.encode()), size).save(file)
    return files


def read_to_end(events) -> None:
    for event in events:
        last = event
    if error := getattr(last, "error", None):
        raise error


def measure_large(flags: argparse.Namespace) -> list[Bar]:
    with model_files("sd1") as files:
        places = dict(zip(("file", "configs", "outputs"), map(str, files)))
        ours = Contestant("Palimpsest", "scale", places | {"who": "palimpsest"})
        answer = ours.run(LARGE)
        ours.close()
    show(("stage", "seconds"), [*answer["stages"].items(), ("all", answer["seconds"])], "2048x2048, one model call")
    return [Bar("2048x2048 edit, peak GiB", ours.peak / GIB, 24, at_most=True)]


PARTS = {"memory": measure_memory, "batch": measure_batch, "large": measure_large}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; default: memory and batch")
    parser.add_argument("--edits", type=int, default=500)
    parser.add_argument("--runs", type=int, default=6, help="turns of batch and one by one")
    parser.add_argument("--size", type=int, default=256, help="pixels, for memory and batch")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        return compete(lambda: get_ready(**json.loads(flags.child)))
    show_machine()
    bars = [bar for part in flags.parts or ("memory", "batch") for bar in PARTS[part](flags)]
    show_bars(bars)
    write_json(flags.json, {"bars": [bar.row() for bar in bars]})


if __name__ == "__main__":
    main()

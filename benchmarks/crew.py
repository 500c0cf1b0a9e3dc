"""Workers in processes of this machine, measured: what they cost, and what a killed one costs. A part of the benchmark cluster."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from statistics import median
from threading import Thread

from benchmarks.competitors import NEGATIVE, SIZES, model_files, picture
from benchmarks.report import Bar, show
from pipeline import allocator, families
from pipeline.device import DeviceWorker
from pipeline.engine import LocalEngine
from pipeline.geometry import Size
from pipeline.job import Finished, Job, Step
from pipeline.limits import Client
from pipeline.previews import to_jpeg, unpack
from pipeline.processes import ProcessWorker
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.worker import Worker

STEPS = 20
KILLED_EVERY = 10
"""Jobs."""


def worker_of(file: Path, precision: str) -> DeviceWorker:
    """A worker as in app.py, on the processor, with one model file."""
    allocator.share_arena()
    place = families.placement.choose("cpu", precision)
    load = lru_cache(lambda: families.load(file, place))
    return DeviceWorker(lambda options: load())


def edit(size: int, seed: int = 1, steps: int = STEPS, **fields) -> StableDiffusionProcessingImg2Img:
    return StableDiffusionProcessingImg2Img(**{
        "init_images": [picture(seed, size)], "prompt": "a red house", "negative_prompt": NEGATIVE, "seed": seed, "subseed": 1,
        "sampler_name": "Euler a", "steps": steps, "denoising_strength": 0.75, "width": size, "height": size} | fields)


class Crew:
    """Worker processes with the same model file."""

    def __init__(self, file: Path, count: int, precision: str):
        self.workers = {f"cpu #{number}": ProcessWorker(f"cpu #{number}", worker_of, file, precision) for number in range(1, count + 1)}

    @contextmanager
    def engine(self, count: int) -> Iterator[LocalEngine]:
        """An engine with the first `count` of them, which have loaded the model."""
        engine = LocalEngine(dict(list(self.workers.items())[:count]))
        engine.preload().result()
        while not all(state.model and not state.loading for state in engine.workers()):
            time.sleep(0.01)
        yield engine
        engine.close()

    def kill(self, name: str) -> None:
        os.kill(self.workers[name].process_id, signal.SIGKILL)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()


def seconds_of(engine: LocalEngine, request: StableDiffusionProcessingImg2Img) -> float:
    began = time.perf_counter()
    engine.submit([request]).result()
    return time.perf_counter() - began


def overhead(here: Worker, crew: Crew, size: int, runs: int) -> list[tuple[float, float]]:
    """(seconds here, seconds in another process) of each pair of equal edits, which take turns in going first."""
    engine = LocalEngine(here)
    with crew.engine(1) as far:
        pairs = []
        for seed in range(runs + 1):
            order = (engine, far) if seed % 2 else (far, engine)
            taken = {one: seconds_of(one, edit(size, seed)) for one in order}
            pairs.append((taken[engine], taken[far]))
    engine.close()
    return pairs[1:]  # the first one warms both up


def pictures_by(crew: Crew, count: int, size: int) -> tuple[list[bytes], float]:
    """(the pixels of four batches computed by that many workers, seconds)"""
    with crew.engine(count) as engine:
        began = time.perf_counter()
        result = engine.submit([edit(size, n_iter=4)]).result()[0]
        return [image.tobytes() for image in result.images], time.perf_counter() - began


def after_a_kill(crew: Crew, size: int) -> tuple[float, float, bool]:
    """(seconds from the kill in the middle of an edit to its picture, seconds of the whole edit undisturbed, equal pixels)"""
    with crew.engine(1) as engine:
        began = time.perf_counter()
        whole = engine.submit([edit(size)]).result()[0]
        undisturbed = time.perf_counter() - began
        job = engine.submit([edit(size)])
        middle = next(event for event in job.events(cancels=False) if isinstance(event, Step) and event.fraction >= 0.5)
        assert middle.fraction < 1
        crew.kill("cpu #1")
        killed = time.perf_counter()
        again = job.result()[0]
        return time.perf_counter() - killed, undisturbed, again.images[0].tobytes() == whole.images[0].tobytes()


def jobs_lost(crew: Crew, size: int, jobs: int, dice: random.Random) -> tuple[int, int]:
    """(jobs without their picture, kills): one of two workers is killed each time that ten more jobs are done."""
    kills = 0
    with crew.engine(2) as engine:
        running = [engine.submit([edit(size, seed, steps=8)], client=Client(str(seed % 5))) for seed in range(jobs)]
        for due in range(KILLED_EVERY // 2, jobs, KILLED_EVERY):
            while sum(job.state == "done" for job in running) < due:
                time.sleep(0.01)
            busy = [state.name for state in engine.workers() if state.job]
            crew.kill(dice.choice(busy or list(crew.workers)[:2]))
            kills += 1
        ends = [list(job.events())[-1] for job in running]
    return sum(not (isinstance(end, Finished) and end.results[0].images) for end in ends), kills


def previews_a_second(crew: Crew, size: int, watchers: int) -> list[float]:
    """How many different previews a second each watcher of a long edit turned into what the page shows."""
    rates: list[float] = []

    def watch(job: Job) -> None:
        shown, count, began = None, 0, None
        for event in job.events(cancels=False):
            if isinstance(event, Step) and event.preview is not None and event.preview is not shown:
                began = began or time.perf_counter()
                shown, count = event.preview, count + 1
                to_jpeg(unpack(shown), Size(size, size))
        rates.append(count / (time.perf_counter() - began))

    with crew.engine(1) as engine:
        job = engine.submit([edit(size, steps=8 * STEPS)])
        threads = [Thread(target=watch, args=[job]) for _ in range(watchers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return rates


def measure(model: str, *, size: int | None, runs: int, jobs: int, watchers: int, precision: str, seed: int) -> list[Bar]:
    """Print the figures and return them with their bars. The first is of `model`, the others of the demo model."""
    with model_files(model) as (file, _, _):
        crew = Crew(file, 1, precision)
        pairs = overhead(worker_of(file, precision), crew, size or SIZES[model], runs)
        crew.close()
    extra = 100 * (median(far / here for here, far in pairs) - 1)
    show(("", "seconds"), [("in this process", median(here for here, _ in pairs)), ("in a worker process", median(far for _, far in pairs))],
         f"{model}, {STEPS} steps, medians of {runs}")
    side = SIZES["demo"]
    with model_files("demo") as (file, _, _):
        crew = Crew(file, 4, precision)
        by = {count: pictures_by(crew, count, side) for count in (1, 2, 4)}
        differing = sum(pixels != by[1][0] for pixels, _ in by.values())
        show(("workers", "seconds"), [(str(count), seconds) for count, (_, seconds) in by.items()],
             "demo model, one request of 4 batches; all workers share this machine's cores")
        rates = previews_a_second(crew, side, watchers)
        late, undisturbed, equal = after_a_kill(crew, side)
        lost, kills = jobs_lost(crew, side // 4, jobs, random.Random(seed))
        crew.close()
    show(("", "measured"), [("previews a second, the slowest of the watchers", min(rates)),
                            ("seconds from kill -9 in the middle of an edit to its picture", late),
                            ("seconds of that edit undisturbed", undisturbed)], f"demo model, {watchers} watchers")
    return [Bar("a worker process beside this one, % longer edit", extra, 2, at_most=True),
            Bar("numbers of workers that give other pixels", differing, 0, at_most=True),
            Bar("pictures that differ after a kill", int(not equal), 0, at_most=True),
            Bar(f"jobs lost of {jobs}, with {kills} kills", lost, 0, at_most=True)]

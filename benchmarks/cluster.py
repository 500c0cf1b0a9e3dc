"""One queue, many workers: python -m benchmarks cluster [--only simulated|real] [--model sd1] [--runs 9] [--jobs 100]

The real part starts worker processes on this machine's processor: how much longer an edit of --model takes in one of them than in
this process, in turns; whether 1, 2 and 4 of them give the same bytes; previews a second with many watchers; seconds from kill -9
to the picture; and how many of --jobs are lost if a worker is killed at every tenth. Give it a quiet machine.

The other part is a simulation, as no machine here has 64 cards: the engine's own scheduler with a clock that is only counted, against
giving each request to the next free worker in order of arrival. Times are those of --seconds, spread as people's requests are.
"""

import argparse
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from benchmarks import crew
from benchmarks.competitors import SIZES
from benchmarks.report import show_bars, show_machine, write_json
from pipeline.scheduler import Asked, Scheduler

Choose = Callable[[Sequence[str], list[Asked], list[str]], tuple[str, Asked] | None]


@dataclass
class Outcome:
    """What came of a simulated day."""

    waits: list[float] = field(default_factory=list)
    """Seconds from a request to its start."""
    computed: float = 0.0
    loaded: float = 0.0
    """Worker seconds spent on pictures, and on loading models."""
    loads: int = 0
    end: float = 0.0


def requests(count: int, *, workers: int, models: int, clients: int, seconds: float, load: float, dice: random.Random) -> list[Asked]:
    """Requests in order of arrival: few models and people ask for most, and pictures take between a quarter and four times `seconds`."""
    popular = [1 / rank for rank in range(1, models + 1)]
    busy = [1 / rank**0.7 for rank in range(1, clients + 1)]
    made, now = [], 0.0
    for number in range(count):
        now += dice.expovariate(workers * load / seconds)
        model, client = dice.choices(range(models), popular)[0], dice.choices(range(clients), busy)[0]
        work = min(max(dice.lognormvariate(0.0, 0.6), 0.25), 4.0)
        made.append(Asked(number, f"client {client}", f"model {model}", work, now))
    return made


def simulate(asked: list[Asked], speeds: dict[str, float], choose: Choose, *, loading: float, told: Scheduler | None = None) -> Outcome:
    """Run them through. speeds: worker → seconds per unit of work. loading: seconds. told: a scheduler that learns what happens."""
    outcome, idle, waiting = Outcome(), list(speeds), []
    having: dict[str, str] = {}
    running: dict[str, Asked] = {}
    happens: list[tuple[float, int, Asked | str]] = [(one.arrived, number, one) for number, one in enumerate(asked)]
    heapq.heapify(happens)
    numbers = len(asked)
    while happens:
        now, _, what = heapq.heappop(happens)
        if isinstance(what, Asked):
            waiting.append(what)
        else:
            done = running.pop(what)
            idle.append(what)
            if told is not None:
                told.ended(what, done, speeds[what] * done.work)
        while (choice := choose(idle, waiting, [one.client for one in running.values()])) is not None:
            worker, one = choice
            idle.remove(worker)
            waiting.remove(one)
            if told is not None:
                told.began(worker, one, waiting, [other.client for other in running.values()])
            running[worker] = one
            outcome.waits.append(now - one.arrived)
            extra = 0.0 if having.get(worker) == one.model else loading
            having[worker] = one.model
            outcome.loads += extra > 0
            outcome.loaded += extra
            outcome.computed += speeds[worker] * one.work
            outcome.end = max(outcome.end, now + extra + speeds[worker] * one.work)
            numbers += 1
            heapq.heappush(happens, (now + extra + speeds[worker] * one.work, numbers, worker))
    return outcome


def in_order(idle: Sequence[str], waiting: list[Asked], running: list[str]) -> tuple[str, Asked] | None:
    """First come, first served, by the worker that has been idle longest."""
    return (idle[0], waiting[0]) if idle and waiting else None


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--only", choices=("simulated", "real"), help="one of the two parts")
    flags.add_argument("--model", choices=SIZES, default="sd1", help="of the edit that is timed")
    flags.add_argument("--size", type=int, help="of its picture, pixels; default: the model's own")
    flags.add_argument("--precision", default="auto")
    flags.add_argument("--runs", type=int, default=9, help="of the edit, here and there")
    flags.add_argument("--jobs", type=int, default=100)
    flags.add_argument("--watchers", type=int, default=8)
    flags.add_argument("--json", type=Path, help="write the real part's figures to this file")
    flags.add_argument("--workers", type=int, default=64)
    flags.add_argument("--requests", type=int, default=10_000)
    flags.add_argument("--models", type=int, default=12)
    flags.add_argument("--clients", type=int, default=200)
    flags.add_argument("--seconds", type=float, default=6.0, help="that a usual picture takes")
    flags.add_argument("--loading", type=float, default=12.0, help="seconds that loading a model takes")
    flags.add_argument("--load", type=float, default=0.4, help="asked-for work per second, of what all workers could do without loading")
    flags.add_argument("--seed", type=int, default=1)
    chosen = flags.parse_args()
    if chosen.only != "real":
        show_simulation(chosen)
    if chosen.only != "simulated":
        show_machine()
        bars = crew.measure(chosen.model, size=chosen.size, runs=chosen.runs, jobs=chosen.jobs, watchers=chosen.watchers,
                            precision=chosen.precision, seed=chosen.seed)
        show_bars(bars)
        write_json(chosen.json, {"bars": [bar.row() for bar in bars]})


def show_simulation(chosen: argparse.Namespace) -> None:
    dice = random.Random(chosen.seed)
    speeds = {f"worker {number}": chosen.seconds * dice.choice((0.7, 1.0, 1.0, 1.6)) for number in range(chosen.workers)}
    asked = requests(chosen.requests, workers=chosen.workers, models=chosen.models, clients=chosen.clients, seconds=chosen.seconds,
                     load=chosen.load, dice=dice)
    scheduler = Scheduler(len(speeds))
    print(f"{chosen.workers} workers, {chosen.requests} requests for {chosen.models} models")
    print("| | first come, first served | scheduler |\n|---|---|---|")
    plain = simulate(asked, speeds, in_order, loading=chosen.loading)
    ours = simulate(asked, speeds, scheduler.choose, loading=chosen.loading, told=scheduler)
    for name, value in ROWS.items():
        print(f"| {name} | {value(plain, chosen.workers)} | {value(ours, chosen.workers)} |")


ROWS: dict[str, Callable[[Outcome, int], str]] = {
    "utilisation: of all worker seconds, spent on pictures": lambda one, workers: f"{one.computed / one.end / workers:.0%}",
    "spent on loading models": lambda one, workers: f"{one.loaded / one.end / workers:.0%}",
    "models loaded": lambda one, workers: f"{one.loads}",
    "longest wait, seconds": lambda one, workers: f"{max(one.waits):.0f}",
    "mean wait, seconds": lambda one, workers: f"{mean(one.waits):.1f}",
    "95 of 100 waited less than, seconds": lambda one, workers: f"{sorted(one.waits)[len(one.waits) * 95 // 100]:.0f}",
    "seconds until all were done": lambda one, workers: f"{one.end:.0f}",
}


if __name__ == "__main__":
    main()

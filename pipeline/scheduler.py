"""Which waiting job an idle worker takes: people take turns, a worker that has the model is preferred, then the fastest."""

from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

PASSES = 3
"""How often each worker may pass over a job for one of another model, whose turn is as good."""
REMEMBERED = 20
"""Runs from which a worker's speed is known."""


@dataclass(frozen=True)
class Asked:
    """A waiting job, as far as it matters here."""

    id: Hashable
    client: str
    model: str = ""
    """Jobs with the same text need the same model; "" is one of them."""
    work: float = 1.0
    """How much there is to compute, in any unit that all jobs share."""
    arrived: float = 0.0


@dataclass
class Speed:
    """What a worker's last runs took."""

    runs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """(work, seconds)"""

    @property
    def of_work(self) -> float | None:
        """Seconds for one unit; None: unknown."""
        work = sum(work for work, _ in self.runs)
        return sum(seconds for _, seconds in self.runs) / work if work else None


class Scheduler:
    """Chooses among what waits. It has no clock and no threads: its owner tells it what began and how long it took.

    workers: how many there are.
    """

    def __init__(self, workers: int = 1, passes: int = PASSES):
        self._limit = passes * workers
        self._models: dict[str, str] = {}
        """Worker → the model that it used last."""
        self._speeds: dict[str, Speed] = {}
        self._passed: Counter[Hashable] = Counter()
        self._served: Counter[str] = Counter()
        """Client → jobs that began in the present round, which ends when everybody who waits has had a turn."""

    def order(self, waiting: Iterable[Asked], running: Collection[str] = ()) -> list[tuple[int, Asked]]:
        """(turn, job) in running order. Who has had a turn waits for those who have not."""
        return in_turn(waiting, (self._served | Counter(running)).elements())

    def choose(self, idle: Sequence[str], waiting: Iterable[Asked], running: Collection[str] = ()) -> tuple[str, Asked] | None:
        """The next (worker, job); None if there is no worker or no job. A job never waits for a worker while another is idle.

        running: the client of each running job, once for each.
        """
        order = self.order(waiting, running)
        if not idle or not order:
            return None
        rounds = [(turn, asked) for turn, asked in order if turn == order[0][0]]
        first = order[0][1]
        equal = [asked for _, asked in rounds] if self._passed[first.id] < self._limit else [first]
        asked = next((asked for asked in equal if self._having(asked.model, idle)), first)
        worker = min(self._having(asked.model, idle) or idle, key=lambda worker: (self._seconds(worker, asked), self._wanted(worker, order)))
        return worker, asked

    def began(self, worker: str, asked: Asked, waiting: Iterable[Asked], running: Collection[str] = ()) -> None:
        """The worker has taken that job. waiting: those that still wait."""
        self._models[worker] = asked.model
        self._passed.pop(asked.id, None)
        waiting = list(waiting)
        order = self.order([asked, *waiting], running)
        place = next(index for index, (_, other) in enumerate(order) if other.id == asked.id)
        for _, other in order[:place]:
            self._passed[other.id] += 1
        self._served[asked.client] += 1
        clients = {other.client for other in waiting}
        had = min((self._served[client] for client in clients), default=0)
        present = clients | {*running, asked.client}
        self._served = Counter({client: turns - had for client, turns in self._served.items() if client in present and turns > had})

    def ended(self, worker: str, asked: Asked, seconds: float) -> None:
        """A job that the worker has finished, and how long it took, without the loading of its model."""
        self._speeds.setdefault(worker, Speed()).runs.append((asked.work, seconds))

    def gone(self, asked: Asked) -> None:
        """A job that waits no more."""
        self._passed.pop(asked.id, None)

    def loaded(self, worker: str, model: str) -> None:
        """The worker has that model now, without a job."""
        self._models[worker] = model

    def has(self, worker: str, model: str) -> bool:
        """Whether it used that model last."""
        return self._models.get(worker) == model

    def forget(self, worker: str) -> None:
        """The worker has no model any more."""
        self._models.pop(worker, None)

    def _having(self, model: str, idle: Sequence[str]) -> list[str]:
        return [worker for worker in idle if self._models.get(worker) == model]

    def _seconds(self, worker: str, asked: Asked) -> float:
        """How long it is expected to take there. A worker that is not known yet is tried first."""
        speed = self._speeds.get(worker, Speed()).of_work
        return 0.0 if speed is None else round(speed * asked.work, 3)

    def _wanted(self, worker: str, order: list[tuple[int, Asked]]) -> int:
        """How many waiting jobs need the model that this worker has, and would lose."""
        return sum(asked.model == self._models.get(worker) for _, asked in order)


def in_turn(waiting: Iterable[Asked], running: Iterable[str] = ()) -> list[tuple[int, Asked]]:
    """(turn, job) in running order: each client's first in order of arrival, then each client's second, and so on."""
    turns = Counter(running)
    order = []
    for asked in sorted(waiting, key=lambda asked: asked.arrived):
        order.append((turns[asked.client], asked))
        turns[asked.client] += 1
    return sorted(order, key=lambda pair: pair[0])

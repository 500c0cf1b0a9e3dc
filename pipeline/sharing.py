"""Who computes which batch of a running job: its own worker takes them in order, and idle workers compute others ahead of it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import Cancelled
from pipeline.worker import Wished, Wishes

AHEAD = 16
"""Items of a series that may be computed ahead of the running one."""
LOSSES = 2
"""How many helpers may be lost before the job goes on without."""
GRACE = 10.0
"""Seconds for a helper that is ended to hand over what it has."""
Place = tuple[int, int]
"""(number of the request in its job, number of the batch in its run), both from 0."""


@dataclass
class Unit:
    """A batch that a helper computes or has computed."""

    kept: list[bytes] = field(default_factory=list)
    """The pieces that its run keeps."""
    fraction: float = 0.0
    """How far it has come, 0 to 1."""
    done: bool = False
    """Whether nobody computes it any more; it may be complete or not."""


class Helper:
    """A run that computes batches for a request's own run."""

    def __init__(self, number: int):
        self.number = number
        """Of the request."""
        self.wishes = Wishes()
        self.unit: Unit | None = None
        """What it computes now; None: it is on its way to a batch."""
        self.units = 0
        """How many it has begun."""

    def end(self) -> None:
        """Let it end within one model call."""
        self.wishes.wish(cancelled=True)


class Sharing:
    """The batches of one running job. Any thread may use it.

    A job's own run is complete: it makes, saves and records every picture in order. What others compute for it are a network's
    answers, which it takes if they are those to its own questions, and otherwise computes itself. So a division cannot change a
    picture, only the time until it is there.

    announce: called when there may be something to help with; it may take the engine's lock.
    """

    def __init__(self, announce: Callable[[], None]):
        self._changed, self._announce = threading.Condition(), announce
        self.grace = GRACE
        self._at: Place = (-1, -1)
        """Where the job's own run is."""
        self._items = 0
        """How many requests the job has that may be computed ahead."""
        self._batches: dict[int, int] = {}
        """Number of a request → how many batches it has, as far as known."""
        self._closed: set[int] = set()
        """Numbers of requests that nobody can help with."""
        self._units: dict[Place, Unit] = {}
        self._helpers: list[Helper] = []
        self._own, self._awaited = 0.0, None
        """How far the own run has come in its batch, and the unit that it waits for."""
        self._since: float | None = None
        self._own_seconds: float | None = None
        """When the own run began to compute its batch, and how long its last one took."""
        self._skips = self._losses = 0
        self._stopped = False
        """No further batch may start."""
        self.received = 0
        """Batches that helpers have computed for it."""

    # --- the job's own run

    def begin(self, number: int, *, divides: bool, items: int = 0) -> None:
        """The request of that number begins; divides: whether its batches follow from it alone. items: as in `_items`."""
        with self._changed:
            self._at, self._items, self._own = (number, -1), items, 1.0
            if not divides:
                self._closed.add(number)
            self._units = {place: unit for place, unit in self._units.items() if place[0] >= number}
            for helper in self._helpers:
                if helper.number < number:
                    helper.end()

    def reach(self, batch: int, batches: int, wishes: Wishes) -> bytes | None:
        """The run begins a batch of its request: what has been kept of it, once nobody computes it any more.

        It waits no longer for a helper than it would compute itself; then it goes on from where the helper is.
        """
        if self._since is not None:
            self._own_seconds = time.monotonic() - self._since
        with self._changed:
            again = batch <= self._at[1]
            place = self._at = self._at[0], batch
            self._batches[place[0]], self._own = batches, 0.0
            if again:  # it began again, as its worker was lost or memory ran out
                for helper in self._helpers:
                    helper.end()
            unit = self._units.pop(place, None)
            now, self._skips = wishes.now, wishes.now.skips
            self._awaited = None if now.interrupted or now.stopped or now.cancelled else unit
            self._since = time.monotonic() if unit is None else None
        self._announce()
        if self._awaited is None:
            return None
        with self._changed:
            if not self._changed.wait_for(lambda: unit.done, self._own_seconds):
                for helper in self._helpers:
                    if helper.unit is unit:
                        helper.end()
                self._changed.wait_for(lambda: unit.done, self.grace)
            self._awaited = None
            self.received += unit.fraction == 1.0
        return b"".join(unit.kept)

    @property
    def waits(self) -> bool:
        """Whether the job's own run has come to a batch that a helper still computes."""
        return self._awaited is not None

    def sampled(self, fraction: float) -> None:
        """How far the own run has come in its batch."""
        self._own = fraction

    @property
    def ahead(self) -> float:
        """How many batches of the own run's request are computed beyond its own one."""
        with self._changed:
            return sum(unit.fraction for (number, batch), unit in self._units.items() if number == self._at[0] and batch > self._at[1])

    def wished(self, now: Wished) -> None:
        """Something is wished of the job: whatever is not to be finished ends within one model call."""
        with self._changed:
            self._stopped |= now.stopped or now.interrupted or now.cancelled
            for helper in self._helpers:
                awaited = helper.unit is not None and helper.unit is self._awaited
                if (now.cancelled or now.interrupted or (now.stopped and not awaited) or (awaited and now.skips > self._skips)):
                    helper.end()
            self._changed.notify_all()

    def close(self) -> None:
        """The job ends."""
        with self._changed:
            self._at, self._items = (-1, -1), 0
            for helper in self._helpers:
                helper.end()

    # --- helpers

    @property
    def wanted(self) -> bool:
        """Whether there is something for another helper to do."""
        with self._changed:
            return not self._stopped and self._losses <= LOSSES and bool(self._unassigned())

    def join(self) -> Helper | None:
        """A new helper, if it is still wanted."""
        with self._changed:
            if not self.wanted:
                return None
            self._helpers.append(Helper(self._unassigned()[0][0]))
            return self._helpers[-1]

    def turn(self, helper: Helper, batch: int, batches: int) -> bool:
        """The helper comes to a batch: whether it computes it, or passes over it. Raises Cancelled if it is not needed any more."""
        with self._changed:
            self._end_unit(helper, complete=True)
            self._batches[helper.number] = batches
            mine = [place for place in self._free() if place[0] == helper.number and place[1] >= batch]
            if not mine or self._stopped or helper.wishes.now.cancelled:
                raise Cancelled("There is nothing more to help with.")
            if mine[0][1] > batch:
                return False
            helper.unit = self._units[mine[0]] = Unit()
            helper.units += 1
            return True

    def take(self, helper: Helper, *, kept: bytes = b"", fraction: float | None = None) -> None:
        """What a helper tells about its batch."""
        with self._changed:
            if helper.unit is not None:
                helper.unit.kept += [kept] if kept else []
                helper.unit.fraction = helper.unit.fraction if fraction is None else fraction

    def leave(self, helper: Helper, *, complete: bool, lost: bool = False, of_use: bool = True) -> None:
        """A helper's run has ended. of_use: whether others could do better."""
        with self._changed:
            self._end_unit(helper, complete=complete)
            self._helpers.remove(helper)
            self._losses += lost
            if not of_use:
                self._closed.add(helper.number)
            self._changed.notify_all()

    def withdraw(self) -> bool:
        """End one helper, whose worker is needed elsewhere; False if there is none."""
        with self._changed:
            helper = next((one for one in reversed(self._helpers) if not one.wishes.now.cancelled), None)
            if helper is not None:
                helper.end()
            return helper is not None

    def _end_unit(self, helper: Helper, *, complete: bool) -> None:
        if helper.unit is not None:
            helper.unit.done = True
            if complete:
                helper.unit.fraction = 1.0
                if not helper.unit.kept:  # a network that remembers its last calls, for example
                    self._closed.add(helper.number)
            helper.unit = None
            self._changed.notify_all()

    def _unassigned(self) -> list[Place]:
        on_their_way = sum(helper.unit is None for helper in self._helpers)
        return self._free()[on_their_way:]

    def _free(self) -> list[Place]:
        """What a helper could compute next, in order."""
        number, batch = self._at
        if number < 0 or batch < 0:
            return []
        free = [(number, later) for later in range(batch + 1, self._batches[number])]
        free += [(later, first) for later in range(number + 1, min(number + 1 + AHEAD, self._items))
                 for first in range(self._batches.get(later, 1))]
        free = [place for place in free if place not in self._units and place[0] not in self._closed]
        # the own run takes the first one itself if it comes there sooner than a helper could be ready
        return free[1:] if len(free) > 1 and (self._own >= 0.5 or self.waits) else free

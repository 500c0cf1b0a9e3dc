"""A job as whoever submitted it sees it: what it tells, as a stream of events, and what may be wished of it."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

from pipeline.errors import Cancelled, PalimpsestError, Unforeseen
from pipeline.limits import Client
from pipeline.memory import is_out_of_memory
from pipeline.processed import Processed
from pipeline.series import Outcome
from pipeline.worker import Wishes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queued:
    """The job waits."""

    place: int
    """How many jobs are done before it, the running one included."""
    loading: bool
    """A model is still being loaded."""
    fraction: float = 0.0
    """Share of that model that is there, 0 to 1."""


@dataclass(frozen=True)
class Step:
    """A sampling step is done."""

    step: int
    steps: int
    batch: int
    """Counted from 1."""
    batches: int
    elapsed: float
    """Seconds since the job had its model."""
    eta: float
    """Seconds to go, as far as one can tell."""
    preview: bytes | None
    """The newest picture so far, as previews.unpack() reads it; its size is the latent's or the picture's."""
    item: int = 1
    """Of a series, counted from 1."""
    outcome: Outcome | None = None
    """What came of a series so far."""

    @property
    def fraction(self) -> float:
        """Share of the whole job that is done, 0 to 1."""
        within = (self.batch - 1 + self.step / max(self.steps, 1)) / self.batches
        return within if self.outcome is None else (self.item - 1 + within) / self.outcome.items


@dataclass(frozen=True)
class Finished:
    """The job is done, or was interrupted and kept what there was."""

    results: list[Processed]
    """One per request; none of a series."""
    elapsed: float
    outcome: Outcome | None = None
    """What came of a series."""


@dataclass(frozen=True)
class Failed:
    """The job ended without a result."""

    error: Exception

    @property
    def message(self) -> str:
        """One sentence for the person who asked."""
        return sentence_on(self.error)


Event = Queued | Step | Finished | Failed


def sentence_on(error: Exception) -> str:
    """What a person should hear of an error."""
    if isinstance(error, (PalimpsestError, Cancelled, Unforeseen)):
        return str(error)
    if is_out_of_memory(error):
        return "There was not enough memory; smaller pictures, or fewer at a time, need less (width, height, batch_size)."
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:  # in the system's words, without the file's place
        return f"Something went wrong in the program: {kind}: {os.strerror(error.errno)}"
    # what nobody foresaw may say anything, such as where files are
    return f"Something went wrong in the program ({kind}); its log says more."


def sendable(error: Exception) -> Exception:
    """An error as plain data. Its frames are let go of: they would keep tensors alive. One that nobody foresaw is logged."""
    if not isinstance(error, (PalimpsestError, Cancelled, Unforeseen)):
        logger.error("a job failed", exc_info=error)
        error = MemoryError(str(error)) if is_out_of_memory(error) else Unforeseen(type(error).__name__, sentence_on(error))
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class Job:
    """One submission. Any thread may use it."""

    def __init__(self, job_id: str | None = None, client: Client = Client(), mode: str = ""):
        self.id = job_id or uuid4().hex
        self.client = client
        """Who asked for it."""
        self.mode = mode
        """Where it was asked for, as history tells it."""
        self.arrived = time.monotonic()
        self.state = "queued"
        """queued, running or done."""
        self.wishes = Wishes()
        self._skips = 0
        """Of the wishes, those for batches before the one that runs."""
        self._changed = threading.Condition()
        self._event: Event | None = None
        self._version = 0
        self._listeners: list[Callable[[], None]] = []

    # --- what it tells

    def events(self, heartbeat: float | None = None, *, pace: float = 0.0, cancels: bool = True) -> Iterator[Event]:
        """The newest event whenever there is a new one; the last is Finished or Failed. Closing it early cancels.

        With a `heartbeat` the newest is given again after so many seconds without a new one, so that a reader who is
        gone is noticed. pace: seconds from one event to the next, at least; only the last comes sooner. cancels=False: the
        job goes on without its reader.
        """
        seen = 0
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._version > seen, heartbeat)
                    seen, event = self._version, self._event
                if event is not None:
                    yield event
                if isinstance(event, (Finished, Failed)):
                    return
                with self._changed:
                    self._changed.wait_for(lambda: isinstance(self._event, (Finished, Failed)), pace)
        finally:
            if cancels and self.state != "done":
                self.cancel()

    def result(self) -> list[Processed]:
        """Wait for the end. Raises what the job raised."""
        for event in self.events():
            if isinstance(event, Failed):
                raise event.error
        return event.results

    def newest(self) -> tuple[int, Event | None]:
        """(how many events there were, the newest), for whoever does not want to wait."""
        with self._changed:
            return self._version, self._event

    def listen(self, callback: Callable[[], None]) -> None:
        """Have `callback` called after each event to come, on the thread that it happens on. It must not raise."""
        with self._changed:
            self._listeners.append(callback)

    # --- what is wished of it

    def interrupt(self) -> None:
        """End now and keep the picture so far."""
        self.wishes.wish(interrupted=True)

    def stop_after(self) -> None:
        """End once the picture that is being made is done."""
        self.wishes.wish(stopped=True)

    def skip(self) -> None:
        """End this batch now, keep its picture so far, and go on with the next one."""
        self.wishes.skip()

    def cancel(self) -> None:
        """End now and keep nothing; a queued job never starts."""
        self.wishes.wish(cancelled=True)

    @property
    def interrupted(self) -> bool:
        return self.wishes.now.interrupted

    @property
    def stopped(self) -> bool:
        """Whether no other batch is to begin."""
        return self.wishes.now.stopped or self.wishes.now.interrupted

    @property
    def skipped(self) -> bool:
        """Whether the batch that runs is to end now."""
        return self.wishes.now.skips > self._skips

    @property
    def cancelled(self) -> bool:
        return self.wishes.now.cancelled

    # --- for the engine

    def publish(self, event: Event) -> None:
        """Tell this, in place of what was told before."""
        with self._changed:
            if isinstance(event, Step) and event.step == 0:
                self._skips = self.wishes.now.skips
            if isinstance(event, (Finished, Failed)):
                self.state = "done"
            self._event = event
            self._version += 1
            self._changed.notify_all()
            listeners = list(self._listeners)
        for callback in listeners:
            callback()

    def wait_in_line(self, event: Queued) -> None:
        if self._event != event:
            self.publish(event)

"""A job from its submitter's side: the events it emits, and the calls that stop it."""

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
    """The job is waiting."""

    place: int
    """Jobs ahead of it, including the running one."""
    loading: bool
    """A model is still being loaded."""
    fraction: float = 0.0
    """Fraction of that model that is loaded, 0 to 1."""


@dataclass(frozen=True)
class Step:
    """A sampling step has finished."""

    step: int
    steps: int
    batch: int
    """Counted from 1."""
    batches: int
    elapsed: float
    """Seconds since its model was loaded."""
    eta: float
    """Estimated seconds to go."""
    preview: bytes | None
    """The newest preview, to be read by previews.unpack(); at the latent's or the picture's size."""
    item: int = 1
    """Number of the series' item, from 1."""
    outcome: Outcome | None = None
    """Results of a series so far."""

    @property
    def fraction(self) -> float:
        """Fraction of the whole job that is done, 0 to 1."""
        within = (self.batch - 1 + self.step / max(self.steps, 1)) / self.batches
        return within if self.outcome is None else (self.item - 1 + within) / self.outcome.items


@dataclass(frozen=True)
class Finished:
    """The job is done, or was interrupted and kept its pictures so far."""

    results: list[Processed]
    """One per request; empty for a series."""
    elapsed: float
    outcome: Outcome | None = None
    """Results of a series."""


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
    """The message shown to a person for an error."""
    if isinstance(error, (PalimpsestError, Cancelled, Unforeseen)):
        return str(error)
    if is_out_of_memory(error):
        return "Out of memory; use smaller pictures, or fewer at a time (width, height, batch_size)."
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:  # the system's message, without the path
        return f"Something went wrong in the program: {kind}: {os.strerror(error.errno)}"
    # an unexpected error's message may contain anything, such as paths
    return f"Something went wrong in the program ({kind}); see its log."


def sendable(error: Exception) -> Exception:
    """An error as plain data, without its frames, which would keep tensors alive. Unexpected errors are logged."""
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
        """The mode that it came from, as history shows it."""
        self.arrived = time.monotonic()
        self.state = "queued"
        """queued, running or done."""
        self.wishes = Wishes()
        self._skips = 0
        """The number of skips wished for before the current batch."""
        self._changed = threading.Condition()
        self._event: Event | None = None
        self._version = 0
        self._listeners: list[Callable[[], None]] = []

    # --- events

    def events(self, heartbeat: float | None = None, *, pace: float = 0.0, cancels: bool = True) -> Iterator[Event]:
        """Yields the newest event whenever there is a new one; the last is Finished or Failed. Closing it early cancels.

        heartbeat: repeat the newest event after this many seconds without a new one, so that a gone reader is noticed.
        pace: minimum seconds between events, except before the last. cancels=False: the job goes on without its reader.
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
        """(the number of events so far, the newest event), without waiting."""
        with self._changed:
            return self._version, self._event

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each further event, on the thread that publishes it. It must not raise."""
        with self._changed:
            self._listeners.append(callback)

    # --- control

    def interrupt(self) -> None:
        """End now and keep the picture so far."""
        self.wishes.wish(interrupted=True)

    def stop_after(self) -> None:
        """End after the current picture."""
        self.wishes.wish(stopped=True)

    def skip(self) -> None:
        """End the current batch now, keep its picture so far, and go on with the next batch."""
        self.wishes.skip()

    def cancel(self) -> None:
        """End now and keep nothing; a queued job never starts."""
        self.wishes.wish(cancelled=True)

    @property
    def interrupted(self) -> bool:
        return self.wishes.now.interrupted

    @property
    def stopped(self) -> bool:
        """Whether no further batch may start."""
        return self.wishes.now.stopped or self.wishes.now.interrupted

    @property
    def skipped(self) -> bool:
        """Whether the current batch is to end now."""
        return self.wishes.now.skips > self._skips

    @property
    def cancelled(self) -> bool:
        return self.wishes.now.cancelled

    # --- for the engine

    def publish(self, event: Event) -> None:
        """Make this the newest event."""
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

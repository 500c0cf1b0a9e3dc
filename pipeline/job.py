"""A job: what was asked for, and its course as a stream of events."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from PIL import Image
from torch import Tensor

from pipeline.errors import Cancelled, Interrupted, PalimpsestError, TooMany
from pipeline.families.base import Family
from pipeline.journal import Journal
from pipeline.limits import Client, Quota
from pipeline.memory import is_out_of_memory
from pipeline.options import Options
from pipeline.previews import preview
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.progress import Progress
from pipeline.series import Outcome, Series
from pipeline.shelf import Shelf

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
    preview: Image.Image | None
    """The newest picture so far, on the CPU; its size is the latent's or the picture's."""
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
    """One per processing object; none of a series."""
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
        if isinstance(self.error, (PalimpsestError, Cancelled)):
            return str(self.error)
        if is_out_of_memory(self.error):
            return "The memory was not enough; smaller pictures, or fewer at a time, need less (width, height, batch_size)."
        kind = type(self.error).__name__
        if isinstance(self.error, OSError) and self.error.errno is not None:  # in the system's words, without the file's place
            return f"Something went wrong inside: {kind}: {os.strerror(self.error.errno)}"
        # what nobody foresaw may say anything, such as where files are
        return f"Something went wrong inside ({kind}); the program's log says more."


Event = Queued | Step | Finished | Failed


Work = Iterable[StableDiffusionProcessingImg2Img] | Series
"""What a job does: requests of which each is needed, or a series, in which each is for itself."""


class Job(Progress):
    """One submission: to its reader an iterator of events, to the pipeline the progress it reports to."""

    def __init__(self, work: Work, job_id: str | None = None, client: Client = Client(), *, mode: str = "",
                 journal: Journal | None = None, quota: Quota = Quota(0), shelf: Shelf | None = None):
        self.id = job_id or uuid4().hex
        self.work = work
        self.client = client
        """Who asked for it."""
        self.mode = mode
        """Where it was asked for, as history tells it."""
        self._quota, self._counted = quota, 0
        """Pictures that the quota counts already of what is still to be made."""
        self._journal, self._shelf = journal, shelf or Shelf()
        self._begun = 0
        """Pictures of the request that runs, as far as it has begun them."""
        self._saved: dict[str, list[str]] = {}
        """The files of the request that runs, by the names that they were saved under."""
        self._earlier: dict[str, list[str]] = {}
        """The same of its first try, as far as the second has not replaced them."""
        self._notes: list[str] = []
        """Of the journal, for the next result's comments."""
        self._entry: str | None = None
        """The journal's name of the request that runs, or that waits alone in this job."""
        self.arrived = time.monotonic()
        self.state = "queued"
        """queued, running or done."""
        self.interrupted = self.cancelled = False
        self._changed = threading.Condition()
        self._event: Event | None = None
        self._version = 0
        self._listeners: list[Callable[[], None]] = []
        self._skip = False
        self._started: float | None = None
        self._model: Family | None = None
        self._options = Options()
        self._preview: Image.Image | None = None
        self._batch, self._batches, self._batch_size, self._step, self._steps = 0, 1, 1, 0, 1
        self._item = self._gone_over = 0

    # --- for whoever submitted it

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

    @property
    def skipped(self) -> bool:
        """Whether the batch that runs is to end now."""
        return self._skip

    def interrupt(self) -> None:
        """End now and keep the picture so far."""
        self.stopped = self.interrupted = True

    def stop_after(self) -> None:
        """End once the picture that is being made is done."""
        self.stopped = True

    def skip(self) -> None:
        """End this batch now, keep its picture so far, and go on with the next one."""
        self._skip = True

    def cancel(self) -> None:
        """End now and keep nothing; a queued job never starts."""
        self.cancelled = True

    # --- Progress, on the engine's thread

    def begin(self, batches: int) -> None:
        pictures = batches * self._batch_size
        self._count(pictures - self._counted)
        self._counted -= pictures
        self._begun += pictures
        self._batches, self._batch = batches, 0

    def begin_sampling(self, steps: int) -> None:
        if self.cancelled:
            raise Cancelled("The job was cancelled.")
        self._step, self._steps = 0, steps
        self._skip = self.partial = False
        self._publish(self._snapshot())

    def checkpoint(self) -> None:
        if self.cancelled:
            raise Cancelled("The job was cancelled.")
        if self.interrupted or self._skip:
            self.partial = True
            raise Interrupted

    def report(self, step: int, denoised: Tensor) -> None:
        self._step = step
        shown = self._options.live_previews_enable and step % self._options.show_progress_every_n_steps == 0
        if shown:
            self._preview = preview(self._model, denoised, self._options.show_progress_type)
        self._publish(self._snapshot())

    def saving(self, path: str, infotext: str, name: str = "") -> None:
        self._saved.setdefault(name, []).append(path)
        if self._entry is not None:
            with self._without_harm():
                self._journal.saving(self._entry, path, infotext)

    def place_of(self, name: str) -> str | None:
        places = self._earlier.get(name)
        return places.pop(0) if places else None

    def batch_done(self) -> None:
        self._batch += 1

    # --- the engine's side

    def count(self) -> None:
        """Count the pictures that are asked for, as far as that is known before the job runs. Raises TooMany."""
        if isinstance(self.work, list):
            self._count(sum(p.batch_size * p.n_iter for p in self.work))

    def _count(self, pictures: int) -> None:
        if pictures > 0:
            self._quota.take(self.client, pictures)
            self._counted += pictures

    def try_again(self) -> None:
        """The request that runs begins anew: its pictures count once, and replace those that it has saved already."""
        self._counted, self._begun = self._counted + self._begun, 0
        self._earlier, self._saved = self._saved, {}
        self._batch = self._step = 0

    def record(self, p: StableDiffusionProcessingImg2Img, entry: str) -> None:
        """Enter a request in the journal, unless it is to leave no trace: then its pictures are not saved either."""
        if self._journal is None or p.outpath_samples is None or p.do_not_save_samples:
            return
        with self._without_harm():
            self._entry = self._journal.queued(entry, p, client=self.client.id, mode=self.mode)

    def shelve(self) -> None:
        """It waits from now on, and with it its pictures. Raises TooMany, and then its entry is gone."""
        try:
            for p in self.work if isinstance(self.work, list) else ():
                self._shelf.put(p)
        except TooMany:
            self._unshelve()
            if self._entry is not None:
                with self._without_harm():
                    self._journal.forget(self._entry)
            raise

    def _unshelve(self) -> None:
        for p in self.work if isinstance(self.work, list) else ():
            self._shelf.drop(p)

    def _close_entry(self, state: str, message: str = "") -> None:
        if self._entry is not None:
            with self._without_harm():
                self._journal.ended(self._entry, state, message)
            self._entry = None

    @contextmanager
    def _without_harm(self) -> Iterator[None]:
        """A disk that is full must not cost the job: it goes on without its entry."""
        try:
            yield
        except OSError as error:
            logger.error("history could not be written: %s", error)
            self._notes.append("History could not be written; the log says why.")  # which names places

    def run(self, process: Callable[[StableDiffusionProcessingImg2Img], Processed]) -> None:
        """Do the work and publish its end."""
        self.state = "running"
        self._publish(self._snapshot())
        try:
            if isinstance(self.work, Series):
                self._run_series(self.work, process)
                self.finish(Finished([], self._elapsed(), self.work.outcome))
            else:
                self.finish(Finished(self._run_all(process), self._elapsed()))
        except Exception as error:  # the job's owner is told, and the engine lives on for the others
            self.finish(self._failure(error))

    def _run_all(self, process: Callable[[StableDiffusionProcessingImg2Img], Processed]) -> list[Processed]:
        results = []
        for number, p in enumerate(self.work):
            if self.stopped and results:
                break
            results.append(self._run_one(p, number, process))
        return results

    def _run_series(self, series: Series, process: Callable[[StableDiffusionProcessingImg2Img], Processed]) -> None:
        for self._item, item in enumerate(series.items):
            if self.cancelled:
                raise Cancelled("The job was cancelled.")
            if self.stopped:
                return
            self._batch = self._step = 0
            try:
                work = series.make(item)
                if isinstance(work, StableDiffusionProcessingImg2Img):
                    series.done(item, self._run_one(work, self._item, process))
                else:
                    series.found(work)
                    self._gone_over += 1
            except (Cancelled, TooMany):
                raise
            except Exception as error:  # the job's owner is told at its end, and the other items are done
                failure = self._failure(error)
                self._close_entry("failed", failure.message)
                series.failed(item, failure.message)
            self._batch, self._step = self._batches - 1, self._steps  # the item is at its end, however it came there
            self._publish(self._snapshot())

    def _run_one(self, p: StableDiffusionProcessingImg2Img, number: int,
                 process: Callable[[StableDiffusionProcessingImg2Img], Processed]) -> Processed:
        with self._shelf.working(p):
            if self._entry is None:
                self.record(p, f"{self.id}-{number}")
            self._begun, self._saved, self._earlier = 0, {}, {}
            try:
                result = process(p)
            finally:
                self._model = None  # it may have to make room for the next one's
        ended = result.interrupted or (self.stopped and not result.images)
        self._close_entry("interrupted" if ended else "done")
        result.comments += self._take_notes()
        return result

    def _take_notes(self) -> list[str]:
        """What the journal has to say, each sentence once."""
        told = [] if self._journal is None else self._journal.take_notes()
        notes, self._notes = [*self._notes, *told], []
        return list(dict.fromkeys(notes))

    def _failure(self, error: Exception) -> Failed:
        """An error as an event. Its frames are let go of: they would keep tensors alive."""
        if not isinstance(error, (PalimpsestError, Cancelled)):
            logger.error("job %s failed", self.id, exc_info=error)
        return Failed(error.with_traceback(None))

    def bind(self, p: StableDiffusionProcessingImg2Img) -> None:
        """Report on this one, which has its model, from now on."""
        self._model, self._options, self._batch_size = p.sd_model, p.options, p.batch_size
        self._started = self._started or time.monotonic()
        if self._entry is not None:
            with self._without_harm():
                self._journal.running(self._entry, self._model.info.name)
        self._publish(self._snapshot())

    def finish(self, event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            self._close_entry("interrupted" if isinstance(event.error, Cancelled) else "failed", event.message)
        self._unshelve()
        self.state, self.work, self._model, self._preview = "done", (), None, None
        self._publish(event)

    def wait_in_line(self, event: Queued) -> None:
        if self._event != event:
            self._publish(event)

    def _publish(self, event: Event) -> None:
        with self._changed:
            self._event = event
            self._version += 1
            self._changed.notify_all()
            listeners = list(self._listeners)
        for callback in listeners:
            callback()

    def _elapsed(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _snapshot(self) -> Step:
        elapsed, outcome, before = self._elapsed(), None, 0.0
        if isinstance(self.work, Series):
            outcome = self.work.outcome
            before = self._gone_over / max(outcome.items, 1)
        step = Step(self._step, self._steps, self._batch + 1, self._batches, elapsed, 0.0, self._preview, self._item + 1, outcome)
        done = step.fraction - before
        return replace(step, eta=elapsed * (1 - step.fraction) / done) if done > 0 else step

"""The one thread that owns the device, the queue before it, and jobs as streams of events."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import torch
from PIL import Image
from torch import Tensor

from pipeline.conditioning import CondCache
from pipeline.errors import Cancelled, Interrupted, PalimpsestError
from pipeline.families.base import Family
from pipeline.hooks import HookList, Hooks
from pipeline.options import Options
from pipeline.previews import preview
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queued:
    """The job waits."""

    place: int
    """How many jobs are done before it, the running one included."""
    loading: bool
    """The model is still being loaded."""


@dataclass(frozen=True)
class Step:
    """A sampling step is done."""

    step: int
    steps: int
    batch: int
    """Counted from 1."""
    batches: int
    elapsed: float
    """Seconds since the job started."""
    eta: float
    """Seconds to go, as far as one can tell."""
    preview: Image.Image | None
    """The newest picture so far, on the CPU; its size is the latent's or the picture's."""

    @property
    def fraction(self) -> float:
        """Share of the whole job that is done, 0 to 1."""
        return (self.batch - 1 + self.step / max(self.steps, 1)) / self.batches


@dataclass(frozen=True)
class Finished:
    """The job is done, or was interrupted and kept what there was."""

    results: list[Processed]
    """One per processing object."""
    elapsed: float


@dataclass(frozen=True)
class Failed:
    """The job ended without a result."""

    error: Exception

    @property
    def message(self) -> str:
        """One sentence for the person who asked."""
        if isinstance(self.error, (PalimpsestError, Cancelled)):
            return str(self.error)
        if isinstance(self.error, (MemoryError, torch.OutOfMemoryError)):
            return "The memory was not enough; a smaller width, height or batch_size needs less."
        return f"Something went wrong inside: {type(self.error).__name__}: {self.error}"


Event = Queued | Step | Finished | Failed


class Job(Progress):
    """One submission: to its reader an iterator of events, to the pipeline the progress it reports to."""

    def __init__(self, work: Iterable[StableDiffusionProcessingImg2Img], job_id: str | None = None):
        self.id = job_id or uuid4().hex
        self.work = work
        self.state = "queued"
        """queued, running or done."""
        self.cancelled = False
        self._changed = threading.Condition()
        self._event: Event | None = None
        self._version = 0
        self._skip = False
        self._started = 0.0
        self._model: Family | None = None
        self._options = Options()
        self._preview: Image.Image | None = None
        self._batch, self._batches, self._step, self._steps = 0, 1, 0, 1

    # --- for whoever submitted it

    def events(self, heartbeat: float | None = None) -> Iterator[Event]:
        """The newest event whenever there is a new one; the last is Finished or Failed. Closing it early cancels.

        With a `heartbeat` the newest is given again after so many seconds without a new one, so that a reader who is
        gone is noticed.
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
        finally:
            if self.state != "done":
                self.cancel()

    def result(self) -> list[Processed]:
        """Wait for the end. Raises what the job raised."""
        for event in self.events():
            if isinstance(event, Failed):
                raise event.error
        return event.results

    def interrupt(self) -> None:
        """End now and keep the picture so far."""
        self.stopped = True

    def skip(self) -> None:
        """End this batch now, keep its picture so far, and go on with the next one."""
        self._skip = True

    def cancel(self) -> None:
        """End now and keep nothing; a queued job never starts."""
        self.cancelled = True

    # --- Progress, on the engine's thread

    def begin(self, batches: int) -> None:
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
        if self.stopped or self._skip:
            self.partial = True
            raise Interrupted

    def report(self, step: int, denoised: Tensor) -> None:
        self._step = step
        shown = self._options.live_previews_enable and step % self._options.show_progress_every_n_steps == 0
        if shown:
            self._preview = preview(self._model, denoised, self._options.show_progress_type)
        self._publish(self._snapshot())

    def batch_done(self) -> None:
        self._batch += 1

    # --- the engine's side

    def run(self, model: Family, hooks: Hooks, cond_cache: CondCache) -> None:
        """Do the work and publish its end."""
        self._started, self.state = time.monotonic(), "running"
        self._publish(self._snapshot())
        results = []
        try:
            for p in self.work:
                if self.stopped and results:
                    break
                p.sd_model = p.sd_model or model
                p.scripts, p.progress, p.cond_cache = hooks, self, cond_cache
                self._model, self._options = p.sd_model, p.options
                results.append(process_images(p))
            self.finish(Finished(results, time.monotonic() - self._started))
        except Exception as error:  # the job's owner is told, and the engine lives on for the others
            if not isinstance(error, (PalimpsestError, Cancelled)):
                logger.exception("job %s failed", self.id)
            self.finish(Failed(error.with_traceback(None)))  # whose frames would keep the job's tensors alive

    def finish(self, event: Finished | Failed) -> None:
        self.state, self.work, self._model, self._preview = "done", (), None, None
        self._publish(event)

    def wait_in_line(self, place: int, *, loading: bool) -> None:
        if self._event != Queued(place, loading):
            self._publish(Queued(place, loading))

    def _publish(self, event: Event) -> None:
        with self._changed:
            self._event = event
            self._version += 1
            self._changed.notify_all()

    def _snapshot(self) -> Step:
        elapsed = time.monotonic() - self._started
        step = Step(self._step, self._steps, self._batch + 1, self._batches, elapsed, 0.0, self._preview)
        return replace(step, eta=elapsed / step.fraction - elapsed) if step.fraction > 0 else step


class Engine:
    """Runs jobs one after the other on the single thread that owns the device.

    load: makes the model; it is called on that thread, at once, so that whoever makes an engine does not wait for it.
    """

    def __init__(self, load: Callable[[], Family], options: Options = Options(), hooks: Iterable[Hooks] = ()):
        self.options = options
        self._load, self._hooks, self._cond_cache = load, HookList(hooks), CondCache()
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._model: Family | None = None
        self._load_error: Exception | None = None
        self._loaded = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, work: Iterable[StableDiffusionProcessingImg2Img], job_id: str | None = None) -> Job:
        """Queue the processing objects as one job; an iterable that makes them is read as it runs."""
        job = Job(work, job_id)
        with self._changed:
            if self._closed:
                raise PalimpsestError("The engine is shut down.")
            self._jobs.append(job)
            self._tell_places()
            self._changed.notify()
        return job

    def find(self, job_id: str | None = None) -> Job | None:
        """The waiting or running job of that id; None: the running one."""
        with self._changed:
            if job_id is None:
                return self._running
            return next((job for job in (self._running, *self._jobs) if job is not None and job.id == job_id), None)

    def interrupt(self, job_id: str | None = None) -> None:
        """Interrupt the running job, or the one of that id; one that still waits is dropped."""
        with self._changed:
            waiting = next((job for job in self._jobs if job.id == job_id), None)
            if waiting is not None:
                self._jobs.remove(waiting)
                self._tell_places()
        if waiting is not None:
            waiting.finish(Failed(Cancelled("The job was cancelled before it started.")))
        elif (job := self.find(job_id)) is not None:
            job.interrupt()

    def skip(self, job_id: str | None = None) -> None:
        """Skip the current batch of the running job, or of the one of that id."""
        job = self.find(job_id)
        if job is not None:
            job.skip()

    def close(self, timeout: float | None = None) -> None:
        """Cancel what runs and waits, and give the thread so many seconds to end; None: as long as it takes."""
        with self._changed:
            self._closed = True
            for job in (*self._jobs, *filter(None, [self._running])):
                job.cancel()
            self._changed.notify()
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            self._model = self._load()
        except Exception as error:  # each job that is submitted fails with it
            logger.error("the model could not be loaded: %s", error)
            self._load_error = error
        self._loaded = True
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a job and run it; False when the engine is closed and none is left."""
        job = self._next()
        if job is None:
            return False
        if job.cancelled:
            job.finish(Failed(Cancelled("The job was cancelled before it started.")))
        elif self._load_error is not None:
            job.finish(Failed(self._load_error))
        else:
            job.run(self._model, self._hooks, self._cond_cache)
        with self._changed:
            self._running = None
        return True

    def _next(self) -> Job | None:
        """Wait for a job; None when the engine is closed and none is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            self._running = self._jobs.popleft()
            self._tell_places()
            return self._running

    def _tell_places(self) -> None:
        ahead = 0 if self._running is None else 1
        for index, job in enumerate(self._jobs):
            job.wait_in_line(index + ahead, loading=not self._loaded)

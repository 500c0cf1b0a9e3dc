"""The one thread that owns the device, and the queue before it."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from pipeline import allocator
from pipeline.caches import Cache
from pipeline.embeddings import EmbeddingShelf
from pipeline.errors import Cancelled, PalimpsestError
from pipeline.families.base import Family
from pipeline.hooks import HookList, Hooks
from pipeline.job import Failed, Finished, Job, Queued, Work
from pipeline.journal import Journal
from pipeline.limits import Client, Limits, Quota
from pipeline.memory import check_memory, free_memory, frugal, is_out_of_memory, keep_freed_where_plenty
from pipeline.networks import Networks
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts import run
from pipeline.shelf import Shelf
from pipeline.styles import StyleDatabase

logger = logging.getLogger(__name__)

FINISHED = 16
"""How many ended jobs the engine knows the ids of."""
PAUSE = 30.0
"""Seconds without work after which memory that was kept for the next job is given back."""


class Engine:
    """Runs jobs one after the other on the single thread that owns the device.

    load: gives the model that options name; it is called on that thread for every request that brings none.
    options: those of requests that bring none. They may be replaced at any time: a request takes them when it is built.
    make_room: lets go of all models but the one used last, when memory has run out.
    embeddings, styles, networks: what prompts may name.
    journal: where jobs whose pictures are saved are recorded. limits: how much clients may ask for.
    cache: what jobs can take over from earlier ones. shelf: where pictures of jobs that wait are kept.
    """

    def __init__(self, load: Callable[[Options], Family], options: Options = Options(), hooks: Iterable[Hooks] = (), *,
                 make_room: Callable[[], None] = lambda: None, embeddings: EmbeddingShelf | None = None,
                 styles: StyleDatabase | None = None, networks: Networks | None = None, journal: Journal | None = None,
                 limits: Limits = Limits(), cache: Cache | None = None, shelf: Shelf | None = None):
        self.options, self.journal, self.limits = options, journal, limits
        self.embeddings, self.styles = embeddings or EmbeddingShelf(), styles or StyleDatabase()
        self.shelf = shelf or Shelf()
        self._load, self._hooks, self._make_room = load, HookList(hooks), make_room
        self._cache, self._networks = cache or Cache(), networks or Networks()
        self._quota = Quota(limits.pictures)
        self._entering: list[Job] = []
        """Jobs that have their place in the queue, but are not recorded yet."""
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self.finished: deque[str] = deque(maxlen=FINISHED)
        """Ids of the jobs that ended last."""
        self._preload: tuple[Job, Options] | None = None
        self._loading: float | None = None
        """Share of a model that is there while one is being loaded."""
        self._loads_for: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, work: Work, job_id: str | None = None, client: Client = Client(), mode: str = "") -> Job:
        """Queue the processing objects as one job; an iterable that makes them is read as it runs.

        Clients take turns: nobody's second job comes before everybody's first. mode: where it was asked for, for the journal,
        which records a single request now and others as they begin. Raises TooMany, and then nothing is recorded.
        """
        job = Job(work, job_id, client, mode=mode, journal=self.journal, quota=self._quota, shelf=self.shelf)
        with self._entrance(job):
            if isinstance(work, list) and len(work) == 1:
                job.record(work[0], job.id)
            job.shelve()
            with self._changed:
                self._refuse_if_closed()
                self._jobs = deque(in_turn([*self._jobs, job], self._running))
                self._tell_places()
                self._changed.notify()
        return job

    @contextmanager
    def _entrance(self, job: Job) -> Iterator[None]:
        """While inside, the job has its place in the queue and its pictures are counted, or TooMany is raised."""
        with self._changed:
            self.limits.check_waiting(job.client, [other.client for other in {*self._entering, *self._jobs}])
            job.count()
            self._entering.append(job)
        try:
            yield
        finally:
            with self._changed:
                self._entering.remove(job)

    def preload(self, options: Options | None = None) -> Job:
        """Load the model that options name, or the engine's options, once no job waits. The events tell when it is there.

        Only the newest wish counts: one that has not begun ends as cancelled.
        """
        job = Job(())
        with self._changed:
            self._refuse_if_closed()
            dropped, self._preload = self._preload, (job, options or self.options)
            self._changed.notify()
        if dropped is not None:
            dropped[0].finish(Failed(Cancelled("Another model was asked for before this one was loaded.")))
        return job

    def tell_loading(self, fraction: float) -> None:
        """To be told by what `load` calls, on the engine's thread: the share of a model that is there."""
        with self._changed:
            if self._loads_for is not None:
                self._loading = round(fraction, 2)
                self._tell_places()

    def jobs(self) -> list[Job]:
        """The running job, if there is one, and those that wait, in their order."""
        with self._changed:
            return [job for job in (self._running, *self._jobs) if job is not None]

    def find(self, job_id: str | None = None) -> Job | None:
        """The waiting or running job of that id; None: the running one."""
        with self._changed:
            if job_id is None:
                return self._running
            return next((job for job in (self._running, *self._jobs) if job is not None and job.id == job_id), None)

    def interrupt(self, job_id: str | None = None) -> None:
        """Interrupt the running job, or the one of that id; one that still waits is dropped."""
        job = self.find(job_id)
        if job is not None and not self._drop(job):
            job.interrupt()

    def stop_after(self, job_id: str) -> None:
        """End the job of that id once the picture that is being made is done; one that still waits is dropped."""
        job = self.find(job_id)
        if job is not None and not self._drop(job):
            job.stop_after()

    def cancel(self, job: Job) -> None:
        """End a job now and keep nothing; one that still waits is dropped."""
        if not self._drop(job):
            job.cancel()

    def _drop(self, job: Job) -> bool:
        """Take a job out of the queue; False where it does not wait in it."""
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            self.finished.append(job.id)
            self._tell_places()
        job.finish(Failed(Cancelled("The job was cancelled before it started.")))
        return True

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
            dropped, self._preload = self._preload, None
            self._changed.notify()
        if dropped is not None:
            dropped[0].finish(Failed(Cancelled("The engine is shut down.")))
        self._thread.join(timeout)
        self.shelf.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise PalimpsestError("The engine is shut down.")

    # --- on the engine's thread

    def _work(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Wait for a job and run it, or load a model ahead where none waits; False when the engine is closed."""
        with self._changed:
            paused = not self._changed.wait_for(self._has_work, PAUSE)
        if paused:
            allocator.give_back()
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._jobs:
                self._running = self._jobs.popleft()
                self._tell_places()
            preload, self._preload = (self._preload, None) if self._running is None else (None, self._preload)
        if self._running is not None:
            self._run(self._running)
            with self._changed:
                self.finished.append(self._running.id)
                self._running = None
        elif preload is not None:
            self._load_ahead(*preload)
        else:
            return False
        return True

    def _has_work(self) -> bool:
        return bool(self._jobs or self._preload or self._closed)

    def _run(self, job: Job) -> None:
        if job.cancelled:
            job.finish(Failed(Cancelled("The job was cancelled before it started.")))
        else:
            job.run(lambda p: self._process(job, p))

    def _load_ahead(self, job: Job, options: Options) -> None:
        """Load a model for whoever asks for it next. Who wants to know is told by the job's events."""
        if job.cancelled:
            return
        try:
            self._model_for(job, options)
            job.finish(Finished([], 0.0))
        except Exception as error:  # whoever asked is told, and each job that needs the model fails with it
            foreseen = isinstance(error, PalimpsestError | Cancelled)
            logger.error("the model could not be loaded: %s", error, exc_info=None if foreseen else error)
            job.finish(Failed(error.with_traceback(None)))

    def _process(self, job: Job, p: StableDiffusionProcessingImg2Img) -> Processed:
        """Run one request, and once more with less memory where the first try has run out of it."""
        try:
            model = p.sd_model or self._model_for(job, p.options)
            keep_freed_where_plenty(model.placement, p.width * p.height * p.batch_size)
            check_memory(model, p.width * p.height, p.batch_size)
            return self._process_with(model, job, fresh(p), self._cache)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("job %s ran out of memory and is tried once more with less", job.id)
        # here what the first try has made is gone with its exception
        p.receipts.try_again()
        job.try_again()
        self._cache.clear()
        self._make_room()
        with frugal(p.sd_model or self._model_for(job, p.options)) as model:
            check_memory(model, p.width * p.height, p.batch_size, sparing=True)
            second = fresh(p)
            second.comments.append(f"Memory ran out, so it was done once more with less: {model.changes}.")
            second.extra_generation_params["Low memory"] = model.changes
            return self._process_with(model, job, second, Cache())  # where tiles meet, its latents are others

    def _process_with(self, model: Family, job: Job, p: StableDiffusionProcessingImg2Img, cache: Cache) -> Processed:
        p.sd_model, p.scripts, p.progress, p.cache = model, self._hooks, job, cache
        p.embeddings, p.style_database, p.networks = self.embeddings, self.styles, self._networks
        p.load_model, p.free_memory = partial(self._model_for, job), free_memory
        job.bind(p)
        result = run(p)
        return replace(result, model=model.info, inpaints=model.sees == "masked source")

    def _model_for(self, job: Job, options: Options) -> Family:
        with self._changed:
            self._loading, self._loads_for = 0.0, job
        try:
            return self._load(options)
        finally:
            with self._changed:
                self._loading = self._loads_for = None
                self._tell_places()

    def _tell_places(self) -> None:
        """Tell every job that waits, for its turn or for its model, how that stands."""
        loading = {"loading": self._loading is not None, "fraction": self._loading or 0.0}
        if self._loads_for is not None:
            self._loads_for.wait_in_line(Queued(0, **loading))
        ahead = 0 if self._running is None else 1
        for index, job in enumerate(self._jobs):
            job.wait_in_line(Queued(index + ahead, **loading))


def fresh(p: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The same request, for one try to work on: what it makes and says of itself is gone with it."""
    own = p.variant()
    own.comments = list(p.comments)
    return own


def in_turn(waiting: Iterable[Job], running: Job | None) -> list[Job]:
    """The jobs in the order that they run in: each client's first in the order they came, then each one's second."""
    turns = Counter(() if running is None else [running.client.id])
    order = []
    for job in sorted(waiting, key=lambda job: job.arrived):
        order.append((turns[job.client.id], job))
        turns[job.client.id] += 1
    return [job for _, job in sorted(order, key=lambda pair: pair[0])]

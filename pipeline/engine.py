"""The engine: page and API submit requests to it. LocalEngine queues them for one worker thread."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import numpy as np

from pipeline.caches import Cache
from pipeline.controlnet.store import ControlNets
from pipeline.device import DeviceWorker
from pipeline.embeddings import EmbeddingShelf
from pipeline.errors import Cancelled, PalimpsestError
from pipeline.families.base import Family
from pipeline.families.sam import Prompt
from pipeline.hooks import Hooks
from pipeline.job import Failed, Finished, Job, Queued, sendable
from pipeline.journal import Journal
from pipeline.limits import Client, Limits, Quota
from pipeline.networks import Networks
from pipeline.options import Options
from pipeline.series import Surroundings
from pipeline.shelf import Shelf
from pipeline.styles import StyleDatabase
from pipeline.submission import Submission, Work
from pipeline.worker import EmbeddingInfo, Loaded, Loading, News, Worker

logger = logging.getLogger(__name__)

FINISHED = 16
"""Ids of ended jobs that the engine remembers."""
PAUSE = 30.0
"""Idle seconds after which memory kept for the next job is given back."""


class Engine(Protocol):
    """Makes pictures for the page and the API, wherever it computes.

    Requests and events are plain data that can be pickled. Any thread may use it.
    """

    options: Options
    """Defaults for requests without options. May be replaced at any time: a request takes them when it is built."""
    journal: Journal | None
    """Records jobs whose pictures are saved."""
    limits: Limits
    """How much clients may ask for."""
    styles: StyleDatabase
    """Styles that requests may name."""
    shelf: Shelf
    """Keeps the pictures of waiting jobs."""
    finished: Collection[str]
    """Ids of the jobs that ended most recently."""

    def submit(self, work: Work, job_id: str | None = None, client: Client = Client(), mode: str = "") -> Job:
        """Queue the requests as one job.

        Clients take turns: nobody's second job comes before everybody's first. mode: its name in the journal, which records a
        single request now and the items of a series as they begin. Raises TooMany, and then nothing is recorded.
        """

    def preload(self, options: Options | None = None) -> Job:
        """Load the model that options name (None: the engine's options) once no job waits. Its events tell when it is loaded.

        A newer call replaces an older one that has not begun, which ends as cancelled.
        """

    def release(self) -> None:
        """Drop all models; the next request loads its own again."""

    def jobs(self) -> list[Job]:
        """The running job, if any, and the waiting ones in order."""

    def find(self, job_id: str | None = None) -> Job | None:
        """The waiting or running job of that id; None: the running one."""

    def interrupt(self, job_id: str | None = None) -> None:
        """Interrupt the running job, or the one of that id; a waiting one is dropped."""

    def stop_after(self, job_id: str) -> None:
        """End the job of that id after the current picture; a waiting one is dropped."""

    def skip(self, job_id: str | None = None) -> None:
        """Skip the current batch of the running job, or of the one of that id."""

    def cancel(self, job: Job) -> None:
        """End a job now and keep nothing; a waiting one is dropped."""

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        """Tokens of the longest text of each prompt over `calls` model calls; None: the model is not loaded.

        Raises UnknownName, ModelError.
        """

    def memory(self) -> dict[str, Any]:
        """Bytes of main memory and of the graphics card of the machine that computes, in the form of memory_report()."""

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        """The embeddings that the model can use, and by name a sentence on each that it cannot."""

    def segmenters(self) -> list[str]:
        """The names of the models that find objects in pictures."""

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        """As Worker.segment(); also while jobs run."""

    def close(self, timeout: float | None = None) -> None:
        """Cancel all jobs and wait up to `timeout` seconds for them to end; None: as long as it takes."""


class LocalEngine(Engine):
    """Gives jobs to a worker one at a time, on a thread of its own.

    has_model: whether a checkpoint of that name or hash exists, for a batch's files. The rest is as in Engine.
    """

    def __init__(self, worker: Worker, options: Options = Options(), *, styles: StyleDatabase | None = None,
                 journal: Journal | None = None, limits: Limits = Limits(), shelf: Shelf | None = None,
                 has_model: Callable[[str], bool] = lambda name: False):
        self.options, self.journal, self.limits = options, journal, limits
        self.styles, self.shelf = styles or StyleDatabase(), shelf or Shelf()
        self.finished: deque[str] = deque(maxlen=FINISHED)
        self._worker, self._here = worker, Surroundings(journal, has_model)
        self._quota = Quota(limits.pictures)
        self._entering: list[Job] = []
        """Jobs that have a place in the queue but are not recorded yet."""
        self._waiting: deque[Submission] = deque()
        self._running: Submission | None = None
        self._preload: tuple[Job, Options] | None = None
        self._loading: float | None = None
        """Fraction of a model that is loaded; None: none is being loaded."""
        self._loads_for: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, work: Work, job_id: str | None = None, client: Client = Client(), mode: str = "") -> Job:
        job = Job(job_id, client, mode)
        submission = Submission(job, work, self._here, quota=self._quota, shelf=self.shelf)
        with self._entrance(submission):
            submission.enter()
            with self._changed:
                self._refuse_if_closed()
                self._waiting = deque(in_turn([*self._waiting, submission], self._running))
                self._tell_places()
                self._changed.notify()
        return job

    @contextmanager
    def _entrance(self, submission: Submission) -> Iterator[None]:
        """Reserves the job's place in the queue and counts its pictures. Raises TooMany."""
        job = submission.job
        with self._changed:
            waiting = {*self._entering, *(one.job for one in self._waiting)}
            self.limits.check_waiting(job.client, [other.client for other in waiting])
            submission.count()
            self._entering.append(job)
        try:
            yield
        finally:
            with self._changed:
                self._entering.remove(job)

    def preload(self, options: Options | None = None) -> Job:
        job = Job()
        with self._changed:
            self._refuse_if_closed()
            dropped, self._preload = self._preload, (job, options or self.options)
            self._changed.notify()
        if dropped is not None:
            dropped[0].publish(Failed(Cancelled("Another model was asked for before this one was loaded.")))
        return job

    def release(self) -> None:
        self._worker.release()

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        return self._worker.count_tokens(prompts, options, calls)

    def memory(self) -> dict[str, Any]:
        return self._worker.memory()

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        return self._worker.embeddings()

    def segmenters(self) -> list[str]:
        return self._worker.segmenters()

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        return self._worker.segment(name, picture, key, prompt)

    def jobs(self) -> list[Job]:
        with self._changed:
            return [one.job for one in (self._running, *self._waiting) if one is not None]

    def find(self, job_id: str | None = None) -> Job | None:
        with self._changed:
            if job_id is None:
                return self._running and self._running.job
            return next((job for job in self.jobs() if job.id == job_id), None)

    def interrupt(self, job_id: str | None = None) -> None:
        job = self.find(job_id)
        if job is not None and not self._drop(job):
            job.interrupt()

    def stop_after(self, job_id: str) -> None:
        job = self.find(job_id)
        if job is not None and not self._drop(job):
            job.stop_after()

    def cancel(self, job: Job) -> None:
        if not self._drop(job):
            job.cancel()

    def _drop(self, job: Job) -> bool:
        """Take a job out of the queue; False if it is not waiting there."""
        with self._changed:
            submission = next((one for one in self._waiting if one.job is job), None)
            if submission is None:
                return False
            self._waiting.remove(submission)
            self.finished.append(job.id)
            self._tell_places()
        submission.finish(Failed(Cancelled("The job was cancelled before it started.")))
        return True

    def skip(self, job_id: str | None = None) -> None:
        job = self.find(job_id)
        if job is not None:
            job.skip()

    def close(self, timeout: float | None = None) -> None:
        with self._changed:
            self._closed = True
            for job in self.jobs():
                job.cancel()
            dropped, self._preload = self._preload, None
            self._changed.notify()
        if dropped is not None:
            dropped[0].publish(Failed(Cancelled("The engine has been shut down.")))
        self._thread.join(timeout)
        self.shelf.close()
        self._here.kept.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise PalimpsestError("The engine has been shut down.")

    # --- on the engine's thread

    def _work(self) -> None:
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Wait for a job and run it, or preload a model if none waits; False once the engine is closed."""
        with self._changed:
            paused = not self._changed.wait_for(self._has_work, PAUSE)
        if paused:
            self._worker.rest()
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._waiting:
                self._running = self._waiting.popleft()
                self._tell_places()
            preload, self._preload = (self._preload, None) if self._running is None else (None, self._preload)
        if self._running is not None:
            self._run(self._running)
            with self._changed:
                self.finished.append(self._running.job.id)
                self._running = None
        elif preload is not None:
            self._load_ahead(*preload)
        else:
            return False
        return True

    def _has_work(self) -> bool:
        return bool(self._waiting or self._preload or self._closed)

    def _run(self, submission: Submission) -> None:
        job = submission.job
        if job.cancelled:
            submission.finish(Failed(Cancelled("The job was cancelled before it started.")))
        else:
            tell = partial(self._take, submission, job)
            submission.run(lambda request, kept: self._worker.run(request, self.styles, tell, job.wishes, kept))

    def _load_ahead(self, job: Job, options: Options) -> None:
        """Load a model ahead of its first request; the job's events report on it."""
        if job.cancelled:
            return
        try:
            self._worker.load(options, partial(self._take, None, job))
            job.publish(Finished([], 0.0))
        except Exception as error:  # reported to the caller; each job that needs the model will fail too
            logger.error("the model could not be loaded: %s", error)
            job.publish(Failed(sendable(error)))

    def _take(self, submission: Submission | None, job: Job, news: News) -> None:
        """Handle the worker's news about a job."""
        match news:
            case Loading(None):  # the model may be in memory already
                with self._changed:
                    self._loading, self._loads_for = 0.0, job
            case Loading(share):
                with self._changed:
                    self._loading = share
                    self._tell_places()
            case Loaded():
                with self._changed:
                    self._loading = self._loads_for = None
                    self._tell_places()
            case _ if submission is not None:
                submission.take(news)

    def _tell_places(self) -> None:
        """Tell every waiting job its place in line and how far its model is loaded."""
        loading = {"loading": self._loading is not None, "fraction": self._loading or 0.0}
        if self._loads_for is not None:
            self._loads_for.wait_in_line(Queued(0, **loading))
        ahead = 0 if self._running is None else 1
        for index, waiting in enumerate(self._waiting):
            waiting.job.wait_in_line(Queued(index + ahead, **loading))


def in_turn(waiting: Iterable[Submission], running: Submission | None) -> list[Submission]:
    """The jobs in running order: each client's first in order of arrival, then each client's second, and so on."""
    turns = Counter(() if running is None else [running.job.client.id])
    order = []
    for one in sorted(waiting, key=lambda one: one.job.arrived):
        order.append((turns[one.job.client.id], one))
        turns[one.job.client.id] += 1
    return [one for _, one in sorted(order, key=lambda pair: pair[0])]


def local_engine(load: Callable[[Options], Family], options: Options = Options(), hooks: Iterable[Hooks] = (), *,
                 loaded: Callable[[Options], Family | None] = lambda options: None, make_room: Callable[[], None] = lambda: None,
                 release: Callable[[], None] = lambda: None, embeddings: EmbeddingShelf | None = None,
                 networks: Networks | None = None, cache: Cache | None = None, control_networks: ControlNets | None = None,
                 **how: Any) -> LocalEngine:
    """An engine with a worker in this process. how: further arguments of LocalEngine; the rest is as in DeviceWorker."""
    worker = DeviceWorker(load, hooks, loaded=loaded, make_room=make_room, release=release, embeddings=embeddings,
                          networks=networks, cache=cache, control_networks=control_networks)
    return LocalEngine(worker, options, **how)

"""The engine: page and API submit requests to it. LocalEngine queues them for its workers, each with a thread."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from pipeline.caches import Cache
from pipeline.controlnet.store import ControlNets
from pipeline.detectors.store import Detectors
from pipeline.device import NO_PLAN, DeviceWorker
from pipeline.embeddings import EmbeddingShelf
from pipeline.errors import Cancelled, PalimpsestError, UnknownName, WorkerGone, WorkerLost
from pipeline.families.base import Family
from pipeline.families.sam import Prompt
from pipeline.hooks import Hooks
from pipeline.job import Failed, Finished, Job, Queued, sendable
from pipeline.journal import Journal
from pipeline.limits import Client, Limits, Quota
from pipeline.memory import MemoryPlan
from pipeline.models import Catalog
from pipeline.networks import Networks
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.request import Request
from pipeline.scheduler import Scheduler
from pipeline.series import Surroundings
from pipeline.sharing import Helper
from pipeline.shelf import Shelf
from pipeline.styles import StyleDatabase
from pipeline.submission import Submission, Work, model_named
from pipeline.worker import EmbeddingInfo, Loaded, Loading, News, Started, Wishes, Worker, WorkerState

logger = logging.getLogger(__name__)

FINISHED = 16
"""Ids of ended jobs that the engine remembers."""
PAUSE = 30.0
"""Idle seconds after which memory kept for the next job is given back."""
RETRIES = 2
"""How often a request runs again after its worker was lost."""
PATIENCE = 1.0
"""Seconds between two looks at whether a job that waits for a worker to stand in was cancelled."""
RECENT = 20
"""Jobs from which a worker's pictures per minute are known."""


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

    def plan(self, options: Options | None = None) -> MemoryPlan:
        """As Worker.plan(); None: the engine's options."""

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

    def upscale(self, name: str, picture: np.ndarray) -> np.ndarray:
        """As Worker.upscale(); also while jobs run."""

    def workers(self) -> list[WorkerState]:
        """What each worker does."""

    def put_in_service(self, name: str, on: bool) -> None:
        """Whether a worker may take jobs; one that is put out of service finishes what it does. Raises UnknownName."""

    def close(self, timeout: float | None = None) -> None:
        """Cancel all jobs and wait up to `timeout` seconds for them to end; None: as long as it takes."""


class Station:
    """A worker's place in an engine, and what the worker does. Guarded by the engine's lock."""

    def __init__(self, name: str, worker: Worker):
        self.name, self.worker = name, worker
        self.in_service, self.model = True, ""
        self.where = ""
        """Where it computes, as in Started; "": not known yet."""
        self.running: Submission | None = None
        self.helping: tuple[Submission, Helper] | None = None
        """A job of another worker that it computes for."""
        self.preloads = False
        """It has still to load the model of the engine's preload."""
        self.preloading = False
        self.loading: float | None = None
        """Fraction of a model that is loaded; None: none is being loaded."""
        self.loads_for: Job | None = None
        self.made: deque[tuple[int, float]] = deque(maxlen=RECENT)
        """(pictures, seconds) of the last jobs."""

    @property
    def idle(self) -> bool:
        return self.running is None and self.helping is None and not self.preloading

    @property
    def state(self) -> WorkerState:
        seconds = sum(seconds for _, seconds in self.made)
        rate = 60 * sum(pictures for pictures, _ in self.made) / seconds if seconds else 0.0
        submission = self.helping[0] if self.helping is not None else self.running
        job = None if submission is None else submission.job.id
        return WorkerState(self.name, self.model, job, self.loading is not None, round(rate, 2), self.in_service)


class LocalEngine(Engine):
    """Gives jobs to workers, each of which runs one at a time on a thread of its own.

    workers: one, or several by the names of their devices. has_model: whether a checkpoint of that name or hash exists, for a
    batch's files. The rest is as in Engine.
    """

    def __init__(self, workers: Worker | Mapping[str, Worker], options: Options = Options(), *, styles: StyleDatabase | None = None,
                 journal: Journal | None = None, limits: Limits = Limits(), shelf: Shelf | None = None,
                 has_model: Callable[[str], bool] = lambda name: False):
        self.options, self.journal, self.limits = options, journal, limits
        self.styles, self.shelf = styles or StyleDatabase(), shelf or Shelf()
        self.finished: deque[str] = deque(maxlen=FINISHED)
        self._here = Surroundings(journal, has_model)
        self._quota = Quota(limits.pictures)
        self._entering: list[Job] = []
        """Jobs that have a place in the queue but are not recorded yet."""
        self._waiting: list[Submission] = []
        """In the order of their turns."""
        self._running: list[Submission] = []
        """In the order in which they began."""
        self._preload: Preload | None = None
        self._changed = threading.Condition()
        self._closed = False
        workers = workers if isinstance(workers, Mapping) else {"": workers}
        self._scheduler = Scheduler(len(workers))
        self._stations = [Station(name, worker) for name, worker in workers.items()]
        self._threads = [threading.Thread(target=self._work, args=[station], name=f"engine {station.name}".strip(), daemon=True)
                         for station in self._stations]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, job_id: str | None = None, client: Client = Client(), mode: str = "") -> Job:
        job = Job(job_id, client, mode)
        submission = Submission(job, work, self._here, quota=self._quota, shelf=self.shelf,
                                announce=self._announce if len(self._stations) > 1 else None)
        with self._entrance(submission):
            submission.enter()
            with self._changed:
                self._refuse_if_closed()
                self._waiting.append(submission)
                if not any(station.idle and station.in_service for station in self._stations):
                    any(one.sharing.withdraw() for one in self._running if one.sharing is not None)
                self._tell_places()
                self._changed.notify_all()
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
        with self._changed:
            self._refuse_if_closed()
            dropped, preload = self._preload, Preload(Job(), options or self.options)
            self._preload = preload
            for station in self._stations:
                station.preloads = True
            self._changed.notify_all()
        self._drop_preload(dropped, "Another model was asked for before this one was loaded.")
        return preload.job

    def _drop_preload(self, dropped: "Preload | None", why: str) -> None:
        if dropped is not None and not dropped.begun:
            dropped.job.publish(Failed(Cancelled(why)))

    def plan(self, options: Options | None = None) -> MemoryPlan:
        return self._worker.plan(options or self.options)

    def release(self) -> None:
        for station in self._stations:
            with suppress(WorkerLost):  # its models went with it
                station.worker.release()
            with self._changed:
                station.model = ""
                self._scheduler.forget(station.name)

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        counts = (station.worker.count_tokens(prompts, options, calls) for station in self._stations)
        return next((count for count in counts if count is not None), None)

    def memory(self) -> dict[str, Any]:
        return self._worker.memory()

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        return self._worker.embeddings()

    def segmenters(self) -> list[str]:
        return self._worker.segmenters()

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        return self._worker.segment(name, picture, key, prompt)

    def upscale(self, name: str, picture: np.ndarray) -> np.ndarray:
        return self._worker.upscale(name, picture)

    @property
    def _worker(self) -> Worker:
        """The one that answers what any of them could."""
        return self._stations[0].worker

    def workers(self) -> list[WorkerState]:
        with self._changed:
            return [station.state for station in self._stations]

    def put_in_service(self, name: str, on: bool) -> None:
        with self._changed:
            station = next((station for station in self._stations if station.name == name), None)
            if station is None:
                raise UnknownName("worker", "worker", name, [station.name for station in self._stations])
            station.in_service = on
            if not on and station.helping is not None:
                station.helping[1].end()
            self._changed.notify_all()

    def jobs(self) -> list[Job]:
        with self._changed:
            return [one.job for one in (*self._running, *self._waiting)]

    def find(self, job_id: str | None = None) -> Job | None:
        with self._changed:
            if job_id is None:
                return self._running[0].job if self._running else None
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
            self._scheduler.gone(submission.asked)
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
            self._changed.notify_all()
        self._drop_preload(dropped, "The engine has been shut down.")
        latest = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(latest and max(latest - time.monotonic(), 0.0))
        self.shelf.close()
        self._here.kept.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise PalimpsestError("The engine has been shut down.")

    # --- on a worker's thread

    def _work(self, station: Station) -> None:
        while self._serve_next(station):
            pass

    def _serve_next(self, station: Station) -> bool:
        """Wait for a job and run it, or preload a model if none waits; False once the engine is closed."""
        with self._changed:
            paused = not self._changed.wait_for(lambda: self._has_work(station), PAUSE)
        if paused:
            with suppress(WorkerLost):
                station.worker.rest()
        with self._changed:
            self._changed.wait_for(lambda: self._has_work(station))
            submission, preload, helper = self._next_for(station), None, None
            if submission is not None:
                self._begin(submission, station)
            elif station.preloads and self._preload is not None:
                preload, station.preloads, station.preloading = self._preload, False, True
                preload.begun = True
                self._changed.notify_all()
            elif (helped := self._to_help(station)) is not None:
                if (helper := helped.sharing.join()) is None:
                    return True
                station.helping = helped, helper
        if helper is not None:
            self._help(helped, helper, station)
        elif submission is not None:
            self._run(submission, station)
        elif preload is not None:
            self._load_ahead(preload, station)
            with self._changed:
                station.preloading = False
                self._changed.notify_all()
        else:
            return False
        return True

    def _has_work(self, station: Station) -> bool:
        return (self._closed or (station.preloads and self._preload is not None) or self._next_for(station) is not None
                or self._to_help(station) is not None)

    def _to_help(self, station: Station) -> Submission | None:
        """The running job of another worker that this one could compute for. Waiting jobs go first."""
        if self._closed or self._waiting or not (station.idle and station.in_service):
            return None
        wanting = [one for one in self._running if one.sharing is not None and one.sharing.wanted
                   and station.where in ("", one.where)]
        return next((one for one in wanting if self._scheduler.has(station.name, one.asked.model)), wanting[0] if wanting else None)

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _next_for(self, station: Station) -> Submission | None:
        """The waiting job that this worker is to take."""
        if self._closed:  # cancelled by now
            return self._waiting[0] if self._waiting else None
        idle = [other.name for other in self._stations if other.idle and other.in_service]
        choice = self._scheduler.choose(idle, [one.asked for one in self._waiting], [one.job.client.id for one in self._running])
        if choice is None or choice[0] != station.name:
            return None
        return next(one for one in self._waiting if one.asked.id == choice[1].id)

    def _begin(self, submission: Submission, station: Station) -> None:
        self._waiting.remove(submission)
        self._scheduler.began(station.name, submission.asked, [one.asked for one in self._waiting],
                              [one.job.client.id for one in self._running])
        self._running.append(submission)
        station.running = submission
        self._tell_places()
        self._changed.notify_all()

    def _run(self, submission: Submission, station: Station) -> None:
        job = submission.job
        if job.cancelled:
            submission.finish(Failed(Cancelled("The job was cancelled before it started.")))
        else:
            submission.run(partial(self._process, submission, station))
        with self._changed:
            if submission.made and (seconds := submission.seconds) > 0:
                station.made.append((submission.made, seconds))
                if submission.sharing is None or not submission.sharing.received:
                    self._scheduler.ended(station.name, submission.asked, seconds)
            self.finished.append(job.id)
            self._running.remove(submission)
            station.running = None
            self._changed.notify_all()

    def _process(self, submission: Submission, station: Station, request: Request, kept: bytes) -> Processed:
        """Run a request, and again from what was kept of it if its worker was lost; on another one if that is idle."""
        at, lost = station, 0
        try:
            while True:
                try:
                    return at.worker.run(request, self.styles, partial(self._take, at, submission, submission.job), submission.job.wishes, kept)
                except WorkerLost as error:
                    self._lost(at)
                    self._take(at, None, submission.job, Loaded())  # it may have been loading
                    gone = isinstance(error, WorkerGone)
                    lost += not gone
                    if lost > RETRIES or submission.job.cancelled or (other := self._stand_in(submission, at, station, gone=gone)) is None:
                        raise
                    name, at = at.name, other
                kept = submission.run_again(f"The worker on {name} ended unexpectedly, so another one continued its work.")
        finally:
            self._leave(at, station)

    def _stand_in(self, submission: Submission, lost: Station, own: Station, *, gone: bool) -> Station | None:
        """Where a job goes on: with an idle worker or, unless the lost one is `gone`, with that. None: no worker is left.

        own: the one that took the job, and whose thread runs it.
        """
        with self._changed:
            if gone and len(self._stations) > 1:
                lost.in_service = False
            while not self._closed and not submission.job.cancelled:
                others = [other for other in self._stations if other is not lost and other.in_service]
                # of another kind, whose rounding differs, only if there is no choice
                if (other := next((other for other in others if other.idle and (gone or other.where in ("", lost.where))), None)) is not None:
                    other.running = submission
                    self._leave(lost, own)
                    return other
                if not gone:
                    return lost
                if not others:
                    return None
                self._changed.wait(PATIENCE)
        return None

    def _leave(self, station: Station, own: Station) -> None:
        """The worker has no job any more that another one's thread ran there."""
        with self._changed:
            if station is not own:
                station.running = None
                self._changed.notify_all()

    def _help(self, submission: Submission, helper: Helper, station: Station) -> None:
        """Compute for another worker's job, as long as there is something to do and nobody waits."""
        def assist(request: Request, kept: bytes, wishes: Wishes) -> None:
            try:
                station.worker.run(request, self.styles, partial(self._take_help, station, submission, helper), wishes, kept)
            except WorkerLost:
                self._lost(station)
                raise

        submission.help(helper, assist)
        with self._changed:
            station.helping = station.loading = None
            self._changed.notify_all()

    def _lost(self, station: Station) -> None:
        with self._changed:
            self._scheduler.forget(station.name)
            station.model = ""

    def _take_help(self, station: Station, submission: Submission, helper: Helper, news: News) -> bool | None:
        """Handle a worker's news about a job that it computes for."""
        match news:
            case Loading(share):
                with self._changed:
                    station.loading = share or 0.0
            case Loaded():
                with self._changed:
                    station.loading = None
            case Started(model, where):
                with self._changed:
                    station.model, station.where = model.name, where
                    self._scheduler.loaded(station.name, submission.asked.model)
                if where != submission.where:
                    raise Cancelled("It computes on another kind of device, whose rounding may differ.")
        return submission.take_help(helper, news)

    def _load_ahead(self, preload: "Preload", station: Station) -> None:
        """Load a model ahead of its first request; the job's events report on the first worker to do so."""
        job = preload.job
        if job.cancelled:
            return
        try:
            model = station.worker.load(preload.options, partial(self._take, station, None, job))
            with self._changed:
                station.model = model.name
                self._scheduler.loaded(station.name, model_named(preload.options))
            end = Finished([], 0.0)
        except Exception as error:  # reported to the caller; each job that needs the model will fail too
            logger.error("the model could not be loaded: %s", error)
            end = Failed(sendable(error))
        if job.state != "done":
            job.publish(end)

    def _take(self, station: Station, submission: Submission | None, job: Job, news: News) -> bytes | None:
        """Handle the worker's news about a job."""
        match news:
            case Loading(None):  # the model may be in memory already
                with self._changed:
                    station.loading, station.loads_for = 0.0, job
            case Loading(share):
                with self._changed:
                    station.loading = share
                    self._tell_places()
            case Loaded():
                with self._changed:
                    station.loading = station.loads_for = None
                    self._tell_places()
            case _ if submission is not None:
                if isinstance(news, Started):
                    with self._changed:
                        station.model, station.where = news.model.name, news.where
                return submission.take(news)
        return None

    def _tell_places(self) -> None:
        """Put the waiting jobs in order, and tell each its place in line and how far the model is loaded that is awaited."""
        for station in self._stations:
            if station.loads_for is not None and station.loads_for.state != "done":
                station.loads_for.wait_in_line(Queued(0, True, station.loading or 0.0))
        loading = next((station.loading for station in self._stations if station.loading is not None), None)
        order = {asked.id: place for place, (_, asked) in enumerate(
            self._scheduler.order([one.asked for one in self._waiting], [one.job.client.id for one in self._running]))}
        self._waiting.sort(key=lambda one: order[one.asked.id])
        for place, waiting in enumerate(self._waiting, len(self._running)):
            waiting.job.wait_in_line(Queued(place, loading is not None, loading or 0.0))


@dataclass
class Preload:
    """A model to be loaded by every worker once no job waits; its job is done when one has loaded it."""

    job: Job
    options: Options
    begun: bool = False


def local_engine(load: Callable[[Options], Family], options: Options = Options(), hooks: Iterable[Hooks] = (), *,
                 loaded: Callable[[Options], Family | None] = lambda options: None, make_room: Callable[[], None] = lambda: None,
                 release: Callable[[], None] = lambda: None, plan: Callable[[Options], MemoryPlan] = lambda options: NO_PLAN,
                 embeddings: EmbeddingShelf | None = None, networks: Networks | None = None, cache: Cache | None = None, control_networks: ControlNets | None = None,
                 detectors: Detectors | None = None, upscalers: Catalog | None = None, **how: Any) -> LocalEngine:
    """An engine with a worker in this process. how: further arguments of LocalEngine; the rest is as in DeviceWorker."""
    worker = DeviceWorker(load, hooks, loaded=loaded, make_room=make_room, release=release, plan=plan, embeddings=embeddings,
                          networks=networks, cache=cache, control_networks=control_networks, detectors=detectors, upscalers=upscalers)
    return LocalEngine(worker, options, **how)

"""A job on the engine's side: sends its requests to the worker, and keeps history and quotas up to date."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from pipeline.errors import Cancelled, TooMany, WorkerLost
from pipeline.job import Failed, Finished, Job, Step, sendable
from pipeline.kept import LIMIT, KeptFiles, facts_of, piece
from pipeline.limits import Quota
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.request import Request
from pipeline.scheduler import Asked
from pipeline.scripts import divides
from pipeline.series import Series, Surroundings, Tally
from pipeline.sharing import Helper, Sharing
from pipeline.shelf import Shelf
from pipeline.worker import Begun, Keep, News, Sampled, Saving, Started, Turn, Wishes

logger = logging.getLogger(__name__)

Work = list[Request] | Series
"""A job's work: requests that must all succeed, or a series whose items succeed or fail on their own."""
Process = Callable[[Request, bytes], Processed]
"""Runs a request, given what an interrupted run of it has kept."""
Assist = Callable[[Request, bytes, Wishes], object]
"""Runs a request that helps another one, given what that one started from."""


def model_of(requests: list[Request]) -> str:
    """Names the model that a job begins with, as far as its options do; "" for a series, whose requests are not made yet."""
    return model_named(requests[0].options) if requests else ""


def model_named(options: Options) -> str:
    """Equal for options that name the same model in the same words."""
    return f"{options.sd_model_checkpoint}\n{options.sd_vae}"


def work_of(request: Request) -> float:
    """Steps times megapixels."""
    return request.steps * request.width * request.height * request.batch_size * request.n_iter / 1e6


class Submission:
    """A job with its work, and its share of the engine's state.

    announce: called when another worker could help; None: there is no other.
    """

    def __init__(self, job: Job, work: Work, here: Surroundings, *, quota: Quota, shelf: Shelf,
                 announce: Callable[[], None] | None = None):
        if not isinstance(work, list | Series):
            raise TypeError(f"a job's work must be a list of requests or a Series, got {type(work).__name__}")
        self.job, self.work, self._here = job, work, here
        self._journal, self._quota, self._shelf = here.journal, quota, shelf
        self.asked = Asked(id(self), job.client.id, model_of(self._requests), sum(map(work_of, self._requests)), job.arrived)
        """The job as its scheduler sees it."""
        self.made = 0
        """Pictures so far."""
        self._tally = Tally(work) if isinstance(work, Series) else None
        self._counted = 0
        """Pictures still to be made that the quota has already counted."""
        self._announced = 0
        """Pictures that the running request has begun."""
        self._notes: list[str] = []
        """The journal's notes, for the next result's comments."""
        self._entry: str | None = None
        """The journal's id of the running request, or of the only waiting one."""
        self._run_id = ""
        """Of the running request, for what is kept of it: its entry's id, if it has one."""
        self._started: float | None = None
        self._sampled = Sampled()
        self._item = self._gone_over = 0
        self.where = ""
        """Where its own run computes, as in Started."""
        self.sharing = None if announce is None else Sharing(announce)
        self._running: tuple[int, Request, bytes] | None = None
        """The number of the running request, the request, and what its run started from."""
        self._chances: dict[int, str] = {}
        """What random seeds follow from, by the number of the request, so that all who compute for it draw the same."""
        self._kept_by_helpers = 0
        """Bytes in the running request's file."""
        self._farthest = 0.0
        """Batches of the running request that have been shown as done."""
        self._ended, self._telling, self._keeping = False, threading.Lock(), threading.Lock()

    @property
    def _requests(self) -> list[Request]:
        return self.work if isinstance(self.work, list) else []

    # --- before it runs

    def count(self) -> None:
        """Count the requested pictures, as far as known before the job runs. Raises TooMany."""
        self._count(sum(request.batch_size * request.n_iter for request in self._requests))

    def enter(self) -> None:
        """The job starts waiting: store its pictures and record it. Raises TooMany, and then nothing is recorded."""
        if len(self._requests) == 1:
            self._record(self._requests[0], self.job.id)
        try:
            for request in self._requests:
                self._shelf.put(request)
        except TooMany:
            self._unshelve()
            if self._entry is not None and self._requests[0].continues is None:
                with self._without_harm():
                    self._journal.forget(self._entry)
            self._close_entry("interrupted")
            raise

    def _count(self, pictures: int) -> None:
        if pictures > 0:
            self._quota.take(self.job.client, pictures)
            self._counted += pictures

    def _record(self, request: Request, entry: str) -> None:
        """Record a request in the journal, unless its pictures are not to be saved."""
        if self._journal is None or request.outpath_samples is None or request.do_not_save_samples:
            return
        if request.continues is not None:
            self._entry = self._journal.reopened(request)
            return
        with self._without_harm():
            self._entry = self._journal.queued(entry, request, client=self.job.client.id, mode=self.job.mode)

    # --- its turn

    def run(self, process: Process) -> None:
        """Do the work and publish the final event."""
        self.job.state = "running"
        self._publish_step()
        with nullcontext() if self.sharing is None else self.job.wishes.watched(self.sharing.wished):
            self._run(process)

    def _run(self, process: Process) -> None:
        try:
            if isinstance(self.work, Series):
                self._run_series(self.work, process)
                self.finish(Finished([], self._elapsed(), self._tally.outcome))
            else:
                self.finish(Finished(self._run_all(process), self._elapsed()))
        except Exception as error:  # reported to the job's owner; the engine keeps running
            self.finish(Failed(sendable(error)))

    def _run_all(self, process: Process) -> list[Processed]:
        results = []
        for number, request in enumerate(self._requests):
            if self.job.stopped and results:
                break
            results.append(self._run_one(request, number, process))
        return results

    def _run_series(self, series: Series, process: Process) -> None:
        for self._item, item in enumerate(series.items):
            if self.job.cancelled:
                raise Cancelled("The job was cancelled.")
            if self.job.stopped:
                return
            self._sampled = replace(self._sampled, step=0, batch=0)
            try:
                work = series.make(item, self._here)
                if isinstance(work, Request):
                    self._tally.done(item, self._run_one(work, self._item, process))
                else:
                    self._tally.found(work)
                    self._gone_over += 1
            except (Cancelled, TooMany):
                raise
            except Exception as error:  # reported at the job's end; the other items still run
                failure = Failed(sendable(error))
                self._close_entry("failed", failure.message)
                self._tally.failed(item, failure.message)
            # the item ends here, whatever happened
            self._sampled = replace(self._sampled, batch=self._sampled.batches - 1, step=self._sampled.steps)
            self._publish_step()

    def _run_one(self, request: Request, number: int, process: Process) -> Processed:
        with self._shelf.working(request):
            if self._entry is None:
                self._record(request, f"{self.job.id}-{number}")
            self._announced = 0
            self._run_id = self._entry or f"{self.job.id}-{number}"
            result = process(request, self._begin(request, number))
        with self._keeping:
            self._running = None
        ended = result.interrupted or (self.job.stopped and not result.images)
        self._close_entry("interrupted" if ended else "done")
        self.made += len(result.images) - result.index_of_first_image
        result.comments += self._take_notes()
        return result

    def _begin(self, request: Request, number: int) -> bytes:
        """A request's run begins: what it starts from."""
        kept = self._read_kept()
        if self.sharing is not None:
            kept, self._farthest, self._kept_by_helpers = self._with_chance(kept, number), 0.0, 0
            self._running = number, request, kept
            self.sharing.begin(number, divides=divides(request), items=0 if self._requests else len(self.work.items))
        return kept

    def _with_chance(self, kept: bytes, number: int) -> bytes:
        facts = facts_of(kept)
        if "chance" in facts:
            return kept
        chance = self._chances.setdefault(number, secrets.token_hex(16))
        return kept + piece({"facts": facts | {"chance": chance}, "answers": []}, b"")

    # --- its helpers

    def help(self, helper: Helper, assist: Assist) -> None:
        """Compute ahead of the running request until there is nothing more to do."""
        complete, lost, of_use = False, False, True
        try:
            request, kept, room = self._to_help(helper.number)
            with room:
                assist(request, kept, helper.wishes)
            complete, of_use = True, helper.units > 0
        except Cancelled:
            logger.debug("a worker helps no more")
        except WorkerLost:
            lost = True
            self._notes.append("A worker that helped ended unexpectedly, so another one continued its work.")
        except Exception as error:  # the job's own run does it itself, and meets the error if it is one
            logger.info("nothing could be computed ahead: %s", error)
            of_use = False
        finally:
            self.sharing.leave(helper, complete=complete, lost=lost, of_use=of_use)

    def _to_help(self, number: int) -> tuple[Request, bytes, Any]:
        """(the request of that number for a helper, what it starts from, what makes room for its pictures). Raises Cancelled."""
        running, work = self._running, self.work
        if running is not None and running[0] == number:
            _, request, kept = running
            room = nullcontext()
        elif isinstance(work, Series):
            request, kept = work.make(work.items[number], self._here), self._with_chance(b"", number)
            if not isinstance(request, Request):
                raise LookupError("its pictures exist")
            if not divides(request):
                raise LookupError("its runs follow from each other")
            room = self._shelf.working(request)
        else:
            raise Cancelled("The job has ended.")
        return request.variant(helps=True, outpath_samples=None, outpath_grids=None), kept, room

    def take_help(self, helper: Helper, news: News) -> bool | None:
        """Handle a helper's news. Raises Cancelled once it is not needed any more."""
        match news:
            case Turn(batch, batches):
                return None if self.sharing.turn(helper, batch, batches) else False
            case Keep(data):
                self.sharing.take(helper, kept=data)
                with self._keeping, self._without_harm():
                    running = self._running
                    if running is not None and running[0] == helper.number and self._kept_by_helpers + len(data) <= LIMIT:
                        self._kept_by_helpers += len(data)
                        self._kept.append(self._run_id, data)
            case Sampled():
                self.sharing.take(helper, fraction=news.step / max(news.steps, 1) if news.step else None)
                if news.preview is not None and helper.unit is not None:
                    self._sampled = replace(self._sampled, preview=news.preview)
                self._publish_step()
        return None

    def take(self, news: News) -> bytes | None:
        """Handle the worker's news about the running request. Raises TooMany if it makes too many pictures."""
        match news:
            case Turn(batch, batches) if self.sharing is not None:
                return self.sharing.reach(batch, batches, self.job.wishes)
            case Started(model, where):
                self.where = where
                self._started = self._started or time.monotonic()
                if self._entry is not None:
                    with self._without_harm():
                        self._journal.running(self._entry, model.name)
            case Begun(pictures):
                self._count(pictures - self._counted)
                self._counted -= pictures
                self._announced += pictures
            case Saving(path, infotext) if self._entry is not None:
                with self._without_harm():
                    self._journal.saving(self._entry, path, infotext)
            case Keep(data):
                with self._without_harm():
                    self._kept.append(self._run_id, data)
            case Sampled():
                self._sampled = replace(news, preview=news.preview or self._sampled.preview)
                if self.sharing is not None:
                    self.sharing.sampled(news.step / max(news.steps, 1))
                self._publish_step()
        return None

    def run_again(self, note: str) -> bytes:
        """The running request starts over, since its worker was lost. Returns what was kept of it. note: for its comments."""
        self._counted, self._announced = self._counted + self._announced, 0
        if note not in self._notes:
            self._notes.append(note)
        kept = self._read_kept()
        return kept if self.sharing is None else self._with_chance(kept, self._running[0])

    @property
    def seconds(self) -> float:
        """How long it has taken, without the loading of its first model."""
        return self._elapsed()

    def finish(self, event: Finished | Failed) -> None:
        if isinstance(event, Failed):
            self._close_entry("interrupted" if isinstance(event.error, Cancelled) else "failed", event.message)
        self._unshelve()
        self.work, self._running = [], None
        if self.sharing is not None:
            self.sharing.close()
        with self._telling:
            self._ended = True
            self.job.publish(event)

    def _unshelve(self) -> None:
        for request in self._requests:
            self._shelf.drop(request)

    def _close_entry(self, state: str, message: str = "") -> None:
        """The running request has ended, so what was kept of it goes, unless it may be continued."""
        with self._without_harm():
            if self._entry is None or state != "interrupted":
                self._kept.drop(self._run_id)
            else:
                self._kept.prune()
        if self._entry is not None:
            with self._without_harm():
                self._journal.ended(self._entry, state, message)
            self._entry = None

    @property
    def _kept(self) -> KeptFiles:
        return self._here.kept if self._entry is None else self._journal.kept

    def _read_kept(self) -> bytes:
        """What was kept of the running request; nothing if it starts from the beginning."""
        with self._without_harm():
            return self._kept.read(self._run_id)
        return b""

    @contextmanager
    def _without_harm(self) -> Iterator[None]:
        """A full disk must not fail the job: it goes on without its entry."""
        try:
            yield
        except OSError as error:
            logger.error("history could not be written: %s", error)
            self._notes.append("History could not be written; see the log.")  # the error names paths

    def _take_notes(self) -> list[str]:
        """The journal's notes, each sentence once."""
        told = [] if self._journal is None else self._journal.take_notes()
        notes, self._notes = [*self._notes, *told], []
        return list(dict.fromkeys(notes))

    # --- progress

    def _publish_step(self) -> None:
        with self._telling:  # a helper may tell something after the end
            if not self._ended:
                self.job.publish(self._step())

    def _elapsed(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _step(self) -> Step:
        elapsed, outcome, before = self._elapsed(), None, 0.0
        if self._tally is not None:
            outcome = self._tally.outcome
            before = self._gone_over / max(outcome.items, 1)
        now = self._sampled if self.sharing is None else self._with_help(self._sampled)
        step = Step(now.step, now.steps, now.batch + 1, now.batches, elapsed, 0.0, now.preview, self._item + 1, outcome)
        done = step.fraction - before
        return replace(step, eta=elapsed * (1 - step.fraction) / done) if done > 0 else step

    def _with_help(self, own: Sampled) -> Sampled:
        """The progress of all who compute for the running request; it never goes back."""
        done = own.batch + own.step / max(own.steps, 1) + self.sharing.ahead
        self._farthest = min(max(self._farthest, done), own.batches)
        if self._farthest == own.batch + own.step / max(own.steps, 1):
            return own
        batch = min(int(self._farthest), own.batches - 1)
        return replace(own, batch=batch, step=int((self._farthest - batch) * own.steps))

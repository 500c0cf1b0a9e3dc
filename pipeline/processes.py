"""A worker at the other end of a line: what a Worker there does, as messages. One whose line ends is replaced.

Here the line is a pipe to another process of this machine.
"""

import itertools
import logging
import multiprocessing
import multiprocessing.util
import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from pipeline.errors import WorkerGone, WorkerLost
from pipeline.families.base import ModelInfo
from pipeline.families.sam import Prompt
from pipeline.job import sendable
from pipeline.memory import MemoryPlan
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.request import Request
from pipeline.styles import StyleDatabase
from pipeline.worker import Begun, EmbeddingInfo, Placing, Sampled, Saving, Tell, Turn, Wished, Wishes, Worker

logger = logging.getLogger(__name__)

ANSWERED = Begun | Saving | Placing | Turn
"""News that the worker waits for to be taken: they may end the run, must be recorded first, or have an answer."""
BEAT = 1.0
"""Seconds between two looks at whether a process still answers."""
SILENCE = 30.0
"""Seconds without an answer after which a process is replaced. It answers while it computes, but not during a long call that
holds Python's lock."""
Message = tuple[int, str, Any]
"""(number of the call, what it is, its data). Calls have the name of a method; the rest is part of one."""


class Line(Protocol):
    """Carries messages, in order, to one worker that it has started, and back."""

    def send(self, message: Message) -> None:
        """Raises OSError once the line has ended."""

    def recv(self) -> Message:
        """The next message; waits for it. Raises EOFError or OSError once the line has ended."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""

    def kill(self) -> None:
        """End the worker, and the line with it."""

    def ended(self) -> str:
        """Once the line has ended: how the worker did."""


class RemoteWorker(Worker):
    """The worker at the end of the line that start() opens, named `name` in messages. start() may raise WorkerLost.

    While its line is broken, calls raise WorkerLost, and the next one starts another, or raises WorkerGone.
    """

    def __init__(self, name: str, start: Callable[[], Line]):
        self.name, self._open = name, start
        self._lock, self._numbers = threading.RLock(), itertools.count()
        self._answers: dict[int, queue.SimpleQueue] = {}
        self._closed = self._ready = False
        self._start()

    # --- Worker

    def run(self, request: Request, styles: StyleDatabase, tell: Tell, wishes: Wishes, kept: bytes = b"") -> Processed:
        number, answers = self._begin("run", request, styles, kept)
        with wishes.watched(lambda now: self._send(number, "wishes", now)):
            return self._wait(number, answers, tell)

    def load(self, options: Options, tell: Tell) -> ModelInfo:
        return self._wait(*self._begin("load", options), tell)

    def plan(self, options: Options) -> MemoryPlan:
        return self._ask("plan", options)

    def release(self) -> None:
        self._ask("release")

    def rest(self) -> None:
        self._ask("rest")

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        return self._ask("count_tokens", prompts, options, calls)

    def memory(self) -> dict[str, Any]:
        return self._ask("memory")

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        return self._ask("embeddings")

    def segmenters(self) -> list[str]:
        return self._ask("segmenters")

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        return self._ask("segment", name, picture, key, prompt)

    def upscale(self, name: str, picture: np.ndarray) -> np.ndarray:
        return self._ask("upscale", name, picture)

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._closed = True
            self._line.kill()

    # --- the line

    def _start(self) -> None:
        self._line = self._open()
        self._answers, self._ready = {}, False
        threading.Thread(target=self._read, args=[self._line, self._answers], name=f"reads {self.name}", daemon=True).start()

    def _start_again(self) -> None:
        try:
            self._start()
        except WorkerLost as error:
            logger.error("%s", error)
            raise WorkerGone(str(error)) from error

    def _read(self, line: Line, answers: dict[int, queue.SimpleQueue]) -> None:
        """Pass on what one worker says, until its line ends."""
        try:
            while True:
                number, kind, value = line.recv()
                self._ready = True
                if (waiting := answers.get(number)) is not None:
                    waiting.put((kind, value))
        except (EOFError, OSError):
            pass
        with self._lock:
            if self._answers is answers and not self._closed:
                logger.error("the worker on %s ended unexpectedly (%s)", self.name, line.ended())
                # one that could not even start is tried again only when it is needed
                if self._ready and not multiprocessing.util.is_exiting():
                    with suppress(WorkerGone):
                        self._start_again()
        for waiting in list(answers.values()):
            waiting.put(("failed", WorkerLost(f"The worker on {self.name} ended unexpectedly; see the log.")))

    def _begin(self, name: str, *data: Any) -> tuple[int, queue.SimpleQueue]:
        with self._lock:
            if not self._line.alive and not self._closed:
                self._start_again()
            number, answers = next(self._numbers), queue.SimpleQueue()
            self._answers[number] = answers
            self._send(number, name, data)
        return number, answers

    def _ask(self, name: str, *data: Any) -> Any:
        return self._wait(*self._begin(name, *data))

    def _wait(self, number: int, answers: queue.SimpleQueue, tell: Tell = lambda news: None) -> Any:
        """The call's answer; its news are told until then, of several steps the newest."""
        try:
            while True:
                kind, value = answers.get()
                while kind == "news" and isinstance(value, Sampled) and not answers.empty():
                    kind, value = later(value, *answers.get())
                if kind == "failed":
                    raise value
                if kind == "answer":
                    return value
                self._tell(number, value, tell)
        finally:
            with self._lock:
                self._answers.pop(number, None)

    def _tell(self, number: int, news: Any, tell: Tell) -> None:
        reply = refusal = None
        try:
            reply = tell(news)
        except Exception as error:  # ends the run over there, which then fails with it
            refusal = sendable(error)
        if isinstance(news, ANSWERED) or refusal is not None:
            self._send(number, "taken", (reply, refusal))

    def _send(self, number: int, kind: str, value: Any) -> None:
        """A worker that has just ended cannot be told anything; whoever waits for it learns that by _read()."""
        with self._lock:
            try:
                self._line.send((number, kind, value))
            except OSError:
                logger.debug("the worker %s is away", self.name)


def later(sampled: Sampled, kind: str, value: Any) -> tuple[str, Any]:
    """What comes after a step; if it is another step, with the newest preview of both."""
    if kind == "news" and isinstance(value, Sampled) and value.preview is None:
        return kind, Sampled(value.step, value.steps, value.batch, value.batches, sampled.preview)
    return kind, value


# --- another process

class ProcessWorker(RemoteWorker):
    """The worker that make(*args) creates in another process of this machine. Everything about it must be picklable."""

    def __init__(self, name: str, make: Callable[..., Worker], *args: Any):
        super().__init__(name, partial(Pipe, name, make, args))

    @property
    def process_id(self) -> int:
        return self._line.process.pid


class Pipe(Line):
    """A line to a new process, which is killed if it does not answer for `silence` seconds, such as one that was stopped."""

    def __init__(self, name: str, make: Callable[..., Worker], args: tuple):
        self.silence = SILENCE
        self._why = ""
        """Why it was killed."""
        self._sending, self._over = threading.Lock(), threading.Event()
        self._heard = 0
        """Messages so far; the first says that the process has started."""
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, args), name=f"worker {name}", daemon=True)
        self.process.start()
        theirs.close()
        threading.Thread(target=self._watch, name=f"watches {name}", daemon=True).start()

    def send(self, message: Message) -> None:
        with self._sending:
            self._end.send(message)

    def recv(self) -> Message:
        try:
            message = self._end.recv()
        except (EOFError, OSError):
            self._over.set()
            raise
        self._heard += 1
        return message

    def _watch(self) -> None:
        """Ask it from time to time whether it is there. Looks are counted, not seconds: this program may have been stopped too."""
        heard = looks = 0
        while not self._over.wait(BEAT):
            if not self._heard:
                continue
            if self._heard > heard:
                heard, looks = self._heard, 0
                if self._sending.acquire(blocking=False):  # otherwise something is being sent, which it has to take in time too
                    try:
                        self._end.send((-1, "beat", None))
                    except OSError:
                        return
                    finally:
                        self._sending.release()
            elif (looks := looks + 1) * BEAT >= self.silence:
                self._why = f"it had not answered for {self.silence:g} seconds"
                self.process.kill()
                return

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self._over.set()
        self.process.kill()
        self.process.join()

    def ended(self) -> str:
        self.process.join(1)
        return self._why or f"exit code {self.process.exitcode}"


# --- at the other end

def serve(line: Connection, make: Callable[..., Worker], args: tuple) -> None:
    """Answer each call in a thread of its own, until the line ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process too, but its engine decides
    try:
        service = Service(line, make(*args))
        line.send((-1, "ready", None))
        service.run()
    except (EOFError, OSError):
        os._exit(0)  # the engine is gone; what still runs is of no use


class Service:
    """A worker at the end of a line."""

    def __init__(self, line: Connection | Line, worker: Worker):
        self._line, self._worker, self._lock = line, worker, threading.Lock()
        self._wishes: dict[int, Wishes] = {}
        self._taken: dict[int, queue.SimpleQueue] = {}

    def run(self) -> None:
        while True:
            number, kind, value = self._line.recv()
            if kind == "beat":
                self._send(number, kind, None)
            elif kind == "wishes":
                self._wish(number, value)
            elif kind == "taken":
                if number in self._taken:
                    self._taken[number].put(value)
            else:
                self._wishes[number], self._taken[number] = Wishes(), queue.SimpleQueue()
                threading.Thread(target=self._answer, args=(number, kind, value), daemon=True).start()

    def _wish(self, number: int, now: Wished) -> None:
        if number in self._wishes:
            self._wishes[number].become(now)

    def _answer(self, number: int, name: str, data: tuple) -> None:
        def tell(news: Any) -> Any:
            self._send(number, "news", news)
            if not isinstance(news, ANSWERED) and self._taken[number].empty():
                return None
            reply, refusal = self._taken[number].get()
            if refusal is not None:
                raise refusal
            return reply

        try:
            self._send(number, "answer", self._call(number, name, data, tell))
        except Exception as error:  # sent to whoever asked
            self._send(number, "failed", sendable(error))
        del self._wishes[number], self._taken[number]

    def _call(self, number: int, name: str, data: tuple, tell: Tell) -> Any:
        if name == "run":
            request, styles, kept = data
            return self._worker.run(request, styles, tell, self._wishes[number], kept)
        return self._worker.load(*data, tell) if name == "load" else getattr(self._worker, name)(*data)

    def _send(self, *message: Any) -> None:
        with self._lock:
            self._line.send(message)

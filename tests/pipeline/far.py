"""An engine and a worker reached only through pickles, like those on other machines would be."""

import itertools
import multiprocessing
import pickle
import queue
import threading
from collections.abc import Callable
from typing import Any

from pipeline.engine import Engine
from pipeline.job import Job, sendable
from pipeline.limits import Client
from pipeline.worker import Wishes


def crossed(thing: Any) -> Any:
    """A copy as it would arrive on the other side."""
    return pickle.loads(pickle.dumps(thing))


class PickledJob:
    """A job whose events are pickled."""

    def __init__(self, job: Job):
        self.job = job

    def __getattr__(self, name):
        return getattr(self.job, name)

    def events(self, *args, **kwargs):
        inner = self.job.events(*args, **kwargs)
        try:
            for event in inner:
                yield crossed(event)
        finally:
            inner.close()

    def newest(self):
        return crossed(self.job.newest())

    def result(self):
        try:
            return crossed(self.job.result())
        except Exception as error:
            failure = crossed(error)
        raise failure


class PickledEngine:
    """An engine whose inputs and events are pickled. It forwards only the methods defined here."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    @property
    def options(self):
        return crossed(self._engine.options)

    @options.setter
    def options(self, options):
        self._engine.options = crossed(options)

    def submit(self, work, job_id=None, client=Client(), mode=""):
        return PickledJob(self._engine.submit(crossed(work), job_id, crossed(client), mode))

    def preload(self, options=None):
        return PickledJob(self._engine.preload(crossed(options)))

    def jobs(self):
        return list(map(PickledJob, self._engine.jobs()))

    def find(self, job_id=None):
        job = self._engine.find(job_id)
        return job and PickledJob(job)

    def cancel(self, job):
        self._engine.cancel(job.job)

    def count_tokens(self, prompts, options, calls):
        return crossed(self._engine.count_tokens(*crossed((prompts, options, calls))))

    def memory(self):
        return crossed(self._engine.memory())

    def embeddings(self):
        return crossed(self._engine.embeddings())

    def segmenters(self):
        return crossed(self._engine.segmenters())

    def segment(self, *asked):
        return crossed(self._engine.segment(*crossed(asked)))


# --- another process

class FarWorker:
    """A worker in its own process. make: creates it there."""

    def __init__(self, make: Callable[..., Any], *args: Any):
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        theirs.close()
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self._answers: dict[int, queue.SimpleQueue] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, request, styles, tell, wishes, kept=b""):
        number, answers = self._begin("run", request, styles, kept)
        with wishes.watched(lambda now: self._send(number, "wishes", now)):
            return self._until_answered(number, answers, tell)

    def load(self, options, tell):
        return self._until_answered(*self._begin("load", options), tell)

    def release(self):
        return self._until_answered(*self._begin("release"))

    def rest(self):
        return self._until_answered(*self._begin("rest"))

    def count_tokens(self, prompts, options, calls):
        return self._until_answered(*self._begin("count_tokens", prompts, options, calls))

    def memory(self):
        return self._until_answered(*self._begin("memory"))

    def embeddings(self):
        return self._until_answered(*self._begin("embeddings"))

    def segmenters(self):
        return self._until_answered(*self._begin("segmenters"))

    def segment(self, *asked):
        return self._until_answered(*self._begin("segment", *asked))

    def close(self):
        self._process.kill()
        self._process.join()

    def _begin(self, name, *data):
        number, answers = next(self._numbers), queue.SimpleQueue()
        self._answers[number] = answers
        self._send(number, name, data)
        return number, answers

    def _until_answered(self, number, answers, tell=None):
        while True:
            kind, value = answers.get()
            if kind == "news":
                try:
                    tell(value)
                    self._send(number, "taken", None)
                except Exception as error:
                    self._send(number, "taken", sendable(error))
                continue
            del self._answers[number]
            if kind == "failed":
                raise value
            return value

    def _send(self, *message):
        with self._lock:
            self._line.send(message)

    def _read(self):
        try:
            while True:
                number, kind, value = self._line.recv()
                self._answers[number].put((kind, value))
        except (EOFError, OSError):
            for answers in list(self._answers.values()):
                answers.put(("failed", EOFError("the worker's process has ended")))


def serve(line, make, args):
    """The other process: answers each question in a thread."""
    worker, lock = make(*args), threading.Lock()
    wishes: dict[int, Wishes] = {}
    taken: dict[int, queue.SimpleQueue] = {}

    def send(*message):
        with lock:
            line.send(message)

    def answer(number, name, data):
        def tell(news):
            send(number, "news", news)
            refused = taken[number].get()
            if refused is not None:
                raise refused

        if name == "run":
            *data, kept = data
        more = {"run": {"tell": tell, "wishes": wishes[number], "kept": kept if name == "run" else b""}, "load": {"tell": tell}}.get(name, {})
        try:
            send(number, "answer", getattr(worker, name)(*data, **more))
        except Exception as error:
            send(number, "failed", error)

    while True:
        number, kind, value = line.recv()
        if kind == "wishes":
            wishes[number].become(value)
        elif kind == "taken":
            taken[number].put(value)
        else:
            wishes[number], taken[number] = Wishes(), queue.SimpleQueue()
            threading.Thread(target=answer, args=(number, kind, value), daemon=True).start()

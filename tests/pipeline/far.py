"""An engine reached only through pickles, as one on another machine would be."""

import pickle
from typing import Any

from pipeline.engine import Engine
from pipeline.job import Job
from pipeline.limits import Client


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

    def workers(self):
        return crossed(self._engine.workers())

    def segmenters(self):
        return crossed(self._engine.segmenters())

    def segment(self, *asked):
        return crossed(self._engine.segment(*crossed(asked)))

    def upscale(self, *asked):
        return crossed(self._engine.upscale(*crossed(asked)))

"""Waiting for a job without holding a thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from pipeline.job import Event, Failed, Finished, Job
from pipeline.processed import Processed


async def events(job: Job, heartbeat: float | None = None) -> AsyncIterator[Event | None]:
    """Yields the newest event whenever there is a new one; the last is Finished or Failed.

    heartbeat: yields None after that many seconds without one.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the server stopped before the job
            loop.call_soon_threadsafe(changed.set)

    job.listen(wake)
    seen = 0
    while True:
        changed.clear()
        version, event = job.newest()
        if version > seen and event is not None:
            seen = version
            yield event
            if isinstance(event, Finished | Failed):
                return
            continue
        try:
            await asyncio.wait_for(changed.wait(), heartbeat)
        except TimeoutError:
            yield None


async def wait_for(job: Job) -> list[Processed]:
    """The job's results. Raises its error."""
    async for event in events(job):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            return event.results
    raise AssertionError("a job's last event is its end")

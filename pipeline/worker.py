"""The line between the program and what computes: requests and wishes go over it, news and results come back, all plain data.

What stands on the far side may be a thread, another process or another machine: nothing that crosses holds a model, a tensor
of a device, a lock or a function, and all of it can be pickled.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.families.base import ModelInfo
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.request import Request
from pipeline.styles import StyleDatabase

# --- news: what a worker tells while it works


@dataclass(frozen=True)
class Loading:
    """A model is asked for."""

    share: float | None = None
    """How much of it is read, 0 to 1; None: not known, it may be in memory already."""


@dataclass(frozen=True)
class Loaded:
    """It is there, or could not be loaded."""


@dataclass(frozen=True)
class Started:
    """The request has its model."""

    model: ModelInfo


@dataclass(frozen=True)
class Begun:
    """So many more pictures are made, which a retry is not counted for. Where they are too many, TooMany is raised in `tell`."""

    pictures: int


@dataclass(frozen=True)
class Sampled:
    """How far the request is."""

    step: int = 0
    steps: int = 1
    batch: int = 0
    """Of `batches`, those that are done."""
    batches: int = 1
    preview: bytes | None = None
    """The newest picture so far, as previews.pack() has it."""


@dataclass(frozen=True)
class Saving:
    """A picture is about to be moved to that path, once this is taken note of."""

    path: str
    infotext: str


News = Loading | Loaded | Started | Begun | Sampled | Saving
Tell = Callable[[News], None]
"""Takes news, in order. What it raises ends the run."""


# --- wishes: what is asked of a run while it works

@dataclass(frozen=True)
class Wished:
    """What was wished of a run so far."""

    interrupted: bool = False
    """End now and keep the picture so far."""
    stopped: bool = False
    """Begin no other batch."""
    cancelled: bool = False
    """End now and keep nothing."""
    skips: int = 0
    """How often the batch that ran was to end."""


class Wishes:
    """The wishes of a job, from any thread; who runs it looks at `now` between two model calls.

    They do not cross: where the run is elsewhere, what is wished is sent there as it changes.
    """

    def __init__(self) -> None:
        self.now = Wished()
        self._lock = threading.RLock()
        self._watchers: list[Callable[[Wished], None]] = []

    def wish(self, **changes: bool) -> None:
        with self._lock:
            self.become(replace(self.now, **changes))

    def skip(self) -> None:
        with self._lock:
            self.become(replace(self.now, skips=self.now.skips + 1))

    def become(self, now: Wished) -> None:
        """What is wished from now on."""
        with self._lock:
            self.now = now
            for watcher in self._watchers:
                watcher(now)

    @contextmanager
    def watched(self, watcher: Callable[[Wished], None]) -> Iterator[None]:
        """While inside, the watcher is told what is wished, now and whenever that changes."""
        with self._lock:
            self._watchers.append(watcher)
            watcher(self.now)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)


# --- the worker

@dataclass(frozen=True)
class EmbeddingInfo:
    """What is known of an embedding that prompts can name."""

    name: str
    vectors: int
    width: int
    """Numbers of a vector."""
    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None


class Worker(Protocol):
    """What runs requests on one device, one at a time. Its questions are answered while it runs one."""

    def run(self, request: Request, styles: StyleDatabase, tell: Tell, wishes: Wishes) -> Processed:
        """Run a request to its end, once more with less memory where that has run out.

        styles: those that requests may name. Raises what `sendable` errors there are: PalimpsestError, Cancelled, MemoryError
        or Unforeseen.
        """

    def load(self, options: Options, tell: Tell) -> ModelInfo:
        """Have the model that options name in memory. Raises as run() does."""

    def release(self) -> None:
        """Let go of all models."""

    def rest(self) -> None:
        """Give back memory that was kept for the next request: none has come for a while."""

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        """How many tokens the longest text of each prompt takes at any of so many model calls; None: its model is not loaded.

        Raises UnknownName, ModelError.
        """

    def memory(self) -> dict[str, Any]:
        """Bytes of main memory and of the graphics card, as memory_report() has them."""

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        """The embeddings that the model can use, and by name a sentence on each that it cannot."""

"""The interface between the engine and a worker: requests and wishes go out, news and results come back, all plain data.

The worker may be a thread, another process or another machine: nothing that crosses holds a model, a device tensor, a lock
or a function, and everything can be pickled.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pipeline.families.base import ModelInfo
from pipeline.families.sam import Prompt
from pipeline.memory import MemoryPlan
from pipeline.options import Options
from pipeline.processed import Processed
from pipeline.request import Request
from pipeline.styles import StyleDatabase

# --- news: what a worker reports while it works


@dataclass(frozen=True)
class Loading:
    """A model is being loaded."""

    share: float | None = None
    """Fraction that is loaded, 0 to 1; None: unknown, it may be in memory already."""


@dataclass(frozen=True)
class Loaded:
    """Loading has ended, successfully or not."""


@dataclass(frozen=True)
class Started:
    """The request has its model and runs."""

    model: ModelInfo
    where: str = ""
    """The device, precision and packages: only where these are equal are the same pixels sure to come out."""


@dataclass(frozen=True)
class Begun:
    """That many more pictures are being made; a retry does not count again. `tell` raises TooMany if they are too many."""

    pictures: int


@dataclass(frozen=True)
class Sampled:
    """Progress of the request."""

    step: int = 0
    steps: int = 1
    batch: int = 0
    """Batches done, of `batches`."""
    batches: int = 1
    preview: bytes | None = None
    """The newest preview, as previews.pack() gives it."""


@dataclass(frozen=True)
class Saving:
    """A picture is about to be moved to `path`, once this has been recorded."""

    path: str
    infotext: str


@dataclass(frozen=True)
class Placing:
    """A picture of a worker on another machine is to be saved on this one. `tell` returns its path, or Unplaced."""

    png: bytes
    folder: str
    name: str
    numbered: bool
    """By a number before its name, in a folder for the day; otherwise by its name, with a number behind it if that is taken."""
    place: str | None
    """The file to be replaced, of an earlier try."""
    infotext: str


@dataclass(frozen=True)
class Unplaced:
    """Why a picture could not be saved, as an OSError says it."""

    reason: str


@dataclass(frozen=True)
class Keep:
    """What the run has computed since the last time; all of it together lets another run continue this one."""

    data: bytes


@dataclass(frozen=True)
class Turn:
    """The run is about to start a batch. `tell` returns what another worker has kept of it, None if there is nothing, or False
    if the run is to pass over this batch."""

    batch: int
    """Counted from 0 in the order of the whole run."""
    batches: int
    """How many there will be."""


News = Loading | Loaded | Started | Begun | Sampled | Saving | Placing | Keep | Turn
Tell = Callable[[News], Any]
"""Takes news, in order; Placing and Turn are answered. An exception it raises ends the run."""


# --- wishes: what a submitter asks of a running request

@dataclass(frozen=True)
class Wished:
    """Everything wished of a run so far."""

    interrupted: bool = False
    """End now and keep the picture so far."""
    stopped: bool = False
    """Start no further batch."""
    cancelled: bool = False
    """End now and keep nothing."""
    skips: int = 0
    """How many times a batch was to be skipped."""


class Wishes:
    """The wishes for a job, set from any thread; the worker reads `now` between model calls.

    This object is not sent: for a remote run, changes are forwarded by watched().
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
        """Replace all wishes."""
        with self._lock:
            self.now = now
            for watcher in self._watchers:
                watcher(now)

    @contextmanager
    def watched(self, watcher: Callable[[Wished], None]) -> Iterator[None]:
        """Calls `watcher` with the current wishes, and again on every change."""
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
    """Facts about an embedding that prompts can name."""

    name: str
    vectors: int
    width: int
    """Numbers per vector."""
    step: int | None = None
    sd_checkpoint: str | None = None
    sd_checkpoint_name: str | None = None


@dataclass(frozen=True)
class WorkerState:
    """What a worker does."""

    name: str
    """Of its device, such as "cuda:1"; "" for an engine's only one."""
    model: str
    """Name of the model that it used last and holds in memory; "": none."""
    job: str | None
    """Id of the job that it runs."""
    loading: bool
    """It is loading a model."""
    pictures_per_minute: float
    """Over its last jobs, while it worked; 0: unknown."""
    in_service: bool
    """It takes jobs."""


class Worker(Protocol):
    """Runs requests on one device, one at a time. Its other methods work during a run too."""

    def run(self, request: Request, styles: StyleDatabase, tell: Tell, wishes: Wishes, kept: bytes = b"") -> Processed:
        """Run a request to its end; if memory runs out, once more with less memory.

        styles: those that requests may name. kept: the data of all Keep of an interrupted run, to continue it. Raises only
        sendable errors: PalimpsestError, Cancelled, MemoryError, Unforeseen.
        """

    def load(self, options: Options, tell: Tell) -> ModelInfo:
        """Load the model that options name. Raises as run() does."""

    def plan(self, options: Options) -> MemoryPlan:
        """Where the weights of the model that options name are, or will be once it is loaded.

        Raises UnknownName, and ModelError for a model that cannot be loaded here.
        """

    def release(self) -> None:
        """Drop all models."""

    def rest(self) -> None:
        """Called after an idle while: give back memory kept for the next request."""

    def count_tokens(self, prompts: list[str], options: Options, calls: int) -> list[int] | None:
        """Tokens of the longest text of each prompt over `calls` model calls; None: the model is not loaded.

        Raises UnknownName, ModelError.
        """

    def memory(self) -> dict[str, Any]:
        """Bytes of main memory and GPU memory, as memory_report() gives them."""

    def embeddings(self) -> tuple[list[EmbeddingInfo], dict[str, str]]:
        """The embeddings that the model can use, and by name a sentence on each that it cannot."""

    def segmenters(self) -> list[str]:
        """The names of the models that find objects in pictures."""

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        """The mask of an object, (h, w) uint8, 255 inside, by the model of that name. picture: (h, w, 3) uint8.

        key: identifies the picture, whose embedding is kept. Works while a request runs, but then not on the card.
        Raises UnknownName, ModelError.
        """

    def upscale(self, name: str, picture: np.ndarray) -> np.ndarray:
        """A picture or a tile of one, (h, w, 3) uint8, enlarged by the network of that name, by the network's own factor.

        Works while a request runs, but then not on the card. Raises InvalidRequest, ModelError.
        """

"""Many requests as one job: each is made when its turn comes, and a failed one does not stop the others."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.journal import Journal
from pipeline.kept import KeptFiles
from pipeline.processed import Processed
from pipeline.request import Request

SHOWN = 32
"""Newest pictures to remember, as many as A1111 shows of a batch."""
COMMENTS = 32
"""Different comments to remember."""

Shown = tuple[str, str]
"""(file, infotext)"""


@dataclass(frozen=True)
class Outcome:
    """Results of a series so far."""

    items: int
    """Their total number."""
    made: int = 0
    """Items whose pictures were made."""
    cut: int = 0
    """Items that were interrupted or skipped."""
    already: int = 0
    """Items whose pictures existed before."""
    failures: tuple[tuple[str, str], ...] = ()
    """(name, reason) of each failed item."""
    pictures: tuple[Shown, ...] = ()
    """The newest SHOWN."""
    comments: tuple[str, ...] = ()
    """What was done differently from the request; each sentence once."""


@dataclass(frozen=True)
class Surroundings:
    """What a series may use of the engine that runs it."""

    journal: Journal | None = None
    has_model: Callable[[str], bool] = lambda name: False
    """Whether a checkpoint of that name or hash exists."""
    kept: KeptFiles = field(default_factory=KeptFiles)
    """What runs outside the journal keep."""


class Series(ABC):
    """Items, and how to make a request from each. Plain data that can be pickled."""

    items: Sequence[Any]

    @abstractmethod
    def make(self, item: Any, here: Surroundings = Surroundings()) -> Request | Sequence[Shown]:
        """An item's request, or the pictures that an earlier job made of it. If it raises, that item fails."""

    def name(self, item: Any) -> str:
        """The item's name in messages."""
        return str(item)


class Tally:
    """Collects the outcome of a series."""

    def __init__(self, series: Series):
        self._name = series.name
        self.outcome = Outcome(len(series.items))

    def found(self, pictures: Sequence[Shown]) -> None:
        """An item had been done before."""
        self._add(pictures, already=self.outcome.already + 1)

    def done(self, item: Any, processed: Processed) -> None:
        """An item has run. Pictures that could not be saved do not count."""
        pictures = [(path, text) for path, text in zip(processed.paths, processed.infotexts) if path is not None]
        if not pictures and processed.images:
            self.failed(item, " ".join(processed.comments))
            return
        comments = [*self.outcome.comments, *processed.comments]
        count = {"cut": self.outcome.cut + 1} if processed.interrupted else {"made": self.outcome.made + bool(pictures)}
        self._add(pictures, comments=tuple(dict.fromkeys(comments))[:COMMENTS], **count)

    def failed(self, item: Any, why: str) -> None:
        name = self._name(item)
        self.outcome = replace(self.outcome, failures=(*self.outcome.failures, (name, why.removeprefix(f"{name}: "))))

    def _add(self, pictures: Sequence[Shown], **changes: Any) -> None:
        self.outcome = replace(self.outcome, pictures=(*self.outcome.pictures, *pictures)[-SHOWN:], **changes)

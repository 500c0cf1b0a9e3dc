"""Many requests as one job: each made when its turn comes, and one that fails ends no other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.journal import Journal
from pipeline.processed import Processed
from pipeline.request import Request

SHOWN = 32
"""Pictures that are remembered, the newest. A1111 shows as many of a batch."""
COMMENTS = 32
"""Different comments that are remembered."""

Shown = tuple[str, str]
"""(file, infotext)"""


@dataclass(frozen=True)
class Outcome:
    """What came of a series so far."""

    items: int
    """All of them."""
    made: int = 0
    """Those whose pictures are there now."""
    cut: int = 0
    """Those that were interrupted or skipped."""
    already: int = 0
    """Those whose pictures were there before."""
    failures: tuple[tuple[str, str], ...] = ()
    """(an item's name, why there is no picture of it)"""
    pictures: tuple[Shown, ...] = ()
    """The newest SHOWN."""
    comments: tuple[str, ...] = ()
    """What was done otherwise than asked, each sentence once."""


@dataclass(frozen=True)
class Surroundings:
    """What a series may ask where it runs."""

    journal: Journal | None = None
    has_model: Callable[[str], bool] = lambda name: False
    """Whether there is a checkpoint of that name or hash."""


class Series(ABC):
    """Items, and how each becomes a request: plain data, which can be pickled."""

    items: Sequence[Any]

    @abstractmethod
    def make(self, item: Any, here: Surroundings = Surroundings()) -> Request | Sequence[Shown]:
        """An item's request, or the pictures that an earlier job has made of it. It may raise; then that item fails."""

    def name(self, item: Any) -> str:
        """What an item is called."""
        return str(item)


class Tally:
    """What came of a series, of which only the outcome is kept."""

    def __init__(self, series: Series):
        self._name = series.name
        self.outcome = Outcome(len(series.items))

    def found(self, pictures: Sequence[Shown]) -> None:
        """An item was done before."""
        self._add(pictures, already=self.outcome.already + 1)

    def done(self, item: Any, processed: Processed) -> None:
        """An item has run. A picture that could not be saved is one that there is not."""
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

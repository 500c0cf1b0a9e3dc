"""LoRA and its relatives: prompts name files, whose changes are merged into a model's weights and can be undone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from pipeline.errors import UnknownName
from pipeline.families.base import LayerFinder
from pipeline.networks.file import NetworkFile, Version, file_hash, trigger_words, version
from pipeline.networks.merging import NetworkSet, Wanted
from pipeline.networks.names import FoundFile, LoraNames
from pipeline.networks.requests import KINDS, TAG_SETTINGS, NetworkRequest, read_tags


class HasModules(Protocol):
    """The part of a model that networks use."""

    modules: dict[str, nn.Module]

    def layers(self) -> LayerFinder:
        """The layers that networks can change."""


def no_files(name: str) -> FoundFile:
    """A lookup that finds no file."""
    raise UnknownName("prompt", "LoRA", name, [])


@dataclass(frozen=True)
class Applied:
    """What is merged into a model's weights."""

    key: tuple[Wanted, ...] = ()
    """Equal for equal weights of one model."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Name in the prompt → infotext's 12 hex digits."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Name in the prompt → SHA-256 of the whole file."""
    comments: list[str] = field(default_factory=list)
    """Sentences for the person who asked."""
    embeddings: list[tuple[str, str, dict[str, Tensor]]] = field(default_factory=list)
    """(name in the prompt, embedding's name, its tensors) of textual inversions bundled in the files."""


@dataclass(frozen=True)
class Facts:
    """Facts about a file, valid until it changes."""

    short: str
    """Infotext's hash."""
    sha256: str
    embeddings: dict[str, dict[str, Tensor]]
    """Bundled textual inversions: name → tensors."""


class Networks:
    """Merges the networks that prompts ask for into models. One per engine, on its thread.

    find: a name in a prompt → its file. Raises UnknownName. sha256: a file's hash, computed or cached.
    """

    def __init__(self, find: Callable[[str], FoundFile] = no_files, sha256: Callable[[Path], str] = file_hash):
        self._find, self._sha256 = find, sha256
        self._sets: WeakKeyDictionary[nn.Module, NetworkSet] = WeakKeyDictionary()
        """By the model's first module, which a family and its wrapper share."""
        self._facts: dict[tuple[Path, Version], Facts] = {}

    def apply(self, model: HasModules, requests: Sequence[NetworkRequest], checkpoint: Callable[[], None] = lambda: None) -> Applied:
        """Merge exactly these networks into the model's weights.

        A name without a file is reported and left out. Each file is opened once, however often it is named. checkpoint:
        called between parts of the work; if it raises, no network is left in the weights. Raises ModelError for a file that
        cannot be read.
        """
        if not requests and not self._sets:
            return Applied()
        found: dict[str, tuple[Path, Version] | None] = {}
        for name in dict.fromkeys(request.name for request in requests):
            checkpoint()
            found[name] = find_file(name, self._find)
        wanted = [Wanted(request, *found[request.name]) for request in requests if found[request.name]]
        missing = [name for name, file in found.items() if file is None]
        comments = [f"Lora not found: {', '.join(missing)}."] if missing else []
        networks = self._sets.setdefault(next(iter(model.modules.values())), NetworkSet())
        opened = cache(NetworkFile)
        comments += networks.apply(model.layers, wanted, checkpoint, opened)
        facts = {}
        for want in wanted:
            checkpoint()
            facts[want.request.name] = self._facts_of(want, opened)
        return Applied(
            tuple(wanted), {name: fact.short for name, fact in facts.items()}, {name: fact.sha256 for name, fact in facts.items()},
            comments, [(name, word, tensors) for name, fact in facts.items() for word, tensors in fact.embeddings.items()])

    def knows(self, name: str) -> bool:
        """Whether a file of this name or alias exists."""
        try:
            self._find(name)
        except UnknownName:
            return False
        return True

    def _facts_of(self, want: Wanted, opened: Callable[[Path], NetworkFile]) -> Facts:
        key = want.path, want.version
        if key not in self._facts:
            file = opened(want.path)
            self._facts[key] = Facts(file.short_hash, self._sha256(want.path), file.embeddings())
        return self._facts[key]


def find_file(name: str, find: Callable[[str], FoundFile]) -> tuple[Path, Version] | None:
    """(path, version) of the file that a name means; None if there is none."""
    try:
        path = find(name).path
        return path, version(path)
    except (UnknownName, FileNotFoundError):
        return None


def hashes_text(hashes: dict[str, str]) -> str | None:
    """Infotext's "Lora hashes"; separators are removed from names."""
    clean = {name.replace(":", "").replace(",", ""): digest for name, digest in hashes.items()}
    return ", ".join(f"{name}: {digest}" for name, digest in clean.items()) or None


__all__ = ["KINDS", "TAG_SETTINGS", "Applied", "LoraNames", "NetworkFile", "NetworkRequest", "NetworkSet", "Networks",
           "hashes_text", "read_tags", "trigger_words"]

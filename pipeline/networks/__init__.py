"""LoRA and its relatives: prompts name files, files change a model's weights, and all of it can be taken back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from pipeline.errors import UnknownName
from pipeline.networks.file import NetworkFile, Version, file_hash, trigger_words, version
from pipeline.networks.merging import NetworkSet, Wanted
from pipeline.networks.names import FoundFile, LoraNames
from pipeline.networks.requests import KINDS, NetworkRequest, read_tags


class Model(Protocol):
    """What a family tells of itself here."""

    modules: dict[str, nn.Module]


def no_files(name: str) -> FoundFile:
    """What finds a file where there is no catalog."""
    raise UnknownName("prompt", "LoRA", name, [])


@dataclass(frozen=True)
class Applied:
    """What is in a model's weights now."""

    key: tuple[Wanted, ...] = ()
    """Equal for equal weights of one model."""
    hashes: dict[str, str] = field(default_factory=dict)
    """Name in the prompt → infotext's 12 hex digits."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Name in the prompt → of the whole file."""
    comments: list[str] = field(default_factory=list)
    """Sentences for the person who asked."""
    embeddings: list[tuple[str, str, dict[str, Tensor]]] = field(default_factory=list)
    """The name in the prompt, and name and tensors of a textual inversion that travels in the file."""


class Networks:
    """Brings models to what prompts ask for. One per engine, on its thread.

    find: a name in a prompt → its file. Raises UnknownName. sha256: a file's, read whole or remembered.
    """

    def __init__(self, find: Callable[[str], FoundFile] = no_files, sha256: Callable[[Path], str] = file_hash):
        self._find, self._sha256 = find, sha256
        self._sets: WeakKeyDictionary[nn.Module, NetworkSet] = WeakKeyDictionary()
        """By UNet, which a family and a wrapper around it have in common."""
        self._hashes: dict[tuple[Path, Version], tuple[str, str]] = {}
        """Infotext's, and the whole file's."""

    def apply(self, model: Model, requests: Sequence[NetworkRequest]) -> Applied:
        """Have these networks, and no others, in the model's weights.

        A name without a file is told and left out, as A1111 does. Raises ModelError for a file that cannot be read.
        """
        if not requests and not self._sets:
            return Applied()
        wanted, missing = [], []
        for request in requests:
            try:
                wanted.append(find_file(request, self._find))
            except UnknownName:
                missing.append(request.name)
        comments = [f"Lora not found: {', '.join(dict.fromkeys(missing))}."] if missing else []
        networks = self._sets.setdefault(model.modules["unet"], NetworkSet())
        comments += networks.apply(model.modules, wanted)
        bundled = [(want.request.name, name, tensors) for want in wanted
                   for name, tensors in NetworkFile(want.path).embeddings().items()]
        hashes = {want.request.name: self._hash(want) for want in wanted}
        return Applied(tuple(wanted), {name: short for name, (short, _) in hashes.items()},
                       {name: whole for name, (_, whole) in hashes.items()}, comments, bundled)

    def knows(self, name: str) -> bool:
        """Whether there is a file of this name, or with this alias."""
        try:
            self._find(name)
        except UnknownName:
            return False
        return True

    def _hash(self, want: Wanted) -> tuple[str, str]:
        key = want.path, want.version
        if key not in self._hashes:
            self._hashes[key] = NetworkFile(want.path).short_hash, self._sha256(want.path)
        return self._hashes[key]


def find_file(request: NetworkRequest, find: Callable[[str], FoundFile]) -> Wanted:
    """The request with its file as it is now. Raises UnknownName."""
    path = find(request.name).path
    try:
        return Wanted(request, path, version(path))
    except FileNotFoundError as error:
        raise UnknownName("prompt", "LoRA", request.name, []) from error


def hashes_text(hashes: dict[str, str]) -> str | None:
    """Infotext's "Lora hashes"; names lose the characters that separate them there."""
    clean = {name.replace(":", "").replace(",", ""): digest for name, digest in hashes.items()}
    return ", ".join(f"{name}: {digest}" for name, digest in clean.items()) or None


__all__ = ["KINDS", "Applied", "LoraNames", "NetworkFile", "NetworkRequest", "NetworkSet", "Networks", "hashes_text",
           "read_tags", "trigger_words"]

"""Which LoRA file a name in a prompt means: a file's own name, or the one that its trainer wrote into it."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.errors import ModelError, UnknownName
from pipeline.networks.file import Version, version
from pipeline.prompt_parser import in_a_tag
from pipeline.weights import Weights

NO_ALIAS = ("none",)
"""Trainers' names for no name, in lower case."""


class FoundFile(Protocol):
    """A file of the catalog."""

    stem: str
    """The file's name without extension."""
    rel: str
    """Its path in its folder, with / and its extension."""
    path: Path


class LoraFiles(Protocol):
    """The LoRA files that there are."""

    def loras(self) -> list[FoundFile]: ...

    def find_lora(self, name: str) -> FoundFile:
        """Raises UnknownName."""

    def lora_index(self) -> dict[str, FoundFile]:
        """Which file each name means to find_lora()."""

    def refresh(self) -> None:
        """Look again which files there are."""


class LoraNames:
    """The catalog's LoRA files by file name and by alias. Headers of files are read once, as long as they stay the same."""

    def __init__(self, catalog: LoraFiles):
        self._catalog = catalog
        self._metadata: dict[Path, tuple[Version, dict[str, str]]] = {}

    def find(self, name: str) -> FoundFile:
        """The file of this name, else the only one with this alias; new files are seen. Raises UnknownName."""
        try:
            return self._find(name)
        except UnknownName:
            self._catalog.refresh()
            return self._find(name)

    def prompt_name(self, file: FoundFile) -> str:
        """What a prompt should call the file: its alias where no other file is meant by it, else its name."""
        return next((name for name in chain([self.alias(file)], spellings(file)) if self._means(name, file)), file.stem)

    def listed(self) -> list[tuple[FoundFile, str, str]]:
        """All files, each with a name and an alias that mean it in a prompt; both may be the same."""
        files, index = self._catalog.loras(), self._catalog.lora_index()
        claims = Counter(map(self.alias, files))
        rows = []
        for file in files:
            names = (name for name in spellings(file) if in_a_tag(name) == name and index[name].path == file.path)
            name, alias = next(names, file.stem), self.alias(file)
            sole = claims[alias] == 1 and alias.lower() not in NO_ALIAS if alias not in index else index[alias].path == file.path
            rows.append((file, name, alias if sole and in_a_tag(alias) == alias else name))
        return rows

    def _means(self, name: str, file: FoundFile) -> bool:
        """Whether a tag with this name means that file."""
        try:
            return in_a_tag(name) == name and self._find(name).path == file.path
        except (UnknownName, ModelError):
            return False

    def alias(self, file: FoundFile) -> str:
        """The name that the trainer wrote into the file, else the file's own."""
        return self.metadata(file).get("ss_output_name") or file.stem

    def metadata(self, file: FoundFile) -> dict[str, str]:
        """What the file's header says of it; {} for one that cannot be read."""
        try:
            now = version(file.path)
            if self._metadata.get(file.path, (None,))[0] != now:
                self._metadata[file.path] = now, Weights(file.path).metadata
            return self._metadata[file.path][1]
        except (OSError, ModelError):
            return {}

    def _find(self, name: str) -> FoundFile:
        try:
            return self._catalog.find_lora(name)
        except UnknownName:
            # A1111: a name that two files claim, or "none", means a file of that name only
            claims = [file for file in self._catalog.loras() if self.alias(file) == name]
            if len(claims) != 1 or name.lower() in NO_ALIAS:
                raise
            return claims[0]


def spellings(file: FoundFile) -> Iterator[str]:
    """The file's names, the shortest first, then as a tag can hold them."""
    yield file.stem
    paths = str(PurePosixPath(file.rel).with_suffix("")), file.rel
    yield from paths
    yield from map(in_a_tag, (file.stem, *paths))

"""Which LoRA file a name in a prompt means: by file name, or by the alias that its trainer wrote into it."""

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
"""Aliases that mean no alias, in lower case."""


class FoundFile(Protocol):
    """A file of the catalog."""

    stem: str
    """The file's name without extension."""
    rel: str
    """Its path in its folder, with / and its extension."""
    path: Path


class LoraFiles(Protocol):
    """A catalog of LoRA files."""

    def loras(self) -> list[FoundFile]: ...

    def find_lora(self, name: str) -> FoundFile:
        """Raises UnknownName."""

    def lora_index(self) -> dict[str, FoundFile]:
        """All names that find_lora() knows, with the file each one means."""

    def refresh(self) -> None:
        """Scan for files again."""


class LoraNames:
    """LoRA files by file name and by alias. Each file's header is read once per version of the file."""

    def __init__(self, catalog: LoraFiles):
        self._catalog = catalog
        self._metadata: dict[Path, tuple[Version, dict[str, str]]] = {}

    def find(self, name: str) -> FoundFile:
        """The file of this name, else the only one with this alias; new files are found too. Raises UnknownName."""
        try:
            return self._find(name)
        except UnknownName:
            self._catalog.refresh()
            return self._find(name)

    def prompt_name(self, file: FoundFile) -> str:
        """The file's name for prompts: its alias if that is unambiguous, else its file name."""
        return next((name for name in chain([self.alias(file)], spellings(file)) if self._means(name, file)), file.stem)

    def listed(self) -> list[tuple[FoundFile, str, str]]:
        """(file, name, alias) for all files; both work in a prompt, and may be equal."""
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
        """The name that the trainer wrote into the file, else the file's name."""
        return self.metadata(file).get("ss_output_name") or file.stem

    def metadata(self, file: FoundFile) -> dict[str, str]:
        """The metadata in the file's header; {} if it cannot be read."""
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
            # A1111: an alias of two files, or "none", is not an alias
            claims = [file for file in self._catalog.loras() if self.alias(file) == name]
            if len(claims) != 1 or name.lower() in NO_ALIAS:
                raise
            return claims[0]


def spellings(file: FoundFile) -> Iterator[str]:
    """The file's names, shortest first, then escaped for use in a tag."""
    yield file.stem
    paths = str(PurePosixPath(file.rel).with_suffix("")), file.rel
    yield from paths
    yield from map(in_a_tag, (file.stem, *paths))

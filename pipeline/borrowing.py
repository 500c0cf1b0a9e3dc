"""Models of another machine: known by its names, found here by their hashes, or fetched once, in pieces, and checked."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import NamedTuple, Protocol

from pipeline.errors import ModelError, UnknownName
from pipeline.models import FOLDERS, Catalog, ModelFile, Share
from pipeline.networks.names import LoraNames

logger = logging.getLogger(__name__)

PIECE = 1 << 24
"""Bytes fetched at once."""
WHOLE_FOLDERS = ("VAE-approx", "adetailer", "sam")
"""In the models folder: what is used without being named by its file."""
SEARCHED = 1 << 20
"""Bytes from which a file is looked for here before it is fetched."""


class Listed(NamedTuple):
    """A model, as the other machine lists it."""

    kind: str
    place: str
    """Its path there, from the models folder if it is inside; unique, and never above that folder."""
    name: str
    rel: str
    sha256: str | None


class Part(NamedTuple):
    """A file of a model."""

    inside: str
    """Its path in the model's folder; "": the model is this file."""
    size: int
    sha256: str
    beside: str = ""
    """The end of its name, if it is a file beside the model."""


class Library(Protocol):
    """The models of a machine, told and handed out to others."""

    def listing(self) -> list[Listed]:
        """All models, after looking for new ones."""

    def find(self, kind: str, text: str) -> str:
        """The place of the model of that kind that a text means there; "": none. For what only a look into files tells."""

    def parts(self, place: str) -> list[Part]:
        """The files of a model, or of one of WHOLE_FOLDERS. [] if it is gone."""

    def piece(self, sha256: str, start: int) -> bytes:
        """Up to PIECE bytes of a file that parts() has told of."""


class Shelves(Library):
    """The library of a catalog on this machine. It hands out nothing but the catalog's files."""

    def __init__(self, catalog: Catalog):
        self._catalog, self._loras = catalog, LoraNames(catalog)
        self._paths: dict[str, Path] = {}
        self._told: dict[str, Path] = {}
        """By SHA-256: the files that may be fetched."""

    def listing(self) -> list[Listed]:
        self._catalog.refresh()
        paths, listed = {}, []
        for kind in FOLDERS:
            for file in self._catalog.all(kind):
                place = self._place(kind, file)
                paths[place] = file.path
                listed.append(Listed(kind, place, file.name, file.rel, self._catalog.hashed(file).sha256))
        self._paths = paths
        return listed

    def find(self, kind: str, text: str) -> str:
        try:
            return self._place(kind, self._loras.find(text) if kind == "LoRA" else self._catalog.find(kind, text))
        except (UnknownName, ModelError):
            return ""

    def parts(self, place: str) -> list[Part]:
        path = self._catalog.root / place if place in WHOLE_FOLDERS else self._paths.get(place)
        if path is None or not path.exists():
            return []
        inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        parts = [self._part(file, "" if file == path else file.relative_to(path).as_posix()) for file in inside]
        if not path.is_dir() and (described := path.with_suffix(".yaml")).is_file():
            parts.append(self._part(described, "")._replace(beside=".yaml"))
        return parts

    def piece(self, sha256: str, start: int) -> bytes:
        with self._told[sha256].open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def _part(self, file: Path, inside: str) -> Part:
        sha256 = self._catalog.hash_of(file)
        self._told[sha256] = file
        return Part(inside, file.stat().st_size, sha256)

    def _place(self, kind: str, file: ModelFile) -> str:
        if file.path.is_relative_to(self._catalog.root):
            return file.path.relative_to(self._catalog.root).as_posix()
        folder = file.path.as_posix().removesuffix(file.rel).rstrip("/").rpartition("/")[2]
        return f"elsewhere/{kind}/{folder}/{file.rel.lstrip('/')}"


class BorrowedCatalog(Catalog):
    """The catalog of another machine. Names mean there and here the same; a file is got before it is read.

    own: what this machine has, taken if the hash is the same, whatever its name. store: a folder for what is fetched, and, in
    one called `name`, for links under the other machine's names.
    """

    def __init__(self, library: Library, own: Catalog, store: Path, name: str = "names"):
        self._library, self._own, self._store = library, own, store
        self._listing: dict[str, list[ModelFile]] = {}
        self._places: dict[Path, str] = {}
        self._got: dict[Path, list[Part]] = {}
        self._whole: dict[Path, str] = {}
        """The hash of a model's file that was got."""
        self._getting = RLock()
        (store / name).mkdir(parents=True, exist_ok=True)
        (store / "files").mkdir(exist_ok=True)
        self._names = store / name
        super().__init__(self._names, cache=store / "palimpsest-hashes.json")
        for folder in WHOLE_FOLDERS:
            self._get(self.root / folder, folder)

    def refresh(self) -> None:
        listing: dict[str, list[ModelFile]] = {kind: [] for kind in FOLDERS}
        for kind, place, name, rel, sha256 in self._library.listing():
            path = inside(self._names, place)
            self._places[path] = place
            listing[kind].append(ModelFile(name, rel, path, sha256))
        self._listing, self._meant = listing, {}
        self._got = {}  # the other machine may have replaced a file

    def all(self, kind: str) -> list[ModelFile]:
        return self._listing[kind]

    def hashed(self, file: ModelFile) -> ModelFile:
        return file if file.sha256 else replace(file, sha256=self._whole.get(file.path))

    def at_hand(self, kind: str, file: ModelFile) -> ModelFile:
        self._get(file.path, self._places[file.path])
        return file

    def sha256(self, file: ModelFile, progress: Share | None = None) -> str:
        return self._whole.get(file.path) or super().sha256(file, progress)

    def _find(self, kind: str, text: str) -> ModelFile:
        try:
            return super()._find(kind, text)
        except UnknownName:
            place = self._library.find(kind, text)
            file = next((file for file in self._listed(kind) if self._places[file.path] == place), None)
            if file is None:
                raise
            return self.at_hand(kind, file)

    def embedding_paths(self) -> list[Path]:
        return [file.path for file in self._gotten("embedding")]

    def annotators(self) -> list[ModelFile]:
        return self._gotten("annotator")

    def clip_vision(self) -> list[ModelFile]:
        return self._gotten("CLIP vision")

    def as_tried(self, paths: list[Path]) -> list[Path]:
        """Files of which the first that fits is used; each is got when it is its turn."""
        return Tried(paths, lambda path: self._get(path, self._places[path]))

    def _gotten(self, kind: str) -> list[ModelFile]:
        return [self.at_hand(kind, file) for file in self._listed(kind)]

    def _get(self, path: Path, place: str) -> None:
        """Put a model where its name says. Raises ModelError."""
        with self._getting:
            if path in self._got:
                return
            parts = self._library.parts(place)
            if not parts and place not in WHOLE_FOLDERS:
                raise ModelError(f'"{path.name}" is not on the machine any more that asks for it')
            for part in parts:
                target = inside(path, part.inside) if part.inside else path.with_suffix(part.beside) if part.beside else path
                link(self._file(part, target.name), target)
            self._got[path] = parts
            if len(parts) and not parts[0].inside:
                self._whole[path] = parts[0].sha256

    def _file(self, part: Part, name: str) -> Path:
        """A file with a part's content, on this machine."""
        kept = self._store / "files" / part.sha256
        if kept.exists():
            return kept
        if part.size >= SEARCHED and (found := self._found_here(part)) is not None:
            return found
        self._fetch(part, name, kept)
        return kept

    def _found_here(self, part: Part) -> Path | None:
        files = [path for kind in FOLDERS for file in self._own.all(kind) for path in files_of(file.path)]
        return next((path for path in files if path.stat().st_size == part.size and self._own.hash_of(path) == part.sha256), None)

    def _fetch(self, part: Part, name: str, kept: Path) -> None:
        draft, digest, done = kept.with_suffix(f".{os.getpid()}.tmp"), hashlib.sha256(), 0
        logger.info("fetching %s (%d bytes)", name, part.size)
        try:
            if part.size > (free := shutil.disk_usage(self._store).free):
                raise ModelError(f'"{name}" has {part.size} bytes, and a worker has {free} left to keep it')
            with draft.open("wb") as file:
                while done < part.size and (piece := self._library.piece(part.sha256, done)):
                    file.write(piece)
                    digest.update(piece)
                    done += len(piece)
            if digest.hexdigest() != part.sha256:
                raise ModelError(f'"{name}" arrived damaged at a worker: its SHA-256 is {digest.hexdigest()} and not {part.sha256}')
            os.replace(draft, kept)
        except OSError as error:
            raise ModelError(f'"{name}" could not be fetched by a worker: {error.strerror or type(error).__name__}') from error
        finally:
            draft.unlink(missing_ok=True)


class Tried(list[Path]):
    """Files, each of which is got when it is its turn in a loop."""

    def __init__(self, paths: Iterable[Path], get: Callable[[Path], None]):
        super().__init__(paths)
        self._get = get

    def __iter__(self) -> Iterator[Path]:
        for path in super().__iter__():
            self._get(path)
            yield path


def files_of(path: Path) -> list[Path]:
    """A file, or all files in a folder."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def inside(folder: Path, place: str) -> Path:
    """A path in a folder. Raises ModelError if it would be outside."""
    path = folder / place
    if not path.absolute().is_relative_to(folder.absolute()) or ".." in path.parts:
        raise ModelError(f"{place!r} is not a place for a model")
    return path


def link(file: Path, name: Path) -> None:
    """Make `name` another name of a file, instead of what it was."""
    name.parent.mkdir(parents=True, exist_ok=True)
    if name.is_symlink() and Path(os.readlink(name)) == file.absolute():
        return
    draft = name.with_name(f"{name.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    draft.symlink_to(file.absolute())
    os.replace(draft, name)

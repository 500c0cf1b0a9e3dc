"""Control networks in memory: the last few used."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.errors import UnknownName
from pipeline.families.controls import ControlNetwork
from pipeline.families.placement import Placement
from pipeline.models import ModelFile, stamp


def no_files(name: str) -> ModelFile:
    """A lookup that finds no file."""
    raise UnknownName("alwayson_scripts", "ControlNet model", name, [])


def no_reader(path: Path, name: str, place: Placement) -> ControlNetwork:
    raise NotImplementedError


class ControlNets:
    """Loads the network that a name means, on the engine's thread, and keeps the last few in memory.

    find: the file of a name; sha256: a file's hash; read: reads a file; keep: how many stay loaded.
    """

    def __init__(self, find: Callable[[str], ModelFile] = no_files, sha256: Callable[[ModelFile], str | None] = lambda file: None,
                 read: Callable[[Path, str, Placement], ControlNetwork] = no_reader, *, keep: int = 3):
        self._find, self._sha256, self._read, self._keep = find, sha256, read, keep
        self._loaded: OrderedDict[tuple, ControlNetwork] = OrderedDict()

    def find(self, name: str) -> ModelFile:
        """The file that a name means. Raises UnknownName, or ModelError for a pickle."""
        return self._find(name)

    def sha256(self, file: ModelFile) -> str | None:
        return self._sha256(file)

    @torch.inference_mode(False)
    def load(self, file: ModelFile, place: Placement) -> ControlNetwork:
        """The network of a file, for a model in that place. Raises ModelError."""
        key = str(file.path), stamp(file.path), place.device, place.dtype
        network = self._loaded.get(key)
        if network is None:
            while len(self._loaded) >= self._keep:
                self._loaded.popitem(last=False)
            network = self._loaded[key] = self._read(file.path, file.stem, place)
        self._loaded.move_to_end(key)
        return network

    def release(self) -> None:
        """Drop all networks."""
        self._loaded.clear()

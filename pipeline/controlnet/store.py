"""Control networks in memory: the last few used, and the readers of pictures that IP-Adapters need."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from pipeline.controlnet.preprocessors import Annotators, Picture, Preprocessor, no_networks
from pipeline.errors import ModelError, UnknownName
from pipeline.families.controls import ControlNetwork, Encoders, Features, PictureEncoder
from pipeline.families.placement import Placement
from pipeline.models import ModelFile, stamp


def no_files(name: str) -> ModelFile:
    """A lookup that finds no file."""
    raise UnknownName("alwayson_scripts", "ControlNet model", name, [])


def no_reader(path: Path, name: str, place: Placement) -> ControlNetwork:
    raise NotImplementedError


class ControlNets:
    """Loads the network that a name means, on the engine's thread, and keeps the last few in memory.

    find: the file of a name; sha256: a file's hash; read: reads a file; encoders: CLIP's vision models; annotators: the
    networks of preprocessors; keep: how many stay loaded.
    """

    def __init__(self, find: Callable[[str], ModelFile] = no_files, sha256: Callable[[ModelFile], str | None] = lambda file: None,
                 read: Callable[[Path, str, Placement], ControlNetwork] = no_reader, *,
                 encoders: Encoders | None = None, annotators: Annotators | None = None, keep: int = 3):
        self._find, self._sha256, self._read, self._encoders, self._keep = find, sha256, read, encoders, keep
        self._annotators = annotators
        self._loaded: OrderedDict[tuple, ControlNetwork | PictureEncoder] = OrderedDict()

    def find(self, name: str) -> ModelFile:
        """The file that a name means. Raises UnknownName, or ModelError for a pickle."""
        return self._find(name)

    def sha256(self, file: ModelFile) -> str | None:
        return self._sha256(file)

    def load(self, file: ModelFile, place: Placement) -> ControlNetwork:
        """The network of a file, for a model in that place. Raises ModelError."""
        return self._load(file, place, self._read)

    def find_annotator(self, preprocessor: Preprocessor) -> ModelFile | None:
        """The network that does a preprocessor's work; None: there is none."""
        return self._annotators.find(preprocessor) if self._annotators else None

    def annotate(self, preprocessor: Preprocessor, picture: Picture) -> Picture:
        """What that network makes of a picture. Raises ModelError if there is none."""
        return (self._annotators.annotate if self._annotators else no_networks)(preprocessor, picture)

    def find_encoder(self, network: ControlNetwork) -> ModelFile:
        """The CLIP vision model whose features an IP-Adapter takes. Raises ModelError if there is none."""
        for file in self._encoders.files() if self._encoders else ():
            with suppress(ModelError):
                if self._encoders.fits(file.path, network.reads):
                    return file
        raise ModelError(f'"{network.name}" needs {described(network.reads)}, which is not there: put its file, in transformers\' names, '
                         "into models/clip_vision")

    def features(self, encoder: ModelFile, network: ControlNetwork, picture: Tensor, place: Placement) -> Tensor:
        """What an IP-Adapter takes of a picture (1, 3, S, S) in [0, 1]. Raises ModelError."""
        loaded: PictureEncoder = self._load(encoder, place, self._encoders.read)
        loaded.move_to(place, computes=True)
        try:
            return loaded.features(picture, deep=network.reads.deep)
        finally:
            loaded.move_to(place, computes=False)

    @torch.inference_mode(False)
    def _load(self, file: ModelFile, place: Placement, read: Callable[[Path, str, Placement], ControlNetwork | PictureEncoder],
              ) -> ControlNetwork | PictureEncoder:
        key = str(file.path), stamp(file.path), place.device, place.dtype
        network = self._loaded.get(key)
        if network is None:
            while len(self._loaded) >= self._keep:
                self._loaded.popitem(last=False)
            network = self._loaded[key] = read(file.path, file.stem, place)
        self._loaded.move_to_end(key)
        return network

    def release(self) -> None:
        """Drop all networks."""
        self._loaded.clear()


ENCODERS = {(1280, True): "CLIP-ViT-H", (1024, False): "CLIP-ViT-H", (1664, True): "CLIP-ViT-bigG", (1280, False): "CLIP-ViT-bigG"}
"""By what adapters take: the width, and whether it is the last layer but one."""


def described(wanted: Features) -> str:
    """A CLIP vision model, for a sentence."""
    return ENCODERS.get((wanted.width, wanted.deep), f"a CLIP vision model with features of {wanted.width} numbers")

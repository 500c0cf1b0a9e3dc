"""Annotators: the networks in models/annotators that some of ControlNet's preprocessors need, and the last ones used."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

import torch

from pipeline.controlnet.preprocessors import Picture, Preprocessor, needed
from pipeline.detectors.detr import Detr
from pipeline.detectors.store import DetectorFile, classes_told
from pipeline.errors import ModelError
from pipeline.families import annotators
from pipeline.families.annotators import Annotator, Box
from pipeline.models import ModelFile, stamp

KEEP = 3
PERSON, SURE = "person", 0.3
"""A detector's class, and how sure it must be."""


class Annotators:
    """Annotates pictures on the processor. Any thread may use it; they take turns. files: the folders that there are."""

    def __init__(self, files: Callable[[], list[ModelFile]] = list):
        self._files = files
        self._loaded: OrderedDict[tuple, Annotator | Detr] = OrderedDict()
        self._lock = Lock()

    def find(self, preprocessor: Preprocessor) -> ModelFile | None:
        """The first network that does a preprocessor's work; None: there is none."""
        for file in self._files():
            with suppress(ModelError):
                if file.path.is_dir() and annotators.kind_of(file.path) in preprocessor.annotators:
                    return file
        return None

    def has(self, preprocessor: Preprocessor) -> bool:
        """Whether a preprocessor has what it needs."""
        return not preprocessor.annotators or self.find(preprocessor) is not None

    def annotate(self, preprocessor: Preprocessor, picture: Picture) -> Picture:
        """What its network makes of (h, w, 3) uint8 RGB. Raises ModelError."""
        file = self.find(preprocessor)
        if file is None:
            raise ModelError(f'preprocessor "{preprocessor.label}": {needed(preprocessor)}')
        with self._lock:
            people = self._people(picture) if preprocessor.parts else []
            return self._load(file).annotate(picture, preprocessor.parts, people)

    def _people(self, picture: Picture) -> list[Box]:
        """Where people are, by the first detector among the files that knows persons; none: there is no detector, or nobody."""
        for file in self._files():
            with suppress(ModelError):
                detector = DetectorFile(file.path.name, file.path)
                if file.path.is_dir() and annotators.kind_of(file.path) is None and PERSON in classes_told(detector):
                    return [find.box for find in self._load(file).find(picture, SURE) if find.name == PERSON]
        return []

    def release(self) -> None:
        """Drop all from memory."""
        with self._lock:
            self._loaded.clear()

    @torch.inference_mode(False)  # called in the middle of a job
    def _load(self, file: ModelFile) -> Annotator | Detr:
        key = str(file.path), stamp(file.path)
        if key not in self._loaded:
            while len(self._loaded) >= KEEP:
                self._loaded.popitem(last=False)
            self._loaded[key] = annotators.load(file.path) if annotators.kind_of(file.path) else Detr(file.path)
        self._loaded.move_to_end(key)
        return self._loaded[key]

"""Segmentation models: the ones in the models folder, the loaded one, and its image embeddings."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from pipeline import families
from pipeline.caches import Cache
from pipeline.errors import ModelError, UnknownName
from pipeline.families import sam
from pipeline.families.sam import Prompt, Segmenter
from pipeline.memory import collect, free_memory, is_out_of_memory
from pipeline.models import natural

logger = logging.getLogger(__name__)

FOLDER = "sam"
"""In the models folder."""
PROCESSOR = torch.device("cpu")
MOST_EMBEDDED = 128 * 2**20
"""Bytes of image embeddings: 32 of SAM's, 8 of SAM 2's."""


class Segmenters:
    """Finds objects by points and boxes, with the models in a folder. Any thread may use it; they take turns.

    The last model used stays in main memory until release(). device: computes embeddings when it is free and has room;
    otherwise the processor does.
    """

    def __init__(self, folder: Path | None = None, device: torch.device = PROCESSOR, *,
                 free: Callable[[torch.device], int | None] = free_memory):
        self._folder, self._device, self._free = folder, device, free
        self._loaded: tuple[Path, float, Segmenter] | None = None
        self._embeddings = Cache(MOST_EMBEDDED)
        self._lock = Lock()
        self.card = Lock()
        """Held while something else computes on the device."""

    def names(self) -> list[str]:
        """The models' names."""
        return list(self._found())

    def segment(self, name: str, picture: np.ndarray, key: str, prompt: Prompt) -> np.ndarray:
        """The object's mask, (h, w) uint8, 255 inside. picture: (h, w, 3) uint8; key: identifies it.

        Raises UnknownName, ModelError.
        """
        found = self._found()
        if name not in found:
            raise UnknownName("model", "segmentation model", name, found)
        with self._lock, families.one_sentence(found[name]):
            model = self._model(found[name])
            embedding = self._embeddings.get((found[name], key), lambda: self._embed(found[name], model, picture))
            return model.segment(embedding, prompt, picture.shape[1], picture.shape[0])

    def release(self) -> None:
        """Drop the model and the embeddings."""
        with self._lock:
            self._forget()

    def _found(self) -> dict[str, Path]:
        """Folders with a config.json, by name; the folder itself may be one."""
        if self._folder is None or not self._folder.is_dir():
            return {}
        inside = sorted((Path(entry.path) for entry in os.scandir(self._folder) if entry.is_dir() and not entry.name.startswith(".")),
                        key=lambda path: natural(path.name))
        return {path.name: path for path in (self._folder, *inside) if (path / "config.json").is_file()}

    def _model(self, folder: Path) -> Segmenter:
        changed = (folder / "config.json").stat().st_mtime
        if self._loaded is None or self._loaded[:2] != (folder, changed):
            self._forget()
            if sam.kind_of(folder) is not None and not self._has_room(PROCESSOR, sam.size_of(folder)):
                raise too_large(folder)
            self._loaded = folder, changed, sam.load(folder)
        return self._loaded[2]

    def _embed(self, folder: Path, model: Segmenter, picture: np.ndarray) -> list[torch.Tensor]:
        """A picture's embedding: computed on the card if it is free and has room, otherwise on the processor."""
        if self._device.type != "cpu" and self.card.acquire(blocking=False):
            try:
                if self._has_room(self._device, model.size + model.working):
                    return model.embed(picture, self._device)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("%s ran out of memory on the card; using the processor", folder.name)
            finally:
                collect(self._device)
                self.card.release()
        if not self._has_room(PROCESSOR, model.working):
            raise too_large(folder)
        return model.embed(picture, PROCESSOR)

    def _has_room(self, device: torch.device, wanted: int) -> bool:
        left = self._free(device)
        return left is None or left >= wanted

    def _forget(self) -> None:
        self._loaded = None
        self._embeddings.clear()


def too_large(folder: Path) -> ModelError:
    return ModelError(f'"{folder.name}" does not fit into free memory; use a smaller model')

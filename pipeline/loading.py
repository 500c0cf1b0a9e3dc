"""Models in memory: the one that a request asks for, and the last few as long as there is room."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock

import torch

from pipeline import families
from pipeline.errors import ModelError
from pipeline.families.base import Family, ModelInfo, Placement
from pipeline.memory import collect, free_memory, is_out_of_memory
from pipeline.models import SHORT, Catalog, ModelFile, Share, stamp, weight_files
from pipeline.options import Options
from pipeline.weights import Weights

logger = logging.getLogger(__name__)

WORKING_MEMORY = 2 << 30
"""Bytes left free for the pictures when it is decided whether one more model fits."""
HASHING = 0.3
"""Share of the progress that hashing a file takes where its hash is not known."""

Key = tuple
"""What a loaded model was made of: files, and their state when they were read."""


class ModelStore:
    """Loads the model that options name, on the engine's thread, and keeps the last few.

    default: the checkpoint where sd_model_checkpoint is "".
    keep: how many stay loaded besides the one in use, where memory allows.
    """

    def __init__(self, catalog: Catalog, place: Placement, default: ModelFile, *, keep: int = 1,
                 load: Callable[..., Family] = families.load, describe: Callable[[Path], ModelInfo] = families.describe,
                 free: Callable[[torch.device], int | None] = free_memory):
        self.catalog, self.default = catalog, default
        self.tell: Share = lambda share: None
        """Told how much of a model is loaded, 0 when it begins."""
        self._place, self._keep = place, keep
        self._read, self._describe, self._free = load, describe, free
        self._loaded: OrderedDict[Key, Family] = OrderedDict()  # the one in use last
        self._lock = Lock()

    @property
    def current(self) -> ModelInfo | None:
        """Of the model that was used last, where it is still loaded."""
        with self._lock:
            return next((family.info for family in reversed(self._loaded.values())), None)

    def find(self, options: Options) -> tuple[ModelFile, ModelFile | None]:
        """The checkpoint that options mean, and its separate VAE. Raises UnknownName, and ModelError for a pickle."""
        wanted, vae = options.sd_model_checkpoint, options.sd_vae
        checkpoint = self.catalog.find_checkpoint(wanted) if wanted else self.catalog.hashed(self.default)
        if vae in ("Automatic", "auto", ""):
            return checkpoint, self.catalog.vae_beside(checkpoint)
        return checkpoint, None if vae == "None" else self.catalog.find_vae(vae)

    def describe(self, options: Options = Options()) -> ModelInfo:
        """What is known of the model that options mean, without loading it. Raises UnknownName, ModelError."""
        checkpoint, vae = self.find(options)
        info = replace(self._describe(checkpoint.path), name=checkpoint.stem, hash=checkpoint.hash)
        return info if vae is None else replace(info, vae=vae.path.name, vae_hash=vae.hash)

    @torch.inference_mode(False)  # a refiner is asked for in the middle of a job
    def load(self, options: Options) -> Family:
        """The model that options mean, read unless it is loaded. Where this fails, the others can still be used.

        Raises UnknownName, or ModelError with one sentence.
        """
        checkpoint, vae = self.find(options)
        key = tuple((str(file.path), stamp(file.path)) for file in (checkpoint, vae) if file is not None)
        family = self._loaded.get(key) or self._load(checkpoint, vae)
        with self._lock:
            self._loaded[key] = family
            self._loaded.move_to_end(key)
        self._forget(self._keep + 1)
        return family

    def release(self) -> None:
        """Let go of all models; the next request loads its own again."""
        self._forget(0)

    def make_room(self) -> None:
        """Let go of all models but the one used last."""
        self._forget(1)

    def _load(self, checkpoint: ModelFile, vae: ModelFile | None) -> Family:
        info = self._describe(checkpoint.path)  # a file that is no model costs nobody theirs
        self._fit(sum(weight_bytes(file.path, self._place.dtype) for file in (checkpoint, vae) if file is not None))
        try:
            return self._load_files(checkpoint, vae, info)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("%s did not fit beside the models that are loaded", checkpoint.rel)
        self.release()
        try:
            return self._load_files(checkpoint, vae, info)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(f'model "{checkpoint.rel}" does not fit into the memory of {self._place.device} '
                             f"in {str(self._place.dtype).removeprefix('torch.')}") from None

    def _load_files(self, checkpoint: ModelFile, vae: ModelFile | None, info: ModelInfo) -> Family:
        self.tell(0.0)
        start = HASHING if checkpoint.sha256 is None else 0.0
        sha256 = self.catalog.sha256(checkpoint, lambda share: self.tell(start * share))
        info = replace(info, name=checkpoint.stem, hash=sha256[:SHORT])
        if vae is not None:
            info = replace(info, vae=vae.path.name, vae_hash=self.catalog.sha256(vae)[:SHORT])
        return self._read(checkpoint.path, self._place, info, vae=None if vae is None else vae.path,
                          progress=lambda share: self.tell(start + (1 - start) * share))

    def _fit(self, wanted: int) -> None:
        """Let go of models, the one used longest ago first, until there is room for so many bytes."""
        while self._loaded:
            free = self._free(self._place.device)
            if free is not None and free >= wanted + WORKING_MEMORY:
                return
            self._forget(len(self._loaded) - 1)

    def _forget(self, keep: int) -> None:
        with self._lock:
            dropped = len(self._loaded) > keep
            while len(self._loaded) > keep:
                self._loaded.popitem(last=False)
        if dropped:
            collect(self._place.device)


def weight_bytes(path: Path, dtype: torch.dtype) -> int:
    """The memory that a checkpoint's weights take in a precision, from its headers only. Raises ModelError."""
    return sum(weights.shape(name).numel() for weights in map(Weights, weight_files(path)) for name in weights) * dtype.itemsize

"""Models in memory: the one in use, and the last few as long as there is room."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import torch

from pipeline import families
from pipeline.annotators import Annotators
from pipeline.errors import ModelError
from pipeline.families import Components
from pipeline.families.base import Family, ModelInfo
from pipeline.families.compiled import Compiler
from pipeline.families.placement import Placement
from pipeline.memory import TILE, Bytes, MemoryPlan, collect, free_memory, is_out_of_memory, plan_memory, working_memory
from pipeline.models import NO_VAE, SHORT, Catalog, ModelFile, Share, stamp
from pipeline.options import KINDS, Options

logger = logging.getLogger(__name__)

OFFLOADED = {"encoders": "each layer of its text encoders", "model": "each of its networks", "sequential": "each of its layers"}
HASHING = 0.3
"""Fraction of the progress given to hashing a file whose hash is unknown."""

Key = tuple
"""Identifies a loaded model: its files, and their state when they were read."""


class Chosen(NamedTuple):
    """The files of a model."""

    checkpoint: ModelFile
    vae: ModelFile | None = None
    """None: the checkpoint's own."""
    text_encoders: tuple[ModelFile, ...] = ()
    edits: bool | None = None
    """As in Components."""

    @property
    def components(self) -> Components:
        return Components(self.vae and self.vae.path, tuple(file.path for file in self.text_encoders), self.edits)

    @property
    def files(self) -> list[ModelFile]:
        return [self.checkpoint, *self.text_encoders, *([] if self.vae is None else [self.vae])]

    @property
    def key(self) -> Key:
        """(of all but the VAE, of the VAE)."""
        return (state_of(self.checkpoint, *self.text_encoders), self.edits), () if self.vae is None else state_of(self.vae)


def state_of(*files: ModelFile) -> Key:
    return tuple((str(file.path), stamp(file.path)) for file in files)


class ModelStore:
    """Loads the model that options name, on the engine's thread, and keeps the last few.

    default: the checkpoint to use if sd_model_checkpoint is "".
    keep: how many stay loaded besides the one in use, memory permitting. code: the folder for compiled networks; None: none are compiled.
    """

    def __init__(self, catalog: Catalog, place: Placement, default: ModelFile, *, keep: int = 1,
                 code: Path | None = None, load: Callable[..., Family] = families.load, describe: Callable[..., ModelInfo] = families.describe,
                 change_vae: Callable[..., None] = families.change_vae, complete: Callable[..., Components] = families.completed,
                 free: Callable[[torch.device], int | None] = free_memory,
                 main: Callable[[], int | None] = partial(free_memory, torch.device("cpu"))):
        self.catalog, self.default = catalog, default
        self.annotators = Annotators(catalog.annotators)
        """Networks of ControlNet's preprocessors."""
        self.tell: Share = lambda share: None
        """Called with the fraction of a model that is loaded, starting at 0."""
        self.place, self._keep = place, keep
        self._read, self._describe, self._change_vae, self._complete, self._free, self._main = load, describe, change_vae, complete, free, main
        self._compiler = Compiler(code, free=main) if code is not None else None
        self._loaded: OrderedDict[Key, Family] = OrderedDict()  # the one in use last
        self._plans: dict[Key, MemoryPlan] = {}
        """By the first half of a Key: of the models that were loaded."""
        self._completed: dict[Key, Components] = {}
        """By the files chosen and offered: what was found missing and where."""
        self._lock = Lock()

    @property
    def current(self) -> ModelInfo | None:
        """The model used last, if it is still loaded."""
        with self._lock:
            return next((family.info for family in reversed(self._loaded.values())), None)

    def find(self, options: Options) -> Chosen:
        """The files that options name. Raises UnknownName, and ModelError for a pickle."""
        wanted, vae = options.sd_model_checkpoint, options.sd_vae
        checkpoint = self.catalog.find_checkpoint(wanted) if wanted else self.catalog.at_hand("checkpoint", self.catalog.hashed(self.default))
        beside = None if vae == "None" else self.catalog.vae_beside(checkpoint) if vae in NO_VAE else self.catalog.find_vae(vae)
        return Chosen(checkpoint, beside, tuple(self.catalog.find_text_encoders(options.sd_text_encoders)),
                      KINDS[options.sd_model_kind])

    def complete(self, options: Options) -> Chosen:
        """The same, with the files that fit for what the checkpoint lacks, where options leave that to us.

        Raises UnknownName, ModelError.
        """
        chosen = self.find(options)
        vaes = [] if options.sd_vae == "None" else self.catalog.vaes()
        encoders = [] if options.sd_text_encoders == "None" else self.catalog.text_encoders()
        if not vaes and not encoders:
            return chosen
        key = chosen.key, state_of(*vaes, *encoders)
        if key not in self._completed:
            paths = [[file.path for file in files] for files in (vaes, encoders)]
            self._completed[key] = self._complete(chosen.checkpoint.path, chosen.components, *paths)
        found, by_path = self._completed[key], {file.path: file for file in (*chosen.files, *vaes, *encoders)}
        return chosen._replace(vae=found.vae and by_path[found.vae], text_encoders=tuple(by_path[path] for path in found.text_encoders))

    def describe(self, options: Options = Options()) -> ModelInfo:
        """The model that options name, without loading it. Raises UnknownName, ModelError."""
        chosen = self.complete(options)
        checkpoint, vae = chosen.checkpoint, chosen.vae
        info = replace(self._describe(checkpoint.path, chosen.components), name=checkpoint.stem, hash=checkpoint.hash)
        return info if vae is None else replace(info, vae=vae.path.name, vae_hash=vae.hash)

    def plan(self, options: Options = Options()) -> MemoryPlan:
        """Where the weights of the model that options name are, or will be once it is loaded, in the room that the others leave it.

        Raises UnknownName, and ModelError for a model that cannot be loaded here.
        """
        chosen = self.complete(options)
        with self._lock:
            loaded = any(key[0] == chosen.key[0] for key in self._loaded)
        if loaded:
            return self._plans[chosen.key[0]]
        return self._plan_alone(chosen.checkpoint, self._describe(chosen.checkpoint.path, chosen.components))

    @torch.inference_mode(False)  # a refiner is loaded in the middle of a job
    def load(self, options: Options) -> Family:
        """The model that options name, loaded if necessary. On failure the others can still be used.

        Raises UnknownName, or ModelError with one sentence.
        """
        chosen = self.complete(options)
        key = chosen.key
        family = self._loaded.get(key) or self._with_other_vae(chosen) or self._load(chosen)
        with self._lock:
            self._loaded[key] = family
            self._loaded.move_to_end(key)
        self._forget(self._keep + 1)
        return family

    def loaded(self, options: Options) -> Family | None:
        """The model that options name, if it is loaded. Raises UnknownName, ModelError."""
        chosen = self.complete(options)
        wanted = [str(file.path) for file in chosen.files], chosen.edits
        with self._lock:
            return next((family for ((files, edits), vae), family in self._loaded.items() if ([path for path, _ in (*files, *vae)], edits) == wanted), None)

    def release(self) -> None:
        """Drop all models; the next request loads its own again."""
        self._forget(0)

    def make_room(self) -> None:
        """Drop all models except the one used last."""
        self._forget(1)

    def _with_other_vae(self, chosen: Chosen) -> Family | None:
        """A loaded model that differs in its VAE only, switched to this VAE; None if there is none."""
        loaded = next((other for other in reversed(self._loaded) if other[0] == chosen.key[0]), None)
        if loaded is None:
            return None
        family = self._loaded[loaded]
        self._change_vae(family, chosen.checkpoint.path, self._named(family.info, chosen), chosen.components)
        with self._lock:
            del self._loaded[loaded]
        return family

    def _load(self, chosen: Chosen) -> Family:
        checkpoint = chosen.checkpoint
        info = self._describe(checkpoint.path, chosen.components)  # before any other model is dropped, in case this is not a model
        self._plan_alone(checkpoint, info)  # likewise
        wanted = sum(size.whole for size in self._bytes(info).values())
        self._fit(wanted + working_memory(info.native_size**2, self.place.vae_dtype))
        plan = self._plan(checkpoint, info)
        for offload in (plan.offload, "sequential" if self.place.device.type != "cpu" else "none"):
            try:
                family = self._load_files(chosen, info, replace(self.place, offload=offload))
                self._plans[chosen.key[0]] = replace(plan, offload=offload)
                return family
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("%s did not fit", checkpoint.rel)
            self.release()  # by now the failed try's tensors are freed along with its exception
        raise ModelError(f'model "{checkpoint.rel}" does not fit into the memory of {self.place.device} '
                         f"in {str(self.place.dtype).removeprefix('torch.')}")

    def _plan_alone(self, checkpoint: ModelFile, info: ModelInfo) -> MemoryPlan:
        """The plan once all other models are dropped. Raises ModelError."""
        with self._lock:
            held = [self._plans[key[0]] for key in self._loaded]
        return self._plan(checkpoint, info, freed=sum(sum(plan.on_device.values()) for plan in held),
                          freed_main=sum(sum(plan.waiting.values()) for plan in held))

    def _plan(self, checkpoint: ModelFile, info: ModelInfo, freed: int = 0, freed_main: int = 0) -> MemoryPlan:
        """freed: bytes that other models have on the device, and would leave; freed_main: in main memory."""
        free, main = self._free(self.place.device), self._main()
        if self.place.device.type == "cpu":
            freed_main = freed
        working = [working_memory(pixels, self.place.vae_dtype) for pixels in (info.native_size**2, min(TILE, info.native_size)**2)]
        return plan_memory(checkpoint.rel, self._bytes(info), self.place, working=working[0], least=working[1],
                           free=None if free is None else free + freed, main=None if main is None else main + freed_main)

    def _bytes(self, info: ModelInfo) -> dict[str, Bytes]:
        each = {part: self.place.dtype_of(part).itemsize for part in info.sizes}
        return {part: Bytes(size.packed + size.numbers * each[part], size.layer * each[part]) for part, size in info.sizes.items()}

    def _load_files(self, chosen: Chosen, info: ModelInfo, place: Placement) -> Family:
        checkpoint = chosen.checkpoint
        self.tell(0.0)
        start = HASHING if checkpoint.sha256 is None else 0.0
        info = self._named(info, chosen, lambda share: self.tell(start * share))
        family = self._read(checkpoint.path, place, info, components=chosen.components,
                            progress=lambda share: self.tell(start + (1 - start) * share))
        family.compiler = self._compiler
        family.tiny = families.tiny_decoder(self.catalog.root / "VAE-approx", info, place)
        family.approx = families.approx_decoder(self.catalog.root / "VAE-approx", info, place)
        if place.offload != "none":
            family.notes.append(f"{checkpoint.rel} does not fit into the memory of {place.device} as a whole, so "
                                f"{OFFLOADED[place.offload]} is loaded only while it computes.")
        return family

    def _named(self, info: ModelInfo, chosen: Chosen, progress: Share = lambda share: None) -> ModelInfo:
        """The info with the names and hashes of the files."""
        checkpoint, vae = chosen.checkpoint, chosen.vae
        sha256 = self.catalog.sha256(checkpoint, progress)
        encoders = tuple((file.path.name, self.catalog.sha256(file)) for file in chosen.text_encoders)
        info = replace(info, name=checkpoint.stem, hash=sha256[:SHORT], sha256=sha256, vae=None, vae_hash=None, vae_sha256=None,
                       text_encoders=encoders)
        if vae is None:
            return info
        sha256 = self.catalog.sha256(vae)
        return replace(info, vae=vae.path.name, vae_hash=sha256[:SHORT], vae_sha256=sha256)

    def _fit(self, wanted: int) -> None:
        """Drop models, least recently used first, until `wanted` bytes are free."""
        collect(self.place.device)
        while self._loaded:
            free = self._free(self.place.device)
            if free is not None and free >= wanted:
                return
            self._forget(len(self._loaded) - 1)

    def _forget(self, keep: int) -> None:
        with self._lock:
            dropped = len(self._loaded) > keep
            while len(self._loaded) > keep:
                self._loaded.popitem(last=False)
        if dropped:
            collect(self.place.device)


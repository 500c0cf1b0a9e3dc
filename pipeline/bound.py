"""A request bound to what runs it, and its working state while it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.caches import Cache
from pipeline.controlnet.store import ControlNets
from pipeline.conditioning import PromptEncoder
from pipeline.detectors.store import Detectors
from pipeline.embeddings import EmbeddingShelf
from pipeline.families.base import Family
from pipeline.families.cond import Reference
from pipeline.families.controls import Controls
from pipeline.hooks import HookList, Hooks
from pipeline.kept import Kept
from pipeline.networks import Networks
from pipeline.options import MODEL_OPTIONS, Options
from pipeline.originals import Digests
from pipeline.progress import Progress
from pipeline.receipt import Receipts
from pipeline.request import Request
from pipeline.rng import ImageRNG
from pipeline.samplers.sampler import Sampler
from pipeline.styles import StyleDatabase
from pipeline.upscalers.names import NetworkUpscaler, Upscalers
from pipeline.upscaling import Upscaler

BOUND = ("scripts", "progress", "cache", "digests", "networks", "embeddings", "style_database", "load_model", "free_memory", "upscalers",
         "comments", "receipts", "kept", "standing", "control_networks", "detectors")
"""What a variant shares with the original."""


@dataclass(repr=False)
class StableDiffusionProcessing(Request):
    """A request and, once process_images() or init() has run, its working state. Each group says who sets it."""

    sd_model: Family | None = None
    """The model to use; None: the engine's."""

    # --- set by the engine, or by process_images() if nobody did
    scripts: Hooks = field(default_factory=HookList, init=False)
    progress: Progress = field(default_factory=Progress, init=False)
    cache: Cache = field(default_factory=Cache, init=False)
    refiner: Family | None = field(default=None, init=False)
    """The model that refiner_checkpoint names."""
    load_model: Callable[[Options], Family] | None = field(default=None, init=False)
    """Loads the model that options name, for scripts that switch models; None: the model cannot be switched."""
    free_memory: Callable[[torch.device], int | None] | None = field(default=None, init=False)
    """Bytes free on a device; None: unknown."""
    networks: Networks = field(default_factory=Networks, init=False)
    embeddings: EmbeddingShelf = field(default_factory=EmbeddingShelf, init=False)
    control_networks: ControlNets = field(default_factory=ControlNets, init=False)
    detectors: Detectors = field(default_factory=Detectors, init=False)
    upscalers: Upscalers = field(default_factory=Upscalers, init=False)
    style_database: StyleDatabase = field(default_factory=StyleDatabase, init=False)
    receipts: Receipts = field(default_factory=Receipts, init=False)
    """Writes the pictures' receipts; scripts.run() starts it."""
    kept: Kept = field(default_factory=Kept, init=False)
    """The network's answers, for a run that continues this one."""
    digests: Digests = field(default_factory=Digests, init=False)

    # --- set by the constructor
    extra_generation_params: dict[str, Any] = field(default_factory=dict, init=False)
    """Further infotext parameters; stages and hooks add to it."""
    rounds_mask: bool = field(default=True, init=False)
    """mask_round, unless a hook says otherwise."""
    keeps_source: bool = field(default=False, init=False)
    """Whether nothing is sampled, so that the source stays as it is; a hook may set it before init()."""

    # --- set by process_images(), once
    all_prompts: list[str] = field(default_factory=list, init=False)
    all_negative_prompts: list[str] = field(default_factory=list, init=False)
    all_seeds: list[int] = field(default_factory=list, init=False)
    all_subseeds: list[int] = field(default_factory=list, init=False)
    encoder: PromptEncoder | None = field(default=None, init=False)

    # --- set by init()
    sampler: Sampler | None = field(default=None, init=False)
    init_latent: Tensor | None = field(default=None, init=False)
    """(B, C, H/8, W/8), model scale."""
    nmask: Tensor | None = field(default=None, init=False)
    """(C, H/8, W/8), 1 = regenerate."""
    image_conditioning: Tensor | None = field(default=None, init=False)
    """(B, channels, H/8, W/8): what the network sees of the source; zero channels if it sees nothing."""
    references: tuple[Reference, ...] = field(default=(), init=False)
    """reference_images, encoded."""
    read_sources: tuple[Reference, ...] = field(default=(), init=False)
    """init_images, for a text encoder that sees them."""
    mask_for_overlay: Image.Image | None = field(default=None, init=False)
    paste_to: tuple[int, int, int, int] | None = field(default=None, init=False)
    """(x, y, w, h): where the result of an only-masked job belongs in the source."""
    overlay_images: list[Image.Image] = field(default_factory=list, init=False)
    masked_sources: list[tuple[Image.Image, Image.Image]] = field(default_factory=list, init=False)
    """For each of overlay_images: (the source as the network saw it, its mask of the same size)."""
    color_corrections: list[np.ndarray] = field(default_factory=list, init=False)
    """LAB targets, one per picture; those set by a script are kept."""

    controls: Controls | None = field(default=None, init=False)
    """The control pictures that guide the sampling; None: there are none. Set by the script ControlNet."""
    second_pass: bool = field(default=False, init=False)
    """Whether it is the second pass of hires fix; txt2img sets it."""

    # --- set by process_images() for each batch
    iteration: int = field(default=0, init=False)
    prompts: list[str] = field(default_factory=list, init=False)
    negative_prompts: list[str] = field(default_factory=list, init=False)
    seeds: list[int] = field(default_factory=list, init=False)
    subseeds: list[int] = field(default_factory=list, init=False)
    rng: ImageRNG | None = field(default=None, init=False)

    def __post_init__(self, mask_blur: int | None):
        super().__post_init__(mask_blur)
        self.rounds_mask = bool(self.mask_round)

    def __reduce__(self) -> tuple:
        """Pickle the request only: the receiver binds it anew."""
        if self.sd_model is not None:
            raise TypeError("a request that brings its model cannot be sent; it may name one in override_settings")
        return unpickled, (type(self), self.arguments(), self.standing, self.comments)

    @property
    def models(self) -> list[Family]:
        """The request's model, and its refiner if it has one."""
        return [self.sd_model] if self.refiner is None else [self.sd_model, self.refiner]

    def at_work(self, **changes: Any) -> Self:
        """This request in the middle of its run with some fields and working state changed; the rest is shared with it."""
        other = object.__new__(type(self))
        vars(other).update(vars(self) | changes)
        return other

    def infotext_params(self, index: int) -> dict[str, Any]:
        """extra_generation_params for picture `index` of the running batch."""
        return self.extra_generation_params

    @property
    def upscaler(self) -> Upscaler | None:
        """The upscaler for sources that are smaller than the picture; None: Lanczos."""
        name = self.options.upscaler_for_img2img
        return None if name is None else self.find_upscaler(name, "upscaler_for_img2img")

    def find_upscaler(self, name: object, field: str) -> Upscaler | None:
        """The upscaler of that name, recorded in receipts if it is a network. Raises InvalidRequest naming `field`, ModelError."""
        found = self.upscalers.find(name, field, self.options, lambda done, tiles: self.progress.enlarging(done, tiles))
        if isinstance(found, NetworkUpscaler):
            self.receipts.use("upscaler", found.name, self.upscalers.sha256(found.name))
        return found

    def say(self, *sentences: str) -> None:
        """Add sentences for the person who asked, each only once."""
        self.comments += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.comments]

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments that recreate this request."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.init} | {"mask": self.image_mask}

    def variant(self, **changes: Any) -> Self:
        """The same request with some fields changed: bound like this one, without its working state.

        `override_settings` are merged into the existing ones. Raises InvalidRequest as the constructor does.
        """
        return self.variant_as(type(self), **changes)

    def variant_as(self, kind: type, **changes: Any) -> Any:
        """The same as a request of another kind, which takes the fields that it has."""
        changes["override_settings"] = self.override_settings | changes.get("override_settings", {})
        known = {spec.name for spec in fields(kind) if spec.init}
        other = kind(**{name: value for name, value in self.arguments().items() if name in known} | changes)
        for name in BOUND:
            setattr(other, name, getattr(self, name))
        other.extra_generation_params = dict(self.extra_generation_params)
        if any(getattr(other.options, name) != getattr(self.options, name) for name in MODEL_OPTIONS):
            other.sd_model = None
        return other


def unpickled(kind: type[Request], values: dict[str, Any], standing: Options, comments: list[str]) -> Request:
    request = kind(**values)
    request.standing, request.comments = standing, comments
    return request

"""Prepares a source picture and its mask for the network: the stages of init() that touch pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.caches import Cache
from pipeline.errors import InvalidRequest
from pipeline.families.base import Family
from pipeline.families.cond import Reference
from pipeline.geometry import Size
from pipeline.images import LANCZOS, color_target, cut_out, flatten, resize_image, to_tensor
from pipeline.masking import MaskPlan, fill, latent_masks, plan_mask
from pipeline.options import EDITS
from pipeline.originals import digest
from pipeline.upscaling import Upscaler

WHITE = "#ffffff"
"""Behind transparent parts of a reference picture."""


@dataclass(frozen=True)
class Source:
    """One source picture, ready to be encoded."""

    image: Image.Image
    """RGB."""
    digest: str
    """Of `image`."""
    overlay: Image.Image | None = None
    """The unmasked part of the picture as RGBA, put back over the result."""
    mask_for_overlay: Image.Image | None = None
    """The plan's mask_for_overlay, at the picture's size."""
    color_target: np.ndarray | None = None


def prepare_source(image: Image.Image, plan: MaskPlan | None, latent_mask: Image.Image | None, *, size: Size,
                   resize_mode: int, masked_content: int, background: str, correct_color: bool,
                   upscaler: Upscaler | None = None) -> Source:
    """Flatten, resize or crop, and fill one source picture; keep its unmasked part for later."""
    image, mask_for_overlay = put_in_place(image, plan, size=size, resize_mode=resize_mode, background=background, upscaler=upscaler)
    overlay = None
    if plan is not None:
        region = plan.crop_region
        overlay = cut_out(image, mask_for_overlay).convert("RGBA")
        if region is not None:
            image = resize_image(2, image.crop(region), *size, upscaler)
        if masked_content != 1:
            if latent_mask.size != image.size:
                raise InvalidRequest("inpainting_fill", "inpainting_fill must be 1 (original) when the source ("
                                     f"{'x'.join(map(str, image.size))} pixels) is not resized to the mask's size ("
                                     f"{'x'.join(map(str, latent_mask.size))}), got {masked_content}")
            image = fill(image, latent_mask)
    return Source(image, digest(image), overlay, mask_for_overlay, color_target(image) if correct_color else None)


def put_in_place(image: Image.Image, plan: MaskPlan | None, *, size: Size, resize_mode: int, background: str,
                 upscaler: Upscaler | None = None) -> tuple[Image.Image, Image.Image | None]:
    """(a source picture flattened and as large as what it is put back over, the mask of what is not put back, at that size)."""
    image = flatten(image, background)
    if (plan is None or plan.crop_region is None) and resize_mode != 3:
        image = resize_image(resize_mode, image, *size, upscaler)
    if plan is None:
        return image, None
    mask = plan.mask_for_overlay
    return image, mask if mask.size == image.size else resize_image(resize_mode, mask, *image.size, upscaler)


def pixels_of(sources: list[Source]) -> Tensor:
    """(N, 3, H, W) in [-1, 1]. Raises InvalidRequest if their sizes differ."""
    sizes = {source.image.size for source in sources}
    if len(sizes) > 1:
        listed = ", ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise InvalidRequest("init_images", f"init_images must all have the same size when they are not resized, got {listed}")
    return torch.stack([to_tensor(source.image) for source in sources])


def encode(model: Family, sources: list[Source], size: Size, *, latent_upscale: bool) -> Tensor:
    """(N, C, height/8, width/8); a latent upscale resizes after encoding, not before."""
    downscale = model.latent_format.downscale
    small = next((source.image for source in sources if min(source.image.size) < downscale), None)
    if small is not None:
        raise InvalidRequest("init_images", f"init_images: with resize_mode 3 (latent upscale) a picture must have at least "
                                            f"{downscale}x{downscale} pixels, got {small.width}x{small.height}")
    latent = model.encode_image(pixels_of(sources))
    if latent_upscale:
        latent = F.interpolate(latent, size=(size.height // downscale, size.width // downscale), mode="bilinear")
    return latent


def mask_tensor(plan: MaskPlan | None, *, round: bool) -> Tensor | None:
    """The pixel mask for inpainting checkpoints: (1, 1, H, W), 1 = regenerate."""
    if plan is None:
        return None
    values = np.asarray(plan.image_mask.convert("L")).astype(np.float32) / 255.0
    return torch.from_numpy(np.around(values) if round else values)[None, None]


def encode_reference(model: Family, image: Image.Image) -> Tensor:
    """(1, C, h, w): a reference picture as the network sees it, without the edges that do not fill a cell of the latent."""
    image = flatten(image, WHITE)
    resized, used = model.fit_reference(Size(*image.size))
    if resized != image.size:
        image = image.resize(resized, LANCZOS)
    left, top = (resized.width - used.width) // 2, (resized.height - used.height) // 2
    return model.encode_image(to_tensor(image.crop((left, top, left + used.width, top + used.height)))[None])


def read_by(model: Family, image: Image.Image) -> Tensor | None:
    """(1, 3, h, w) in [-1, 1]: a picture as the model's text encoder sees it; None: that sees none."""
    size = model.fit_read(Size(*image.size))
    return None if size is None else to_tensor(flatten(image, WHITE).resize(size, LANCZOS))[None]


class Stages:
    """The stages above, cached by content. Do not modify their results.

    tiling: whether the model wraps pictures around at their edges.
    """

    def __init__(self, cache: Cache, digest: Callable[[Image.Image], str], model: Family, *, tiling: bool):
        self._cache, self._digest, self._model = cache, digest, model
        autoencoder = model.autoencoder.module
        # networks never change the autoencoder's weights, but its precision may have been widened
        self._autoencoder = ref(autoencoder), next(autoencoder.parameters()).dtype, tiling

    def plan_mask(self, mask: Image.Image, **settings: Any) -> MaskPlan | None:
        return self._cache.get(("mask", self._digest(mask), *settings.items()), lambda: plan_mask(mask, **settings))

    def prepare(self, image: Image.Image, plan: MaskPlan | None, latent_mask: Image.Image | None, **settings: Any) -> Source:
        masks = () if plan is None else (plan.image_mask, plan.mask_for_overlay, latent_mask)
        region = plan and plan.crop_region
        return self._cache.get(("source", self._digest(image), *map(self._digest, masks), region, *settings.items()),
                               lambda: prepare_source(image, plan, latent_mask, **settings))

    def encode(self, sources: list[Source], size: Size, *, latent_upscale: bool) -> Tensor:
        key = ("latent", self._autoencoder, *(source.digest for source in sources), size if latent_upscale else None)
        return self._cache.get(key, lambda: encode(self._model, sources, size, latent_upscale=latent_upscale))

    def references(self, images: list[Image.Image]) -> tuple[Reference, ...]:
        """Raises InvalidRequest if the model takes fewer."""
        info = self._model.info
        most, name = info.references, info.name
        if images and not most and info.may_edit:
            raise InvalidRequest("reference_images", f'reference_images: "{name}" takes no reference pictures, got {len(images)}; '
                                                     f'if it is a model that edits by instruction, set sd_model_kind to "{EDITS}"')
        if images and not most:
            raise InvalidRequest("reference_images", f'reference_images: "{name}" takes no reference pictures, got {len(images)}')
        if len(images) > most:
            raise InvalidRequest("reference_images", f'reference_images: "{name}" takes at most {most} reference pictures, got {len(images)}')
        keys = [("reference", self._autoencoder, self._digest(image)) for image in images]
        return tuple(Reference(key, self._cache.get(key, lambda: encode_reference(self._model, image)), read_by(self._model, image))
                     for key, image in zip(keys, images))

    def read(self, sources: list[Source], latent: Tensor) -> tuple[Reference, ...]:
        """The sources for a text encoder that sees them; none if the model has no such encoder."""
        seen = [(source.digest, read_by(self._model, source.image)) for source in sources]
        return tuple(Reference(digest, latent[:1, :0], read) for digest, read in seen if read is not None)

    def latent_masks(self, mask: Image.Image, latent: Tensor, *, round: bool) -> tuple[Tensor, Tensor]:
        """latent: only its shape matters."""
        key = ("latent masks", self._digest(mask), latent.shape, latent.device, round)
        return self._cache.get(key, lambda: latent_masks(mask, latent, round=round))

    def image_conditioning(self, sources: list[Source], latent: Tensor, plan: MaskPlan | None, *, round: bool,
                           mask_weight: float) -> Tensor:
        """latent: only its shape matters."""
        mask = plan and (self._digest(plan.image_mask), round)
        key = ("image conditioning", self._autoencoder, *(source.digest for source in sources), latent.shape, mask, mask_weight)
        return self._cache.get(key, lambda: self._model.image_conditioning(
            pixels_of(sources), latent, mask_tensor(plan, round=round), mask_weight=mask_weight))

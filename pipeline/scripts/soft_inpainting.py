"""Soft inpainting: a mask's greys blend gradually at each step, and the source is put back where little changed."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from pipeline.hooks import Hooks, MaskBlendArgs, OverlayArgs
from pipeline.images import cut_out, flatten, resize_image, uncrop
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts.arguments import argument

REACH = 2
"""Radius of the filter, in latent cells."""


@dataclass(frozen=True)
class SoftInpainting:
    enabled: bool = argument(False, "Soft inpainting")
    schedule_bias: float = argument(1, "Schedule bias", minimum=0, maximum=8, step=0.1)
    preservation_strength: float = argument(0.5, "Preservation strength", minimum=0, maximum=8, step=0.05)
    transition_contrast_boost: float = argument(4, "Transition contrast boost", minimum=1, maximum=32, step=0.5)
    mask_influence: float = argument(0, "Mask influence", minimum=0, maximum=1, step=0.05)
    difference_threshold: float = argument(0.5, "Difference threshold", minimum=0, maximum=8, step=0.25)
    difference_contrast: float = argument(2, "Difference contrast", minimum=0, maximum=8, step=0.25)


KEYS = {spec.name: f"Soft inpainting {spec.name.replace('_', ' ')}" for spec in fields(SoftInpainting)}
"""Each argument's name in infotext."""


class SoftHooks(Hooks):
    """Soft inpainting for a request, in every run with a mask."""

    def __init__(self, settings: SoftInpainting):
        self.settings = settings
        self.overlays: list[OverlayArgs] = []
        """One per picture of the batch."""

    def process(self, p: StableDiffusionProcessingImg2Img) -> None:
        if p.image_mask is None:
            return
        p.rounds_mask = False
        for name, value in vars(self.settings).items():
            p.extra_generation_params[KEYS[name]] = value

    def on_mask_blend(self, p: StableDiffusionProcessingImg2Img, mba: MaskBlendArgs) -> None:
        if mba.is_final_blend:
            mba.blended_latent = mba.current_latent
            return
        # A1111: for timestep samplers this sigma is the timestep
        share = mba.nmask ** (mba.sigma[0] ** self.settings.schedule_bias * self.settings.preservation_strength)
        mba.blended_latent = blend(mba.init_latent, mba.current_latent, share, self.settings.transition_contrast_boost)

    def post_sample(self, p: StableDiffusionProcessingImg2Img, samples: Tensor) -> None:
        self.overlays = []
        if p.nmask is None:
            return
        changed = (samples - p.init_latent[:len(samples)]).norm(dim=1).float().cpu().numpy()  # (B, h, w)
        half = halfway(p.nmask[0].float().cpu().numpy(), self.settings)
        sources = [whole_source(p, image) for image in p.init_images]
        sources *= len(samples) if len(sources) == 1 else 1
        for index, (distance, source) in enumerate(zip(changed, sources)):
            mask = shown_mask(p, opacity(distance, half, self.settings.difference_contrast), source)
            self.overlays.append(OverlayArgs(index, mask, cut_out(source, mask).convert("RGBA")))

    def postprocess_maskoverlay(self, p: StableDiffusionProcessingImg2Img, oa: OverlayArgs) -> None:
        if oa.index < len(self.overlays):
            oa.mask_for_overlay = self.overlays[oa.index].mask_for_overlay
            oa.overlay_image = self.overlays[oa.index].overlay_image


def blend(init: Tensor, current: Tensor, share: Tensor, contrast: float) -> Tensor:
    """From `init` to `current`, (B, C, h, w), by `share`, (C, h, w) in [0, 1], interpolating magnitudes separately.

    The latent vectors' magnitudes are averaged in the power of `contrast`, which favours the larger one, so that blending does
    not blur.
    """
    mixed = init * (1 - share) + current * share
    # powers overflow float32; without float64, as on Apple's GPUs, use magnitudes relative to the larger one
    precision = torch.float64 if init.device.type in ("cpu", "cuda") else torch.float32
    length, *lengths = (latent.norm(dim=1, keepdim=True).to(precision) for latent in (mixed, init, current))
    largest = 1.0 if precision == torch.float64 else torch.maximum(*lengths).clamp(min=0.00001)
    init_power, power = ((length / largest) ** contrast for length in lengths)
    wanted = largest * (init_power * (1 - share[:1]) + power * share[:1]) ** (1 / contrast)
    length = length + 0.00001
    return mixed * (wanted / length).to(mixed.dtype)


# --- what is put back -----------------------------------------------------------------------------------------------

def whole_source(p: StableDiffusionProcessingImg2Img, image: Image.Image) -> Image.Image:
    """A source as in the result: RGBA, opaque, resized unless only a part of it is processed."""
    image = flatten(image, p.options.img2img_background_color)
    if p.paste_to is None and p.resize_mode != 3:
        image = resize_image(p.resize_mode, image, p.width, p.height, p.upscaler)
    return image.convert("RGBA")


def halfway(nmask: np.ndarray, settings: SoftInpainting) -> np.ndarray:
    """The difference at which half of the source shows, (h, w)."""
    kept = 1 - np.clip(nmask, 0, 1) ** np.float32(settings.preservation_strength / 2)
    kept = 0.5 * (1 - settings.mask_influence) + kept * settings.mask_influence
    return settings.difference_threshold * (kept / (1.00001 - kept))


def opacity(distance: np.ndarray, half: np.ndarray, contrast: float) -> np.ndarray:
    """How much of the result shows, (h, w) in [0, 1], for latents at this distance."""
    distance = weighted_percentiles(weighted_percentiles(distance, 0.9, 1.0), 0.25, 0.75)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        share = 1 / (1 + np.nan_to_num(distance / half, nan=0.0) ** contrast)
    return 1 - (6 * share**5 - 15 * share**4 + 10 * share**3)


def shown_mask(p: StableDiffusionProcessingImg2Img, shown: np.ndarray, source: Image.Image) -> Image.Image:
    """The mask over a source, 255 = show the result; `shown`: (h, w) in [0, 1], in latent cells."""
    mask = resize_image(2, Image.fromarray((255.0 * shown).astype(np.uint8)), p.width, p.height).convert("L")
    mask = mask.filter(ImageFilter.GaussianBlur(4))
    return mask if p.paste_to is None else uncrop(mask, source.size, p.paste_to, p.upscaler)


def weighted_percentiles(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The weighted mean around each cell of (h, w), using only values between two percentiles.

    Nearer cells weigh more. The percentiles span at least one whole weight.
    """
    weights, around = neighbourhood(values)  # (h, w, n) each
    order = np.argsort(around, axis=-1, kind="stable")
    weights, around = np.take_along_axis(weights, order, -1), np.take_along_axis(around, order, -1)
    ends = np.cumsum(weights, axis=-1)
    start, end = window(ends[..., -1], low, high)
    shares = np.clip(np.minimum(ends, end[..., None]) - np.maximum(ends - weights, start[..., None]), 0, None)
    return (around * shares).sum(axis=-1) / shares.sum(axis=-1)


def window(total: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """(start, end) of the weights that count, out of a `total` above 1; they span at least 1."""
    start, end = total * low, total * high
    narrow = end - start < 1
    middle = np.clip((start + end) / 2, 0.5, total - 0.5)
    return np.where(narrow, middle - 0.5, start), np.where(narrow, middle + 0.5, end)


def neighbourhood(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(weights, values) at and around each cell of (h, w), both (h, w, n); beyond the edge the weight is 0."""
    offsets = range(-REACH, REACH + 1)
    height, width = values.shape
    padded = np.pad(values.astype(np.float64), REACH)
    inside = np.pad(np.ones_like(values, dtype=np.float64), REACH)
    weights, around = [], []
    for y in offsets:
        for x in offsets:
            rows, columns = slice(REACH + y, REACH + y + height), slice(REACH + x, REACH + x + width)
            weights.append(inside[rows, columns] * weight(x * x + y * y))
            around.append(padded[rows, columns])
    return np.stack(weights, axis=-1), np.stack(around, axis=-1)


def weight(squared_distance: float) -> float:
    """A Gaussian, truncated and shifted to reach 0 one cell beyond the neighbourhood."""
    end = np.exp(-((REACH + 1) ** 2) / 2.25)
    return max(0.0, (np.exp(-squared_distance / 2.25) - end) / (1 - end))

"""ControlNet: its units as hooks, which turn each unit's picture into the map that its network sees."""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.controlnet.fitting import fitted
from pipeline.controlnet.preprocessors import NONE, RESIZE_MODES, Annotate, Preprocessor, find_preprocessor, needed, no_networks, pixel_perfect, preprocess, shown
from pipeline.controlnet.units import FIELD, LATENT_UPSCALE, NO_MODEL, TITLE, Unit, Units, infotext_key, told, union_kind
from pipeline.errors import InvalidRequest, ModelError
from pipeline.families.controls import ColorFix, Control, ControlNetwork, Controls, Correction, Restore
from pipeline.geometry import Box, Size
from pipeline.hooks import Hooks, OverlayArgs
from pipeline.images import cut_out, flatten, resize_image
from pipeline.masking import soft_mask
from pipeline.models import ModelFile
from pipeline.processing import StableDiffusionProcessingImg2Img as Processing

WHITE = "#ffffff"
"""Shows through where a control picture is transparent, as in the extension."""
SEAM = 7
"""Pixels by which what inpaint_only paints spreads and fades."""


@dataclass(frozen=True)
class Prepared:
    """A unit's map, and how it came about."""

    control: np.ndarray
    """(h, w, 3 or 4) uint8, at the size of the result."""
    preprocessor: Preprocessor
    """The one that made it, which is not always the unit's."""


@dataclass
class ControlHooks(Hooks):
    """ControlNet for a request, in every run of it."""

    units: Units
    _maps: dict[int, Image.Image] = field(default_factory=dict)
    """By the unit's index: its map in the last pass in which it acted."""
    _networks: dict[int, ControlNetwork] = field(default_factory=dict)
    """By the unit's index."""
    _encoders: dict[int, ModelFile] = field(default_factory=dict)
    """The readers of pictures that IP-Adapters need, by the unit's index."""
    _size: Size | None = None
    """Of the pass that the controls were made for."""
    _kept: Image.Image | None = None
    """What inpaint_only puts back over a result, RGBA."""

    @property
    def maps(self) -> list[Image.Image]:
        """The maps of the latest run, to be returned with its pictures."""
        return [self._maps[index] for index in sorted(self._maps)]

    def process(self, p: Processing) -> None:
        p.say(*self.units.notes)
        self._maps = {}
        for index, unit in self._enabled():
            if unit.model == NO_MODEL:
                raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", unit {index}: choose a model; "None" guides nothing')
            file = p.control_networks.find(unit.model)
            self._networks[index] = p.control_networks.load(file, p.sd_model.placement)
            p.receipts.use("ControlNet", file.stem, p.control_networks.sha256(file))
            self._check(index, unit, p)
            p.extra_generation_params[infotext_key(index)] = told(unit)

    def process_before_every_sampling(self, p: Processing, *, x: Tensor, noise: Tensor, c: object, uc: object) -> None:
        cell = p.sd_model.latent_format.downscale
        size = Size(x.shape[-1] * cell, x.shape[-2] * cell)
        if p.controls is not None and self._size == size:  # a later batch of the same run
            return
        self._size = size
        controls, corrections, self._kept = [], [], None
        for index, unit in self._enabled():
            if not unit.acts(hires=getattr(p, "enable_hr", False), second_pass=p.second_pass):
                continue
            try:
                prepared = prepare(unit.for_network(self._networks[index]), p, size)
            except InvalidRequest as error:
                raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", unit {index}: {error}') from None
            if unit.save_detected_map:
                self._maps[index] = shown(prepared.control)
            hint = as_hint(prepared.control).to(x.device)
            if index in self._encoders:
                hint = p.control_networks.features(self._encoders[index], self._networks[index], hint, p.sd_model.placement)
            controls.append(control_of(unit, self._networks[index], hint, size))
            corrections += corrections_of(unit, prepared.preprocessor, hint, p)
            if prepared.preprocessor.name == "inpaint_only":
                self._kept = kept_over(prepared.control)
        p.controls = Controls(controls, corrections)

    def postprocess_maskoverlay(self, p: Processing, oa: OverlayArgs) -> None:
        if self._kept is not None and oa.overlay_image is None:
            oa.overlay_image = self._kept

    def _check(self, index: int, unit: Unit, p: Processing) -> None:
        """Find what a unit needs besides its network, before anything is computed. Raises InvalidRequest, ModelError."""
        network = self._networks[index]
        try:
            unit.for_network(network)
        except InvalidRequest as error:
            raise InvalidRequest(FIELD, f'{FIELD} of "{TITLE}", unit {index}: {error}') from None
        if unit.preprocessor.annotators:
            annotator = p.control_networks.find_annotator(unit.preprocessor)
            if annotator is None:
                raise ModelError(f'preprocessor "{unit.preprocessor.label}": {needed(unit.preprocessor)}')
            p.receipts.use("annotator", annotator.stem, p.control_networks.sha256(annotator))
        if network.reads is not None:
            encoder = self._encoders[index] = p.control_networks.find_encoder(network)
            p.receipts.use("CLIP vision", encoder.stem, p.control_networks.sha256(encoder))

    def _enabled(self) -> list[tuple[int, Unit]]:
        return [(index, unit) for index, unit in enumerate(self.units.units) if unit.enabled]


# --- a unit's map

def prepare(unit: Unit, p: Processing, size: Size) -> Prepared:
    """The map for a unit, of that size. Raises InvalidRequest."""
    unit = unit.settled()
    preprocessor, mode = unit.preprocessor, unit.resize_mode
    picture, mask = own_picture(unit)
    if picture is None:
        picture, mode = source_of(p), from_number(p.resize_mode)
    if preprocessor.of_ip_adapters:
        return Prepared(map_of(unit, preprocessor, picture, None, size, mode, 0), preprocessor)
    if mask is not None and not preprocessor.takes_mask:
        # extension: a mask drawn on the picture is itself the map, such as a scribble
        picture, mask, preprocessor = mask.convert("RGB"), None, find_preprocessor(NONE)
    if preprocessor.takes_mask and mask is None and p.image_mask is not None and p.image_mask.size == picture.size:
        mask, mode = mask_of(p), from_number(p.resize_mode)
    if p.image_mask is not None and p.paste_to is not None and unit.inpaint_crop_input_image:
        picture, mask = (None if image is None else cropped(image, p, mode, size) for image in (picture, mask))
    if preprocessor.takes_mask and p.image_mask is not None:
        # extension: the request's own mask blends already, so the control network does not
        preprocessor = find_preprocessor("inpaint")
    return Prepared(map_of(unit, preprocessor, picture, mask, size, mode, seed_of(p), p.control_networks.annotate), preprocessor)


def map_of(unit: Unit, preprocessor: Preprocessor, picture: Image.Image, mask: Image.Image | None, size: Size, mode: str, seed: int,
           annotate: Annotate = no_networks) -> np.ndarray:
    """What a preprocessor makes of a picture with a unit's settings, at the size of the result: (h, w, 3 or 4) uint8."""
    pixels = np.asarray(picture)
    if preprocessor.takes_mask:
        pixels = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8) if mask is None else np.asarray(mask)])
    resolution = pixel_perfect(pixels, size, mode) if unit.pixel_perfect else unit.processor_res
    settings = replace(preprocessor.settings(-1, unit.threshold_a, unit.threshold_b, seed), resolution=max(resolution, 1))
    control = preprocess(preprocessor, pixels, settings, annotate)
    return control if preprocessor.of_ip_adapters else fitted(control, size, mode)


def own_picture(unit: Unit) -> tuple[Image.Image | None, Image.Image | None]:
    """(a unit's picture, its mask); a mask that is all black or all white says nothing. Raises InvalidRequest."""
    if unit.image is None:
        return None, None
    mask = None if unit.mask is None else unit.mask.convert("L")
    if mask is not None and mask.size != unit.image.size:
        raise InvalidRequest("mask", f"mask: it must have the image's size, {unit.image.width}x{unit.image.height}, got {mask.width}x{mask.height}")
    if mask is not None and mask.getextrema() in ((0, 0), (255, 255)):
        mask = None
    return flatten(unit.image, WHITE), mask


def source_of(p: Processing) -> Image.Image:
    """The picture that is edited, for units without one of their own. Raises InvalidRequest."""
    if not p.init_images:
        raise InvalidRequest("image", "image is missing: without a source picture, a unit needs a control picture")
    return flatten(p.init_images[0], WHITE)


def mask_of(p: Processing) -> Image.Image:
    """The request's mask as it acts."""
    return soft_mask(p.image_mask, round=p.rounds_mask, invert=bool(p.inpainting_mask_invert), blur=(p.mask_blur_x, p.mask_blur_y))


def from_number(resize_mode: int) -> str:
    return RESIZE_MODES[0 if resize_mode == LATENT_UPSCALE else resize_mode]


def cropped(image: Image.Image, p: Processing, mode: str, size: Size) -> Image.Image:
    """The part of a control picture that lies where only the masked area is processed, at the size of the result."""
    x, y, width, height = p.paste_to
    whole = resize_image(RESIZE_MODES.index(mode), image, *p.image_mask.size)
    return resize_image(2, whole.crop(Box(x, y, x + width, y + height)), *size).convert(image.mode)


def seed_of(p: Processing) -> int:
    """The seed for preprocessors that draw random numbers."""
    # extension: the sum of both seeds; a random one counts as the first picture's seed
    seed = p.seed[0] if isinstance(p.seed, list) else p.seed
    return sum(p.all_seeds[0] if one == -1 else max(int(one), 0) for one in (seed, p.subseed))


def as_hint(control: np.ndarray) -> Tensor:
    """A map as (1, 3 or 4, h, w) in [0, 1]."""
    return torch.from_numpy(control.astype(np.float32) / 255.0).permute(2, 0, 1)[None].contiguous()


# --- how it acts

def control_of(unit: Unit, network: ControlNetwork, hint: Tensor, size: Size) -> Control:
    region = None
    if unit.effective_region_mask is not None:
        mask = unit.effective_region_mask.convert("L").resize(size, Image.Resampling.BILINEAR)
        region = torch.from_numpy(np.asarray(mask).astype(np.float32) / 255.0)[None, None].to(hint.device)
    kind = union_kind(unit, network.types) if network.union else None
    return Control(network, hint, unit.weight, unit.guidance_start, unit.guidance_end, unit.control_mode, unit.advanced_weighting, region, kind)


def corrections_of(unit: Unit, preprocessor: Preprocessor, hint: Tensor, p: Processing) -> list[Correction]:
    """What the preprocessor asks of the x0 estimates, besides the network's guidance."""
    settings = preprocessor.settings(-1, unit.threshold_a, unit.threshold_b)
    if preprocessor.name in ("tile_colorfix", "tile_colorfix+sharp"):
        sharpness = settings.b * 0.01 if preprocessor.name.endswith("sharp") else 0.0
        return [ColorFix(latent_of(hint, p), int(settings.a), unit.weight, sharpness)]
    if preprocessor.name == "inpaint_only":
        cell = p.sd_model.latent_format.downscale
        mask = F.max_pool2d(hint[:, 3:], cell + 2, stride=cell, padding=1)
        return [Restore(latent_of(hint, p), mask, unit.weight)]
    return []


def latent_of(hint: Tensor, p: Processing) -> Tensor:
    return p.sd_model.encode_image(hint[:, :3] * 2.0 - 1.0)


def kept_over(control: np.ndarray) -> Image.Image:
    """A control picture as what is put back over a result: opaque where its mask does not paint, fading towards it."""
    mask = (control[..., 3] > 127).astype(np.float32)
    mask = cv2.blur(cv2.dilate(mask, np.ones((SEAM, SEAM), np.uint8)), (SEAM, SEAM))
    return cut_out(Image.fromarray(control[..., :3]), Image.fromarray((mask * 255).round().astype(np.uint8))).convert("RGBA")

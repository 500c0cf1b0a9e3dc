"""Preprocessors: a picture → the map that a control network was trained on, such as its edges.

Each is a function of the picture and its settings, and a row in PREPROCESSORS, under the extension's names. Pictures are RGB,
(h, w, 3) uint8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from PIL import Image

from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.geometry import Size
from pipeline.models import ModelFile

Picture = np.ndarray
RESIZE_MODES = ("Just Resize", "Crop and Resize", "Resize and Fill")
CLIP_SIDE = 224
"""Pixels of the square that CLIP sees of an IP-Adapter's picture."""
BLOCK = 64
"""Pixels; preprocessors see pictures whose sides are multiples of it."""
MOST_SEEN = 64_000_000
"""Pixels: a narrow picture may be enlarged to more."""


@dataclass(frozen=True)
class Slider:
    """A setting, with its range."""

    label: str
    minimum: float
    maximum: float
    value: float
    """The default."""
    step: float = 0.01
    visible: bool = True
    """False: the preprocessor has no such setting."""

    def settled(self, value: float) -> float:
        """The value, or the default for one out of range; -1 is how requests leave it out."""
        return value if self.minimum <= value <= self.maximum else self.value


RESOLUTION = Slider("Resolution", 64, 2048, 512, 8)
FIXED = Slider("Resolution", 64, 2048, 512, 8, visible=False)
UNUSED = Slider("", 0, 1, 0.5, visible=False)


@dataclass(frozen=True)
class Settings:
    """A preprocessor's settings."""

    resolution: int = 512
    """The shorter side in pixels at which it sees the picture."""
    a: float = UNUSED.value
    b: float = UNUSED.value
    seed: int = 0
    """For those that draw random numbers."""


@dataclass(frozen=True)
class Preprocessor:
    """A preprocessor, as the extension lists it."""

    name: str
    run: Callable[[Picture, Settings], Picture]
    tags: tuple[str, ...] = ()
    """The control types that list it."""
    alias: str = ""
    """The name shown, if it differs."""
    resolution: Slider = FIXED
    a: Slider = UNUSED
    b: Slider = UNUSED
    priority: int = 0
    """Higher ones come earlier; at 100 it is its control type's default."""
    takes_mask: bool = False
    """Whether the picture's fourth channel is a mask, 255 where the network paints."""
    of_ip_adapters: bool = False
    """Whether its map is what an IP-Adapter's encoder sees, whatever the result's size."""
    annotators: tuple[str, ...] = ()
    """The kinds of network in models/annotators that can do its work; none: it needs no network."""
    aliases: tuple[str, ...] = ()
    """Further names that are understood."""
    parts: tuple[str, ...] = ()
    """Of people those that a network draws."""

    @property
    def label(self) -> str:
        return self.alias or self.name

    @property
    def sliders(self) -> list[Slider]:
        """Those with an effect."""
        return [slider for slider in (self.resolution, self.a, self.b) if slider.visible]

    def settings(self, resolution: int = -1, a: float = -1, b: float = -1, seed: int = 0) -> Settings:
        """Settings in range; values out of range become the defaults, as in the extension."""
        return Settings(int(self.resolution.settled(resolution)), self.a.settled(a), self.b.settled(b), seed)


# --- sizes

def seen_at(picture: Picture, resolution: int) -> tuple[Picture, Size]:
    """(the picture with its shorter side at `resolution`, extended to multiples of BLOCK by its edge pixels; its size before that).

    Raises InvalidRequest for a picture too narrow to be enlarged that far.
    """
    height, width = picture.shape[:2]
    scale = resolution / min(height, width)
    size = Size(round(width * scale), round(height * scale))
    if size.width * size.height > MOST_SEEN:
        raise InvalidRequest("image", f"image: {width}x{height} pixels are too narrow for a preprocessor at a resolution of {resolution}")
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    pad = [[0, -size.height % BLOCK], [0, -size.width % BLOCK], [0, 0]]
    return np.pad(resized, pad, mode="edge"), size


def resized(picture: Picture, resolution: int) -> Picture:
    """The picture with its shorter side at `resolution`."""
    padded, size = seen_at(picture, resolution)
    return within(padded, size)


def within(padded: Picture, size: Size) -> Picture:
    """The part of that size at the upper left."""
    return np.ascontiguousarray(padded[:size.height, :size.width])


def pixel_perfect(picture: Picture, target: Size, resize_mode: str) -> int:
    """The resolution at which nothing has to be resized afterwards, for a result of that size."""
    height, width = picture.shape[:2]
    scales = target.height / height, target.width / width
    scale = min(scales) if resize_mode == "Resize and Fill" else max(scales)
    return int(np.round(scale * min(height, width)))


def in_rgb(result: Picture) -> Picture:
    """A map of one channel as RGB; others as they are."""
    return np.repeat(result[..., None], 3, axis=2) if result.ndim == 2 else result


# --- the preprocessors

def unchanged(picture: Picture, settings: Settings) -> Picture:
    return picture


def invert(picture: Picture, settings: Settings) -> Picture:
    return 255 - picture


def canny(picture: Picture, settings: Settings) -> Picture:
    """Edges of one pixel, by Canny (1986)."""
    seen, size = seen_at(picture, settings.resolution)
    return within(cv2.Canny(seen, int(settings.a), int(settings.b)), size)


def threshold(picture: Picture, settings: Settings) -> Picture:
    """White where all three channels are above the threshold."""
    seen, size = seen_at(picture, settings.resolution)
    return within(np.where(seen.min(axis=2) > settings.a, 255, 0).astype(np.uint8), size)


def blur_gaussian(picture: Picture, settings: Settings) -> Picture:
    return cv2.GaussianBlur(resized(picture, settings.resolution), (0, 0), settings.a)


def scribble_xdog(picture: Picture, settings: Settings) -> Picture:
    """Lines, by a difference of Gaussians (Winnemöller, 2011)."""
    seen, size = seen_at(picture, settings.resolution)
    fine, coarse = (cv2.GaussianBlur(seen.astype(np.float32), (0, 0), sigma) for sigma in (0.5, 5.0))
    light = (255 - (coarse - fine).min(axis=2)).clip(0, 255).astype(np.uint8)
    # extension: twice the darkness, in 8 bits, so darkness from 128 on wraps around to 0
    darkness = (255 - light) * np.uint8(2)
    return within(np.where(darkness > settings.a, 255, 0).astype(np.uint8), size)


def lineart_standard(picture: Picture, settings: Settings) -> Picture:
    """What is darker than its surroundings, scaled so that a typical line is grey."""
    seen, size = seen_at(picture, settings.resolution)
    values = seen.astype(np.float32)
    lines = (cv2.GaussianBlur(values, (0, 0), 6.0) - values).min(axis=2).clip(0, 255)
    strong = lines[lines > 8]
    typical = max(16.0, float(np.median(strong))) if strong.size else 16.0
    return within((lines / typical * 127).clip(0, 255).astype(np.uint8), size)


def tile_resample(picture: Picture, settings: Settings) -> Picture:
    """The picture, smaller by a factor."""
    if settings.a < 1.1:
        return picture
    height, width = picture.shape[:2]
    return cv2.resize(picture, (max(int(width / settings.a), 1), max(int(height / settings.a), 1)), interpolation=cv2.INTER_AREA)


def shuffle(picture: Picture, settings: Settings) -> Picture:
    """The picture's colours, moved along a random smooth field."""
    seen = resized(picture, settings.resolution)
    height, width = seen.shape[:2]
    random = np.random.RandomState(settings.seed & 0xFFFFFFFF)
    x = smooth_noise(random, height, width) * np.float64(width - 1)
    y = smooth_noise(random, height, width) * np.float64(height - 1)
    return cv2.remap(seen, np.dstack([x, y]).astype(np.float32), None, cv2.INTER_LINEAR)


def smooth_noise(random: np.random.RandomState, height: int, width: int, grain: int = 256) -> np.ndarray:
    """(h, w), from 0 to 1. grain: pixels between random values."""
    coarse = random.uniform(0, 1, (height // grain + 2, width // grain + 2, 1))
    noise = cv2.resize(coarse, (width + 2 * grain, height + 2 * grain), interpolation=cv2.INTER_CUBIC)
    noise = noise[grain:grain + height, grain:grain + width]
    noise = noise - noise.min()
    return noise / max(noise.max(), 1e-12)


def recolor_luminance(picture: Picture, settings: Settings) -> Picture:
    # extension: takes RGB for BGR, so red and blue count the other way around
    return gamma_corrected(cv2.cvtColor(picture, cv2.COLOR_BGR2LAB)[..., 0], settings.a)


def recolor_intensity(picture: Picture, settings: Settings) -> Picture:
    return gamma_corrected(picture.max(axis=2), settings.a)


def gamma_corrected(values: np.ndarray, gamma: float) -> np.ndarray:
    return ((values.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)


def color_grid(picture: Picture, settings: Settings) -> Picture:
    """Squares of BLOCK pixels in the picture's colours; the result is a square."""
    cells, side = settings.resolution // BLOCK, settings.resolution
    return cv2.resize(cv2.resize(picture, (cells, cells), interpolation=cv2.INTER_CUBIC), (side, side),
                      interpolation=cv2.INTER_NEAREST)


def seen_by_clip(picture: Picture, settings: Settings) -> Picture:
    """The middle of the picture, a square of CLIP_SIDE pixels."""
    height, width = picture.shape[:2]
    # CLIP's own preparation: the longer side is rounded down
    size = (CLIP_SIDE if width <= height else int(CLIP_SIDE * width / height), CLIP_SIDE if height <= width else int(CLIP_SIDE * height / width))
    if max(size) * CLIP_SIDE > MOST_SEEN:
        raise InvalidRequest("image", f"image: {width}x{height} pixels are too narrow for CLIP")
    seen = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - CLIP_SIDE) // 2, (size[1] - CLIP_SIDE) // 2
    return np.asarray(seen.crop((left, top, left + CLIP_SIDE, top + CLIP_SIDE)))


def by_a_network(picture: Picture, settings: Settings) -> Picture:
    """The picture, as a network in models/annotators then sees it."""
    return resized(picture, settings.resolution)


GAMMA = Slider("Gamma Correction", 0.1, 2.0, 1.0, 0.001)
VARIATION = Slider("Variation", 3.0, 32.0, 8.0, 1.0)
NONE = "none"
AUTO = "ip-adapter-auto"
PREPROCESSORS = {one.name: one for one in (
    Preprocessor(NONE, unchanged, priority=10, resolution=RESOLUTION),
    Preprocessor("canny", canny, ("Canny",), resolution=RESOLUTION, a=Slider("Low Threshold", 1, 255, 100, 1),
                 b=Slider("High Threshold", 1, 255, 200, 1), priority=100),
    Preprocessor("invert", invert, ("Canny", "Lineart", "Scribble", "MLSD"), "invert (from white bg & black line)", priority=20),
    Preprocessor("blur_gaussian", blur_gaussian, ("Tile",), resolution=RESOLUTION, a=Slider("Sigma", 0.01, 64.0, 9.0)),
    Preprocessor("scribble_xdog", scribble_xdog, ("Scribble",), resolution=RESOLUTION, a=Slider("XDoG Threshold", 1, 64, 32)),
    Preprocessor("shuffle", shuffle, ("Shuffle",), priority=100),
    Preprocessor("inpaint", unchanged, ("Inpaint",), "inpaint_global_harmonious", takes_mask=True),
    Preprocessor("inpaint_only", unchanged, ("Inpaint",), priority=100, takes_mask=True),
    Preprocessor("lineart_standard", lineart_standard, ("Lineart",), "lineart_standard (from white bg & black line)", priority=100),
    Preprocessor("recolor_intensity", recolor_intensity, ("Recolor",), a=GAMMA),
    Preprocessor("recolor_luminance", recolor_luminance, ("Recolor",), a=GAMMA, priority=100),
    Preprocessor("color", color_grid, ("T2I-Adapter",), "t2ia_color_grid", resolution=RESOLUTION),
    Preprocessor("threshold", threshold, resolution=RESOLUTION, a=Slider("Binarization Threshold", 0, 255, 127, 1)),
    Preprocessor("tile_colorfix", unchanged, ("Tile",), a=VARIATION),
    Preprocessor("tile_colorfix+sharp", unchanged, ("Tile",), a=VARIATION, b=Slider("Sharpness", 0.0, 2.0, 1.0)),
    Preprocessor(AUTO, seen_by_clip, ("IP-Adapter",), priority=1000, of_ip_adapters=True),
    Preprocessor("ip-adapter_clip_sd15", seen_by_clip, ("IP-Adapter",), "ip-adapter_clip_h", priority=100, of_ip_adapters=True,
                 aliases=("CLIP-ViT-H (IPAdapter)",)),
    Preprocessor("ip-adapter_clip_sdxl", seen_by_clip, ("IP-Adapter",), "ip-adapter_clip_g", of_ip_adapters=True,
                 aliases=("CLIP-ViT-bigG (IPAdapter)", "CLIP-G (IPAdapter)")),
    Preprocessor("ip-adapter_clip_sdxl_plus_vith", seen_by_clip, ("IP-Adapter",), of_ip_adapters=True),
    Preprocessor("depth", by_a_network, ("Depth",), "depth_midas", resolution=RESOLUTION, priority=100, annotators=("dpt",)),
    Preprocessor("depth_anything", by_a_network, ("Depth",), annotators=("depth_anything",), aliases=("depth_anything_v2",)),
    Preprocessor("segmentation", by_a_network, ("Segmentation",), "seg_ufade20k", resolution=RESOLUTION, annotators=("upernet", "segformer"),
                 aliases=("seg_ofade20k", "oneformer_ade20k")),
    *(Preprocessor(name, by_a_network, ("OpenPose",), resolution=resolution, priority=priority, annotators=("vitpose",), parts=parts, aliases=aliases)
      for name, parts, resolution, priority, aliases in (
          ("openpose", ("body",), RESOLUTION, 0, ()), ("openpose_hand", ("body", "hands"), FIXED, 0, ()), ("openpose_face", ("body", "face"), FIXED, 0, ()),
          ("openpose_faceonly", ("face",), FIXED, 0, ()), ("openpose_full", ("body", "hands", "face"), RESOLUTION, 100, ("dw_openpose_full",)))),
    Preprocessor("tile_resample", tile_resample, ("Tile",), a=Slider("Down Sampling Rate", 1.0, 8.0, 1.0), priority=100),
)}
"""By name."""
BY_LABEL = {name: one for one in PREPROCESSORS.values() for name in (one.label, *one.aliases)} | PREPROCESSORS | {"None": PREPROCESSORS[NONE]}


def find_preprocessor(name: str, field: str = "module") -> Preprocessor:
    """The preprocessor of that name or alias. Raises UnknownName."""
    if not isinstance(name, str) or name not in BY_LABEL:
        raise UnknownName(field, "preprocessor", name, [one.label for one in in_order()])
    return BY_LABEL[name]


def in_order() -> list[Preprocessor]:
    """All of them as the extension's menu orders them: none first, then by priority and name, both falling."""
    others = [one for one in PREPROCESSORS.values() if one.name != NONE]
    return [PREPROCESSORS[NONE], *sorted(others, key=lambda one: (one.priority, one.label), reverse=True)]


Annotate = Callable[[Preprocessor, Picture], Picture]
"""What a network in models/annotators makes of a picture, for a preprocessor. Raises ModelError if there is none."""


class Annotators(Protocol):
    """The networks in models/annotators."""

    annotate: Annotate

    def find(self, preprocessor: Preprocessor) -> ModelFile | None:
        """The one that does a preprocessor's work; None: there is none."""


NETWORKS = {"dpt": "DPT, such as Intel/dpt-large", "depth_anything": "Depth Anything, such as depth-anything/Depth-Anything-V2-Small-hf",
            "vitpose": "ViTPose, such as usyd-community/vitpose-base-simple",
            "upernet": "UperNet or SegFormer for ADE20K, such as openmmlab/upernet-convnext-small"}
"""What does a preprocessor's work, by the first of its kinds."""


def needed(preprocessor: Preprocessor) -> str:
    """What a preprocessor needs, for a sentence."""
    return f"put the folder of {NETWORKS[preprocessor.annotators[0]]} from the Hugging Face Hub, into models/annotators"


def no_networks(preprocessor: Preprocessor, picture: Picture) -> Picture:
    """An Annotate for where there are none. Raises ModelError."""
    raise ModelError(f'preprocessor "{preprocessor.label}": {needed(preprocessor)}')


def preprocess(preprocessor: Preprocessor, picture: Picture, settings: Settings, annotate: Annotate = no_networks) -> Picture:
    """The map of a picture: RGB, with the mask as a fourth channel if the preprocessor takes one. Raises InvalidRequest, ModelError."""
    result = preprocessor.run(np.ascontiguousarray(picture), settings)
    return in_rgb(annotate(preprocessor, result) if preprocessor.annotators else result)


def shown(control: Picture) -> Image.Image:
    """A map as a picture; where its mask says to paint, it is half transparent."""
    if control.shape[2] == 4:
        control = np.dstack([control[..., :3], 255 - control[..., 3] // 2])
    return Image.fromarray(control)

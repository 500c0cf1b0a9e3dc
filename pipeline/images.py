"""Pictures as A1111 handles them: resizing, flattening, overlays, colour correction, PIL to tensor and back."""

import math

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.geometry import Box, Size
from pipeline.upscaling import Upscaler, upscale

LANCZOS = Image.Resampling.LANCZOS
MAX_PIXELS = 100_000_000
"""Limit for an intermediate size; above it, only the part that will be kept is resized."""


def resize_image(mode: int, image: Image.Image, width: int, height: int, upscaler: Upscaler | None = None) -> Image.Image:
    """`image` at width x height. Modes: 0 stretch, 1 crop the excess, anything else fit inside and fill the rest.

    Mode 0 keeps the image's PIL mode; the others give RGB, even for an L mask. upscaler: used for enlarging; None: Lanczos.
    """
    if mode == 0:
        return stretched(image, width, height, upscaler)
    ratio, source_ratio = width / height, image.width / image.height
    inner_width, inner_height = inner_size(mode, Size(*image.size), width, height)
    canvas = Image.new("RGB", (width, height))
    if inner_width * inner_height > MAX_PIXELS:  # such as a one-pixel line resized to a square
        canvas.paste(middle_resized(image, width, height))
        return canvas
    inner = stretched(image, max(inner_width, 1), max(inner_height, 1), upscaler)
    canvas.paste(inner, box=(width // 2 - inner_width // 2, height // 2 - inner_height // 2))
    if mode != 1 and ratio != source_ratio:
        fill_bands(canvas, inner.convert("RGB"), vertical=ratio < source_ratio)
    return canvas


def inner_size(mode: int, image: Size, width: int, height: int) -> Size:
    """The size to which resize_image() scales a picture, proportions kept, before it is cropped or padded to width x height."""
    wider = width / height > image.width / image.height
    equal = width / height == image.width / image.height
    if mode == 1:
        return Size(width if wider else image.width * height // image.height, image.height * width // image.width if wider else height)
    return Size(image.width * height // image.height if wider or equal else width,
                height if wider or equal else image.height * width // image.width)


def used_part(mode: int, image: Size, width: int, height: int) -> Box:
    """The part of a picture of that size that resize_image() keeps, to whole pixels."""
    left, top, right, bottom = resized_area(mode, image, width, height)
    return Box(max(round(left), 0), max(round(top), 0), min(round(right), image.width), min(round(bottom), image.height))


def resized_area(mode: int, image: Size, width: int, height: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what resize_image() makes width x height, in a picture's pixels: beyond it where bands are filled."""
    if mode not in (1, 2):
        return 0.0, 0.0, float(image.width), float(image.height)
    inner = inner_size(mode, image, width, height)
    left, top = inner.width // 2 - width // 2, inner.height // 2 - height // 2
    x, y = image.width / max(inner.width, 1), image.height / max(inner.height, 1)
    return left * x, top * y, (left + width) * x, (top + height) * y


def stretched(image: Image.Image, width: int, height: int, upscaler: Upscaler | None) -> Image.Image:
    """`image` at width x height, ignoring its aspect ratio; enlarged by the upscaler if there is one."""
    scale = max(width / image.width, height / image.height)
    fits = image.width * image.height * scale**2 <= MAX_PIXELS
    if upscaler is not None and image.mode != "L" and scale > 1 and fits:
        # A1111: the upscaler's result has sides that are multiples of 8, so it is resized once more
        image = upscale(image, scale, upscaler)
        if image.size == (width, height):
            return image
    return image.resize((width, height), resample=LANCZOS)


def middle_resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """The largest centred part with the aspect ratio of width x height, resized to it."""
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = (left, top, min(left + width * scale, image.width), min(top + height * scale, image.height))
    return image.resize((width, height), resample=LANCZOS, box=box)


def fill_bands(canvas: Image.Image, inner: Image.Image, *, vertical: bool) -> None:
    """Fill the bands above and below, or left and right of, a centred `inner` in `canvas`, in place."""
    pixels = np.asarray(inner).astype(np.float64)  # (h, w, 3)
    lines = pixels if vertical else pixels.swapaxes(0, 1)
    depth, extent = (canvas.height, inner.height) if vertical else (canvas.width, inner.width)
    thickness = depth // 2 - extent // 2
    if thickness <= 0:
        return
    second = min(1, len(lines) - 1)
    for edge, inside, start in ((lines[0], lines[second], 0), (lines[-1], lines[-1 - second], thickness + extent)):
        band = np.tile(beyond_edge(edge, inside), (thickness, 1, 1))
        if vertical:
            canvas.paste(Image.fromarray(band), (0, start))
        else:
            canvas.paste(Image.fromarray(band.swapaxes(0, 1).copy()), (start, 0))


def beyond_edge(edge: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The line of pixels, (n, 3) uint8, that continues a picture beyond its `edge` line."""
    # A1111: not the edge repeated, but bicubic resampling of a zero-width box at the edge
    return np.clip(np.floor(1.125 * edge - 0.125 * inside + 0.5), 0, 255).astype(np.uint8)


def flatten(image: Image.Image, background: str) -> Image.Image:
    """`image` as RGB, its transparent parts over the colour `background` ("#rrggbb")."""
    if image.mode == "RGBA":
        canvas = Image.new("RGBA", image.size, background)
        canvas.paste(image, mask=image)
        image = canvas
    return image.convert("RGB")


def cut_out(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` as premultiplied RGBa, opaque where `mask` is 0 and clear where it is 255."""
    canvas = Image.new("RGBa", image.size)
    canvas.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    return canvas


def apply_overlay(image: Image.Image, paste_to: tuple[int, int, int, int] | None, overlay: Image.Image | None,
                  upscaler: Upscaler | None = None) -> Image.Image:
    """`image` under the RGBA `overlay`: where that is opaque, its pixels are kept exactly.

    paste_to (x, y, w, h) is where an only-masked result belongs in the overlay's picture.
    """
    if overlay is None:
        return image
    image = before_overlay(image, paste_to, overlay, upscaler)
    if overlay.size != image.size:  # after a latent upscale; aligned at the upper left
        overlay = overlay.crop((0, 0, *image.size))
    whole = overlay.convert("RGB")
    box = ImageOps.invert(overlay.getchannel("A")).getbbox()  # the part that is not opaque, often small
    if box is not None:
        part = image.crop(box).convert("RGBA")
        part.alpha_composite(overlay.crop(box))
        whole.paste(part.convert("RGB"), box)
    return whole


def before_overlay(image: Image.Image, paste_to: tuple[int, int, int, int] | None, overlay: Image.Image | None,
                   upscaler: Upscaler | None = None) -> Image.Image:
    """What the model drew, at its place in the overlay's picture."""
    return image if overlay is None or paste_to is None else uncrop(image, Size(*overlay.size), paste_to, upscaler)


def uncrop(image: Image.Image, size: Size, paste_to: tuple[int, int, int, int], upscaler: Upscaler | None = None) -> Image.Image:
    """A clear RGBA canvas of `size` with `image` at paste_to (x, y, w, h)."""
    x, y, w, h = paste_to
    canvas = Image.new("RGBA", size)
    canvas.paste(resize_image(1, image, w, h, upscaler), (x, y))
    return canvas


# --- colour correction ---------------------------------------------------------------------------------------------

def color_target(image: Image.Image) -> np.ndarray:
    """What apply_color_correction matches: the picture in uint8 LAB, (H, W, 3)."""
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2LAB)


def apply_color_correction(target: np.ndarray, image: Image.Image) -> Image.Image:
    """`image` with the LAB histograms of `target` and its own luminosity."""
    lab = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2LAB)
    matched = np.stack([match_histogram(lab[..., c], target[..., c]) for c in range(3)], axis=-1)
    return blend_luminosity(cv2.cvtColor(matched, cv2.COLOR_LAB2RGB), np.asarray(image.convert("RGB")))


def match_histogram(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """uint8 `source` with the cumulative histogram of `target`, truncated to uint8."""
    counts = np.bincount(source.ravel(), minlength=256)
    target_values, target_counts = np.unique(target.ravel(), return_counts=True)
    quantiles = np.cumsum(counts) / source.size
    mapped = np.interp(quantiles, np.cumsum(target_counts) / target.size, target_values)
    return mapped[source].astype(np.uint8)


def blend_luminosity(color: np.ndarray, light: np.ndarray) -> Image.Image:
    """The hue and saturation of `color` with the luminosity of `light`; uint8 (H, W, 3). W3C compositing, SetLum."""
    color, light = color / 255.0, light / 255.0
    shifted = color + (luminosity(light) - luminosity(color))
    lum = luminosity(shifted)
    lowest, highest = shifted.min(axis=-1, keepdims=True), shifted.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        raised = np.where(lowest < 0, lum + (shifted - lum) * lum / (lum - lowest), shifted)
        clipped = np.where(highest > 1, lum + (raised - lum) * (1 - lum) / (highest - lum), raised)
    return Image.fromarray((np.clip(clipped, 0, 1) * 255.0).astype(np.uint8))


def luminosity(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb, -1, 0)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]


# --- tensors -------------------------------------------------------------------------------------------------------

def to_tensor(image: Image.Image) -> Tensor:
    """An RGB image as (3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255.0)
    return pixels.permute(2, 0, 1) * 2.0 - 1.0


def to_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] as an RGB image. A1111: truncated, not rounded."""
    return from_levels(to_levels(pixels).cpu())


def to_levels(pixels: Tensor) -> Tensor:
    """(3, H, W) in [-1, 1] as (H, W, 3) from 0 to 255, on the same device."""
    unit = ((pixels.float() + 1.0) / 2.0).clamp(0.0, 1.0)
    return (unit * 255.0).permute(1, 2, 0)


def from_levels(levels: Tensor) -> Image.Image:
    """(H, W, 3) from 0 to 255, on the CPU, as an RGB image."""
    return Image.fromarray(levels.numpy().astype(np.uint8))


def grid_rows(count: int, *, leave_no_gap: bool) -> int:
    """The number of rows that makes a grid of `count` pictures about square."""
    if leave_no_gap:
        return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return max(round(math.sqrt(count)), 1)


def image_grid(images: list[Image.Image], rows: int | None = None, background: str = "#ffffff") -> Image.Image:
    """All images on one sheet, row by row; smaller ones centred in cells of the largest size."""
    rows = min(rows or grid_rows(len(images), leave_no_gap=False), len(images))
    columns = math.ceil(len(images) / rows)
    width, height = max(i.width for i in images), max(i.height for i in images)
    sheet = Image.new("RGB", (columns * width, rows * height), background)
    for index, image in enumerate(images):
        x, y = index % columns * width, index // columns * height
        sheet.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))
    return sheet

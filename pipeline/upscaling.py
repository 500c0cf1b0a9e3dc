"""Upscaling without a diffusion model: by Pillow here, by networks in pipeline/upscalers."""

from collections.abc import Callable

from PIL import Image

from pipeline.geometry import Size

MAX_SIDE = 16384
"""Pixels per side of an enlarged picture."""
Upscaler = Callable[[Image.Image, Size], Image.Image]
"""(picture, requested size) → the enlarged picture, of that size or of the method's own."""


def lanczos(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS)


def nearest(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.NEAREST)


UPSCALERS: dict[str, Upscaler | None] = {"None": None, "Lanczos": lanczos, "Nearest": nearest}
"""Those that need no file, by A1111's names; "None" leaves the picture unchanged."""


def upscale(image: Image.Image, scale: float, upscaler: Upscaler | None) -> Image.Image:
    """`image` times `scale`, sides rounded down to multiples of 8."""
    # A1111: the upscaler's own size first, then Lanczos to the multiple of 8; without the upscaler if that is no larger
    size = Size(int(image.width * scale), int(image.height * scale))
    target = Size(max(size.width // 8 * 8, 8), max(size.height // 8 * 8, 8))
    grows = image.width < target.width or image.height < target.height
    if upscaler is not None and (grows or scale == 1):
        image = upscaler(image, Size(max(size.width, 1), max(size.height, 1)))
    return image if image.size == target else image.resize(target, Image.Resampling.LANCZOS)


def cover(image: Image.Image, size: Size, upscaler: Upscaler | None, *, crop: bool) -> Image.Image:
    """`image` enlarged until it covers `size`; with `crop`, cut to its centre of that size."""
    image = upscale(image, max(size.width / image.width, size.height / image.height), upscaler)
    if not crop:
        return image
    canvas = Image.new("RGB", size)
    canvas.paste(image, (size.width // 2 - image.width // 2, size.height // 2 - image.height // 2))
    return canvas

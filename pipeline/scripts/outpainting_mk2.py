"""Outpainting mk2: the picture grows one side at a time, from noise with its own spectrum and colours."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.matched_noise import matched_noise
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.arguments import argument, notice
from pipeline.scripts.outpainting import DIRECTIONS, Growth, framed, growth
from pipeline.scripts.passes import Made, collect, finished, pictures, quiet


@dataclass(frozen=True)
class OutpaintingMk2:
    notice: str = notice("Works best with many steps (80 to 100), Euler a and a denoising strength of 0.8.")
    pixels: int = argument(128, "Pixels to expand", minimum=8, maximum=256, step=8)
    mask_blur: int = argument(8, "Mask blur", minimum=0, maximum=64, step=1)
    directions: tuple[str, ...] = argument(DIRECTIONS, "Outpainting direction", choices=DIRECTIONS)
    exponent: float = argument(1.0, "Fall-off exponent (lower=higher detail)", minimum=0.0, maximum=4.0, step=0.01)
    color_variation: float = argument(0.05, "Color variation", minimum=0.0, maximum=1.0, step=0.01)

    def blur(self, side: str, other: str) -> int:
        """The blur along an axis, 0 if neither of its sides grows."""
        return self.mask_blur if side in self.directions or other in self.directions else 0


def run(p: StableDiffusionProcessingImg2Img, args: OutpaintingMk2) -> Processed:
    """batch_size x n_iter larger pictures."""
    source = p.init_images[0]
    sides = [side for side in sides_of(growth(Size(*source.size), args.pixels, args.directions)) if side.pixels > 0]
    blur = args.blur("left", "right"), args.blur("up", "down")
    base = quiet(p, inpaint_full_res=False, inpainting_fill=1, n_iter=1, mask_blur_x=4 * blur[0], mask_blur_y=4 * blur[1])
    p.progress.begin(len(sides) * p.n_iter)
    made: list[Made] = []
    first = None
    for _ in range(p.n_iter):
        images, by = [source] * p.batch_size, None
        for side in sides:
            images, done = expand(base, images, side, blur, args)
            by = by or done
            if p.progress.stopped:
                break
        first = first or by
        made += [finished(p, image, by, first) for image in images]
        if p.progress.stopped:
            break
    # A1111: if n_rows asks for the batch size, that counts as 1
    return collect(p, made, first, grid=True, rows=1 if p.standing.n_rows == 0 else None)


@dataclass(frozen=True)
class Side:
    """A side to grow at."""

    pixels: int
    horizontal: bool
    first: bool
    """Left or upper."""

    def pick(self, horizontal: int, vertical: int) -> tuple[int, int]:
        """The value of the side's own axis, as (x, y), with 0 on the other."""
        return (horizontal, 0) if self.horizontal else (0, vertical)


def sides_of(grown: Growth) -> Iterator[Side]:
    yield Side(grown.left, True, True)
    yield Side(grown.right, True, False)
    yield Side(grown.up, False, True)
    yield Side(grown.down, False, False)


def expand(p: StableDiffusionProcessingImg2Img, images: list[Image.Image], side: Side, blur: tuple[int, int],
           args: OutpaintingMk2) -> tuple[list[Image.Image], Processed]:
    """(the pictures, all of one size, grown at one side; the run that did it)."""
    grow_x, grow_y = side.pick(side.pixels, side.pixels)
    size = Size(images[0].width + grow_x, images[0].height + grow_y)
    canvas = Size(math.ceil(size.width / 64) * 64, math.ceil(size.height / 64) * 64)
    mask = framed("RGB", canvas, kept(canvas, size, side, blur))
    noised = []
    for image in images:
        wide = Image.new("RGB", canvas)
        wide.paste(image, (grow_x, grow_y) if side.first else (0, 0))
        noised.append(fill_with_noise(wide, mask, args))
    part = Size(min(p.width, size.width), canvas.height) if side.horizontal else Size(canvas.width, min(p.height, size.height))
    x, y = (0, 0) if side.first else (canvas.width - part.width, canvas.height - part.height)
    region = Box(x, y, x + part.width, y + part.height)
    latent_mask = framed("RGB", part, kept(part, size, side, (2 * blur[0], 2 * blur[1])))
    done = process_images(p.variant(init_images=[image.crop(region) for image in noised], mask=mask.crop(region),
                                    latent_mask=latent_mask, width=part.width, height=part.height))
    for image, output in zip(noised, pictures(done)):
        drawn = output.image
        image.paste(drawn, (0, 0) if side.first else (canvas.width - drawn.width, canvas.height - drawn.height))
    return [image.crop((0, 0, *size)) for image in noised], done


def kept(mask: Size, size: Size, side: Side, blur: tuple[int, int]) -> Box:
    """The part of a mask that stays: everything except the added pixels and the blur at the growing side."""
    inset_x, inset_y = side.pick(side.pixels + blur[0], side.pixels + blur[1])
    if side.first:
        return Box(inset_x, inset_y, *size)
    # A1111: after a growing side the box is measured from the mask's edge; otherwise it ends with the picture
    return Box(0, 0, mask.width - inset_x if inset_x else size.width, mask.height - inset_y if inset_y else size.height)


# --- noise that looks like the picture ------------------------------------------------------------------------------

def fill_with_noise(image: Image.Image, mask: Image.Image, args: OutpaintingMk2) -> Image.Image:
    """An RGB picture with matched noise where the mask (RGB, same size) is white."""
    pixels, hole = (np.asarray(picture) / 255.0 for picture in (image, mask))
    noised = matched_noise(pixels, hole, args.exponent, args.color_variation)
    return Image.fromarray(np.clip(noised * 255.0, 0.0, 255.0).astype(np.uint8))

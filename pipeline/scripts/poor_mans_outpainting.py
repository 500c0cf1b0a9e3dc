"""Poor man's outpainting: the picture on a larger canvas, whose new parts are inpainted tile by tile."""

from dataclasses import dataclass

from PIL import Image

from pipeline.geometry import Box, Size
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.arguments import argument
from pipeline.scripts.outpainting import DIRECTIONS, Growth, framed, growth
from pipeline.scripts.passes import collect, finished, pictures, quiet
from pipeline.tiles import combine, split, tile_boxes

CONTENTS = ("fill", "original", "latent noise", "latent nothing")
"""By the numbers of inpainting_fill."""


@dataclass(frozen=True)
class PoorMansOutpainting:
    pixels: int = argument(128, "Pixels to expand", minimum=8, maximum=256, step=8)
    mask_blur: int = argument(4, "Mask blur", minimum=0, maximum=64, step=1)
    masked_content: str = argument("fill", "Masked content", choices=CONTENTS)
    directions: tuple[str, ...] = argument(DIRECTIONS, "Outpainting direction", choices=DIRECTIONS)


def run(p: StableDiffusionProcessingImg2Img, args: PoorMansOutpainting) -> Processed:
    """One larger picture."""
    source = p.init_images[0]
    grown = growth(Size(*source.size), args.pixels, args.directions)
    canvas = Image.new("RGB", grown.target)
    canvas.paste(source, (grown.left, grown.up))
    boxes = tile_boxes(grown.target, p.size, args.pixels)
    mask, latent_mask = (framed("L", grown.target, kept(grown, blur)) for blur in (2 * args.mask_blur, args.mask_blur // 2))
    tiles, masks, latent_masks = (split(picture, boxes) for picture in (canvas, mask, latent_mask))
    work = [index for index, box in enumerate(box for row in boxes for box in row) if not inside(box, kept(grown, 0))]
    base = quiet(p, inpaint_full_res=False, inpainting_fill=CONTENTS.index(args.masked_content), batch_size=1, n_iter=1,
                 mask_blur=2 * args.mask_blur, init_images=[source])
    p.progress.begin(len(work))
    first, seed = None, p.seed
    for index in work:
        done = process_images(base.variant(seed=seed, init_images=[tiles[index]], mask=masks[index],
                                           latent_mask=latent_masks[index]))
        first, seed = first or done, done.seed + 1
        if pictures(done):
            tiles[index] = pictures(done)[0].image
        if p.progress.stopped:
            break
    whole = combine(tiles, boxes, grown.target, args.pixels)
    return collect(p, [finished(p, whole, first, first)], first)


def kept(grown: Growth, blur: int) -> Box:
    """The part of the canvas that stays: the picture minus the blur at each growing side."""
    left, right, up, down = (pixels + blur if pixels else 0 for pixels in (grown.left, grown.right, grown.up, grown.down))
    return Box(left, up, grown.target.width - right, grown.target.height - down)


def inside(box: Box, other: Box) -> bool:
    return box.x1 >= other.x1 and box.y1 >= other.y1 and box.x2 <= other.x2 and box.y2 <= other.y2

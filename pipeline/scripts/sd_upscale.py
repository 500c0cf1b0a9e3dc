"""SD upscale: enlarges the source, then redraws it in tiles of width x height."""

from dataclasses import dataclass

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.geometry import Size
from pipeline.images import flatten
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.arguments import argument, free, notice
from pipeline.scripts.passes import Made, behind_mask, collect, finished, pictures, quiet, seeded
from pipeline.tiles import combine, split, tile_boxes
from pipeline.upscaling import MAX_SIDE, UPSCALERS, Upscaler, upscale



@dataclass(frozen=True)
class SDUpscale:
    notice: str = notice("Enlarges the source by the scale factor and redraws it in tiles of width x height.")
    overlap: int = argument(64, "Tile overlap", minimum=0, maximum=256, step=16)
    upscaler: str | int = free("None", "Upscaler", choices=tuple(UPSCALERS), upscalers=True)
    """A name, or A1111's index."""
    scale_factor: float = argument(2.0, "Scale Factor", minimum=1.0, maximum=4.0, step=0.05)


def run(p: StableDiffusionProcessingImg2Img, args: SDUpscale) -> Processed:
    """n_iter enlarged pictures, each with the next seed."""
    base = seeded(p)
    name = p.upscalers.chosen(args.upscaler, "script_args")
    base.extra_generation_params |= {"SD upscale overlap": args.overlap, "SD upscale upscaler": name}
    picture = enlarge(base, args, p.find_upscaler(name, "script_args"))
    boxes = tile_boxes(Size(*picture.size), base.size, args.overlap)
    tiles = split(picture, boxes)
    groups = [tiles[start:start + p.batch_size] for start in range(0, len(tiles), p.batch_size)]
    p.progress.begin(len(groups) * p.n_iter)
    made: list[Made] = []
    first, seed = None, base.seed
    for iteration in range(p.n_iter):
        done, base = redraw(base, groups, seed + iteration)
        first = first or done[0]
        drawn = [output.image for one in done for output in pictures(one)][:len(tiles)]
        if drawn:
            # tiles that were not redrawn stay as upscaled
            whole = combine(drawn + tiles[len(drawn):], boxes, Size(*picture.size), args.overlap)
            made.append(finished(base, whole, done[0], first))
        if p.progress.stopped:
            break
    return collect(base, made, first)


def enlarge(p: StableDiffusionProcessingImg2Img, args: SDUpscale, upscaler: Upscaler | None) -> Image.Image:
    """The source to cut tiles from: RGB, enlarged by the scale factor if an upscaler is chosen."""
    picture = flatten(p.init_images[0], p.standing.img2img_background_color)
    if upscaler is None:
        # A1111: without an upscaler the scale factor has no effect
        return picture
    if max(picture.size) * args.scale_factor > MAX_SIDE:
        raise InvalidRequest("script_args", f"script_args: {picture.width}x{picture.height} times {args.scale_factor} is more "
                                            f"than {MAX_SIDE} pixels wide or high")
    return upscale(picture, args.scale_factor, upscaler)


def redraw(p: StableDiffusionProcessingImg2Img, groups: list[list[Image.Image]],
           seed: int) -> tuple[list[Processed], StableDiffusionProcessingImg2Img]:
    """(results of the groups of tiles, one batch per group, with consecutive seeds, fewer if stopped but at least one; the
    request for what follows)."""
    done: list[Processed] = []
    for group in groups:
        one = quiet(p, seed=seed, n_iter=1, init_images=group)
        done.append(process_images(one))
        p = behind_mask(p, one)
        if p.progress.stopped:
            break
        # A1111: the seed increments by one per group, however many tiles it holds
        seed = done[-1].seed + 1
    return done, p

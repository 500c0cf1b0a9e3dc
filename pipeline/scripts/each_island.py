"""Each masked area by itself: inpaints the parts of a mask that lie far apart one after the other, each at full size."""

from dataclasses import dataclass

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.finishing import keep
from pipeline.islands import alone, islands
from pipeline.masking import soft_mask
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.passes import Made, collect, pictures, quiet, seeded


@dataclass(frozen=True)
class EachIsland:
    """No arguments: the mask and its padding decide what counts as a part."""


def run(p: StableDiffusionProcessingImg2Img, args: EachIsland) -> Processed:
    """batch_size x n_iter pictures, each after one "Only masked" pass per part, on the result of the pass before.

    All passes of a picture use its seed, as if each part had been painted and run by hand.
    """
    if p.image_mask is None or not p.inpaint_full_res:
        raise InvalidRequest("inpaint_full_res", 'inpaint_full_res: "Each masked area by itself" needs a mask and the area '
                                                 '"Only masked" (1)')
    base = seeded(p)
    if base.subseed_strength:
        base.subseed = base.receipts.seed(base.subseed, "subseed")
    masks = parts_of(p)
    base.extra_generation_params["Masked areas"] = len(masks)
    count = base.batch_size * base.n_iter
    p.progress.begin(len(masks) * count)
    made: list[Made] = []
    first = None
    for number in range(count):
        image, done = base.init_images[number % len(base.init_images)], None
        for mask in masks:
            # as in a batch: with a variation strength only the subseed counts up
            at = {"subseed": base.subseed + number} if base.subseed_strength else {"seed": base.seed + number}
            done = process_images(quiet(base, init_images=[image], mask=mask, batch_size=1, n_iter=1, **at))
            first = first or done
            image = pictures(done)[0].image if pictures(done) else image
            if p.progress.stopped:
                break
        made.append(Made(keep(base, image, done.info, done.seed, "-interrupted" if p.progress.stopped else ""), done))
        if p.progress.stopped:
            break
    return collect(base, made, first, grid=True)


def parts_of(p: StableDiffusionProcessingImg2Img) -> list[Image.Image]:
    """One mask per pass; the whole mask if nothing is far apart."""
    settings = p.mask_settings
    mask = soft_mask(p.image_mask, **{name: settings[name] for name in ("round", "invert", "blur")})
    return list(alone(p.image_mask, islands(mask, settings["padding"]), invert=settings["invert"])) or [p.image_mask]

"""What a request will do with its mask, computed by the pipeline's own functions, for the canvas to show beforehand."""

from dataclasses import dataclass
from enum import Enum
from functools import partial

from PIL import Image, ImageChops

from pipeline.geometry import Box, Size
from pipeline.images import resize_image, used_part
from pipeline.islands import islands
from pipeline.masking import create_binary_mask, expand_crop_region, laid_over, padded, plan_mask, soft_mask
from pipeline.painted import seen
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts import settled_mask

SHOWN = 1024
"""Longest side of a mask that is shown, in pixels."""
MOST_ISLANDS = 16
"""More than these are specks, and nobody wants a pass for each."""


@dataclass(frozen=True)
class Foresight:
    """What will happen; boxes in the picture's pixels."""

    frames: list[Box]
    """The part that is worked on; or, if the mask's parts lie far apart, one for each of them."""
    together: Box | None
    """If there are several frames: what is worked on when they are not run one by one."""
    size: Size
    """Working size of each frame."""
    only_masked: bool
    inverted: bool
    """The mask mode is "Inpaint not masked"."""
    edge: Image.Image | None
    """The mask as it acts (L), cut to `edge_box` and reduced to SHOWN; None: it acts as painted."""
    edge_box: Box | None


def foresee(p: StableDiffusionProcessingImg2Img) -> Foresight:
    """What a request will do with its mask, a single one of the picture's size."""
    settings, picture = settled_mask(p), Size(*p.init_images[0].size)
    size = Size(*(side // 8 * 8 for side in settings["size"]))
    plan = plan_mask(p.image_mask, **settings)
    region = None if plan is None else plan.crop_region
    over = partial(laid_over, picture=picture, resize_mode=settings["resize_mode"], size=settings["size"])
    soft = plan.mask_for_overlay if region is not None else over(soft_mask(
        p.image_mask, **{name: settings[name] for name in ("round", "invert", "blur")}))
    frames, together = [used_part(settings["resize_mode"], picture, *settings["size"])], None
    if region is not None:
        frames = [region]
        apart = islands(soft, settings["padding"])
        if 1 < len(apart) <= MOST_ISLANDS:
            frames = [expand_crop_region(padded(box, settings["padding"], picture), settings["size"], picture) for box in apart]
            together = region
    painted = create_binary_mask(p.image_mask, settings["round"])
    painted = painted if painted.size == picture else over(painted)
    differs = ImageChops.difference(soft, painted).getbbox() is not None
    box = soft.getbbox() if differs else None
    return Foresight(frames, together, size, region is not None, settings["invert"],
                     None if box is None else reduced(soft.crop(box)), None if box is None else Box(*box))


class Fit(Enum):
    """How a mask of other proportions comes to lie over a picture."""

    STRETCHED = "stretched"
    CROPPED = "cropped"
    """Its middle, as the picture's."""
    FILLED = "filled"
    """All of it; its edge is repeated."""


def lying(mask: Image.Image, picture: Size, *, only_masked: bool, resize_mode: int, size: Size) -> tuple[Image.Image, Fit]:
    """(a mask file as Inpaint upload will use it, before it is inverted and blurred: L of the picture's size; by which rule)."""
    mask = seen(mask, *mask.size)
    if only_masked:
        return resize_image(0, mask, *picture), Fit.STRETCHED
    rule = {0: Fit.STRETCHED, 1: Fit.CROPPED}.get(resize_mode, Fit.FILLED)
    return laid_over(mask, picture, resize_mode=resize_mode, size=size), rule


def reduced(mask: Image.Image) -> Image.Image:
    scale = SHOWN / max(mask.size)
    return mask if scale >= 1 else mask.resize([max(round(side * scale), 1) for side in mask.size], Image.Resampling.BOX)

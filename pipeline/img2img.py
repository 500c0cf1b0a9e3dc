"""The page's modes: each turns its tab's content into processing objects and streams their events."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.images import resize_image
from pipeline.job import Event
from pipeline.limits import Client
from pipeline.masking import create_binary_mask
from pipeline.options import number
from pipeline.painted import mend
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.request import NO_PICTURE
from pipeline.scripts import check, greys_used
from pipeline.sketch import inpaint_sketch


class Mode(Enum):
    IMG2IMG = "img2img"
    """The whole picture."""
    SKETCH = "sketch"
    """The whole picture, including what was painted on it."""
    INPAINT = "inpaint"
    """The area of a mask painted in the browser."""
    INPAINT_SKETCH = "inpaint_sketch"
    """The painted area, starting from the paint."""
    INPAINT_UPLOAD = "inpaint_upload"
    """The white area of an uploaded mask."""
    BATCH = "batch"
    """Many files; see pipeline.batch."""


Pair = tuple[Image.Image | None, Image.Image | None]
"""A picture and its mask; None if not given. For INPAINT_SKETCH, the picture and its painted copy."""


def img2img(engine: Engine, mode: Mode, source: Pair, *, job_id: str | None = None, client: Client = Client(),
            heartbeat: float | None = None, pace: float = 0.0, cancels: bool = True, **settings: Any) -> Iterator[Event]:
    """Dispatch on the mode, build the processing object, and stream its events.

    client: for turns and history. heartbeat, pace, cancels: as in Job.events(). `settings`: as in request_of().
    Raises InvalidRequest, before anything is queued.
    """
    p = request_of(mode, source, job_id=job_id, **{"options": engine.options} | settings)
    check(p)
    return engine.submit([p], job_id, client, mode.value).events(heartbeat, pace=pace, cancels=cancels)


def request_of(mode: Mode, source: Pair, *, selected_scale_tab: int = 0, scale_by: float = 1.0, mask_alpha: float = 0.0,
               job_id: str | None = None, **settings: Any) -> StableDiffusionProcessingImg2Img:
    """The request that a mode makes of its source.

    selected_scale_tab 1 takes width and height from the picture times scale_by ("Resize by"). mask_alpha, 0 to 100, is how
    transparent the paint of INPAINT_SKETCH is. `settings` are fields of StableDiffusionProcessingImg2Img; an unknown one is a
    TypeError. Raises InvalidRequest.
    """
    if mode is Mode.INPAINT_SKETCH and None not in source:
        source = inpaint_sketch(*source, transparency=number("mask_alpha", mask_alpha, float, 0, 100),
                                blur=number("mask_blur", settings.get("mask_blur", 4), int, 0, 256))
    notes: list[str] = []
    if mode in (Mode.INPAINT, Mode.INPAINT_UPLOAD) and source[1] is not None:
        source, notes = with_mended_mask(source, settings)
    image, mask = check_source(mode, source, inverted=bool(settings.get("inpainting_mask_invert")))
    if mask is not None and settings.get("inpaint_full_res", True):
        mask = fitted(mask, image)
    if selected_scale_tab == 1:
        scale_by = number("scale_by", scale_by, float, 0.05, 4)
        settings |= {"width": int(image.width * scale_by), "height": int(image.height * scale_by)}
    p = StableDiffusionProcessingImg2Img(init_images=[image], mask=mask, force_task_id=job_id, **settings)
    p.comments += notes
    return p


def check_source(mode: Mode, source: Pair, *, inverted: bool) -> Pair:
    """The picture and mask that a mode works with. Raises InvalidRequest if one is missing."""
    image, mask = source
    if image is None:
        raise InvalidRequest("init_images", NO_PICTURE)
    if mode in (Mode.IMG2IMG, Mode.SKETCH):
        return image, None
    if mask is None and mode is Mode.INPAINT_UPLOAD:
        raise InvalidRequest("mask", "mask: missing; add a picture that is white where the first one should change")
    if mask is None or (not inverted and create_binary_mask(mask).getbbox() is None):
        raise InvalidRequest("mask", "mask: it is all black; it must be white where the picture should change"
                             if mode is Mode.INPAINT_UPLOAD else "mask: it is blank; paint over what should change")
    return image, mask


def with_mended_mask(source: Pair, settings: dict[str, Any]) -> tuple[Pair, list[str]]:
    """(the picture with its mask made to act as it looks, notes on what was changed)."""
    mask, found = mend(source[1], invert=bool(settings.get("inpainting_mask_invert")), greys=greys_count(settings),
                       only_masked=bool(settings.get("inpaint_full_res", True)))
    return (source[0], mask), [surprise.mended for surprise in found]


def greys_count(settings: dict[str, Any]) -> bool:
    """Whether a mask's grey values count as partial masking."""
    return greys_used(settings.get("alwayson_scripts") or {}) or not settings.get("mask_round", True)


def fitted(mask: Image.Image, image: Image.Image) -> Image.Image:
    """An uploaded mask at the picture's size, stretched to cover it."""
    return mask if mask.size == image.size else resize_image(0, mask, *image.size)

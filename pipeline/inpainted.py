"""A saved result of an inpainting: what it was made from, at its size, and the picture that has its seam blended."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.comparing import made_from
from pipeline.geometry import Size
from pipeline.journal import Entry, Journal, Picture
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.saving import save_under
from pipeline.seam import How, Seam, before_blend, blend, measure, told, way_of


@dataclass(frozen=True)
class Inpainted:
    """A result with what it was made from: uint8, (H, W, 3), and (H, W) for the mask, in which 255 is the model's part."""

    result: np.ndarray
    source: np.ndarray
    mask: np.ndarray

    @property
    def seam(self) -> Seam:
        return measure(self.result, self.source, self.mask)


def inpainted(p: StableDiffusionProcessingImg2Img, picture: Picture) -> Inpainted | None:
    """A saved picture of a request with the source and the mask as the request used them. Raises OSError.

    None where the picture is no such result: the request has no mask, or one for each picture, or the picture is a grid, a mask,
    or what a script has made, of which the part outside the mask is not the source's; or a network has enlarged the source.
    """
    if not isinstance(p.image_mask, Image.Image) or len(p.init_images) != 1:
        return None
    with Image.open(picture.path) as image:
        source, mask = made_from(p, Size(*image.size))
        if mask is None or image.mode != "RGB":
            return None
        parts = Inpainted(np.asarray(image), np.asarray(source), np.asarray(mask))
    kept = way_of(picture.infotext) or (parts.result == parts.source)[parts.mask == 0].all()
    return parts if kept else None


def original_of(entry: Entry, picture: Picture) -> Picture | None:
    """The picture of a job that a blended one was made of, where that is still there."""
    text = before_blend(picture.infotext)
    return next((other for other in entry.pictures if other.infotext == text and other.path.exists()), None)


def save_blended(journal: Journal, entry: Entry, picture: Picture, parts: Inpainted, how: How) -> Picture:
    """The picture with its seam blended, saved beside it and entered in its job. Raises OSError.

    One that is there already is not made again. It carries no receipt, as its request alone does not give it.
    """
    blended = blend(parts.result, parts.source, parts.mask, how)
    text = told(picture.infotext, how, blended.outside)
    there = next((other for other in journal.entry(entry.id).pictures if other.infotext == text and other.path.exists()), None)
    if there is not None:
        return there
    image = Image.fromarray(blended.image)
    image.info["parameters"] = text
    with Image.open(picture.path) as before:
        if "exif" in before.info:
            image.info["exif"] = before.info["exif"]
    path = save_under(image, picture.path.parent, stem=f"{picture.path.stem}-blended")
    journal.add(entry.id, path, text)
    return next(other for other in journal.entry(entry.id).pictures if other.path == Path(path).absolute())

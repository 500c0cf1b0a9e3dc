"""Decoded pixels → finished pictures: colours, overlay, infotext, masks, files; and grids of them."""

import logging
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from pipeline.aligning import aligned, in_its_colours
from pipeline.bound import StableDiffusionProcessing
from pipeline.describe import create_infotext
from pipeline.hooks import ImageArgs, OverlayArgs
from pipeline.images import apply_color_correction, apply_overlay, before_overlay, grid_rows, image_grid, resize_image, to_image
from pipeline.options import Options, infotext_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """One picture of a result."""

    image: Image.Image
    infotext: str
    path: str | None


def finish_image(p: StableDiffusionProcessing, pixels: Tensor, index: int) -> list[Output]:
    """Decoded pixels (3, H, W) in [-1, 1] as a finished picture, saved if asked, plus its masks if asked."""
    drawn = ImageArgs(index, to_image(pixels))
    p.scripts.postprocess_image(p, drawn)
    image = drawn.image
    if index < len(p.color_corrections):
        image = apply_color_correction(p.color_corrections[index], image)
    overlay = p.overlay_images[index] if p.options.overlay_inpaint and index < len(p.overlay_images) else None
    shown = OverlayArgs(index, p.mask_for_overlay, overlay)
    p.scripts.postprocess_maskoverlay(p, shown)
    if shown.overlay_image is not None and index < len(p.masked_sources):
        image = fitted(p, image, *p.masked_sources[index])
    place = p.paste_to, shown.overlay_image, p.upscaler
    drawn, image = image, apply_overlay(image, *place)
    text = create_infotext(p, index)
    if p.options.keep_source_exif and (exif := exif_of(p, index)) is not None:
        image.info["exif"] = exif
    outputs = [keep(p, image, text, p.seeds[index], "-interrupted" if p.progress.partial else "")]
    if shown.mask_for_overlay is not None and p.options.return_mask:
        outputs.append(keep(p, shown.mask_for_overlay.convert("RGB"), "", p.seeds[index], "-mask"))
    if shown.mask_for_overlay is not None and p.options.return_mask_composite:
        before = before_overlay(drawn, *place)
        mask = resize_image(2, shown.mask_for_overlay, *before.size).convert("L")
        masked = Image.composite(before.convert("RGBA").convert("RGBa"), Image.new("RGBa", mask.size), mask)
        outputs.append(keep(p, masked.convert("RGBA"), "", p.seeds[index], "-mask-composite"))
    return outputs


def fitted(p: StableDiffusionProcessing, image: Image.Image, source: Image.Image, mask: Image.Image) -> Image.Image:
    """A masked picture, still without its overlay, as it fits the source around the mask: aligned if it is an edit by
    instruction, in the source's colours if asked for.
    """
    if not image.size == source.size == mask.size:  # after a latent upscale
        return image
    if p.edits:
        image, motion = aligned(image, source, mask)
        if motion is not None:
            p.say(f"The edit did not lie on its surroundings, so it was moved: {motion.x:+.1f}, {motion.y:+.1f} pixels, scale {motion.scale:.3f}.")
    if p.options.fit_colors:
        p.extra_generation_params[infotext_name("fit_colors")] = True
        image = in_its_colours(image, source, mask)
    return image


def exif_of(p: StableDiffusionProcessing, index: int) -> bytes | None:
    """The EXIF of the source of the batch's picture `index`."""
    return p.source_exif[index % len(p.source_exif)] if p.source_exif else None


def keep(p: StableDiffusionProcessing, image: Image.Image, text: str, seed: int, suffix: str) -> Output:
    """A picture with its infotext and receipt, saved if asked. suffix: of its file's name."""
    if text:
        image.info["parameters"] = text
    p.receipts.stamp(p, image, seed)
    folder = None if p.do_not_save_samples else p.outpath_samples
    if p.samples_filename is None:
        return Output(image, text, try_to_save(p, image, text, folder, f"{seed}{suffix}"))
    return Output(image, text, try_to_save(p, image, text, folder, f"{p.samples_filename}{suffix}", numbered=False))


def try_to_save(p: StableDiffusionProcessing, image: Image.Image, text: str, folder: str | None, name: str, *,
                numbered: bool = True) -> str | None:
    """The path of the saved picture; None if it is not saved. A full disk is reported, and the job goes on.

    If an earlier try saved this picture, its file is replaced.
    """
    if folder is None:
        return None
    try:
        return p.progress.save(image, text, folder, name, numbered=numbered)
    except OSError as error:
        logger.warning("a picture could not be saved in %s: %s", folder, error)  # visitors must not learn the path
        p.comments.append(f"A picture could not be saved: {error.strerror or type(error).__name__}.")
        return None


def with_grid(p: StableDiffusionProcessing, outputs: list[Output], options: Options,
              rows: int | None = None) -> list[Output]:
    """The pictures, preceded by a grid of all of them if the options ask for one."""
    count = len(outputs)
    if not outputs or not options.return_grid or (count == 1 and options.grid_only_if_multiple):
        return outputs
    if rows is None and options.n_rows >= 0:
        rows = options.n_rows or p.batch
    rows = rows or grid_rows(count, leave_no_gap=options.grid_prevent_empty_spots)
    grid = image_grid([output.image for output in outputs], rows, options.grid_background_color)
    return [keep_grid(p, grid, outputs[0].infotext, "grid"), *outputs]


def keep_grid(p: StableDiffusionProcessing, grid: Image.Image, text: str, name: str) -> Output:
    grid.info["parameters"] = text
    p.receipts.stamp(p, grid)
    return Output(grid, text, try_to_save(p, grid, text, p.outpath_grids, name))

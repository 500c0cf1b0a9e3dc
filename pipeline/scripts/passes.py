"""Runs a request in several passes, and joins their results."""

from dataclasses import dataclass, replace

from PIL import Image

from pipeline.finishing import Output, keep, with_grid
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img


@dataclass(frozen=True)
class Made:
    """One picture of the result."""

    output: Output
    by: Processed
    """The pass it comes from; if it was assembled, the first of its passes."""


def quiet(p: StableDiffusionProcessingImg2Img, **changes) -> StableDiffusionProcessingImg2Img:
    """A variant for passes that make parts of a result: nothing is saved, and there is no grid or mask."""
    return p.variant(do_not_save_samples=True, do_not_save_grid=True,
                     override_settings={"return_mask": False, "return_mask_composite": False}, **changes)


def seeded(p: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """A variant with a known seed, for the passes to count on from."""
    seed = p.seed[0] if isinstance(p.seed, list) else p.seed
    return p.variant(seed=p.receipts.seed(seed))


def behind_mask(p: StableDiffusionProcessingImg2Img, run: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The request for what follows a run.

    A1111: if its mask was blank, "Only masked" stays off for good, so the whole picture is used from then on.
    """
    blank = run.image_mask is not None and run.mask is None
    return p.variant(inpaint_full_res=p.inpaint_full_res and not blank)


def pictures(processed: Processed) -> list[Output]:
    """A pass's pictures, without its grid."""
    outputs = zip(processed.images, processed.infotexts, processed.paths)
    return [Output(*output) for output in outputs][processed.index_of_first_image:]


def finished(p: StableDiffusionProcessingImg2Img, image: Image.Image, by: Processed, first: Processed) -> Made:
    """A picture assembled from passes, saved if asked."""
    # A1111: the first pass's infotext
    return Made(keep(p, image, first.info, by.seed, "-interrupted" if p.progress.stopped else ""), by)


def collect(p: StableDiffusionProcessingImg2Img, made: list[Made], first: Processed, *, grid: bool = False,
            rows: int | None = None) -> Processed:
    """The result of all passes, preceded by a grid if asked for and there are several pictures.

    first: the first pass; it gives the result's values if the job was stopped before there was a picture.
    """
    comments = list(dict.fromkeys(p.comments))
    if not made:
        return replace(first, images=[], infotexts=[first.info], paths=[], index_of_first_image=0, comments=comments)
    outputs = [one.output for one in made]
    # A1111: a request's own options apply only within its passes
    shown = with_grid(p, outputs, p.standing, rows) if grid else outputs
    return Processed(
        images=[output.image for output in shown], infotexts=[output.infotext for output in shown],
        paths=[output.path for output in shown], index_of_first_image=len(shown) - len(outputs),
        all_prompts=[one.by.all_prompts[0] for one in made],
        all_negative_prompts=[one.by.all_negative_prompts[0] for one in made],
        all_seeds=[one.by.seed for one in made], all_subseeds=[one.by.all_subseeds[0] for one in made],
        comments=comments, interrupted=p.progress.stopped,
        extra_generation_params=made[-1].by.extra_generation_params)

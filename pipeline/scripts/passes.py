"""A request that is run in several passes, and the one result that they make."""

from dataclasses import dataclass, replace

from PIL import Image

from pipeline.finishing import Output, keep, with_grid
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img


@dataclass(frozen=True)
class Made:
    """One picture of the result."""

    output: Output
    by: Processed
    """The pass that it is from, or the first of those it is put together from."""


def quiet(p: StableDiffusionProcessingImg2Img, **changes) -> StableDiffusionProcessingImg2Img:
    """A variant for passes whose pictures are parts of the result: nothing is saved, no grid or mask comes with them."""
    return p.variant(do_not_save_samples=True, do_not_save_grid=True,
                     override_settings={"return_mask": False, "return_mask_composite": False}, **changes)


def seeded(p: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """A variant whose seed is known: the passes count on from it."""
    seed = p.seed[0] if isinstance(p.seed, list) else p.seed
    return p.variant(seed=p.receipts.seed(seed))


def behind_mask(p: StableDiffusionProcessingImg2Img, run: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The request as a run leaves it to those that follow.

    A1111: where its mask was blank, "Only masked" is switched off for good, so that from then on the whole picture is kept.
    """
    blank = run.image_mask is not None and run.mask is None
    return p.variant(inpaint_full_res=p.inpaint_full_res and not blank)


def pictures(processed: Processed) -> list[Output]:
    """What a pass gave, its grid left out."""
    outputs = zip(processed.images, processed.infotexts, processed.paths)
    return [Output(*output) for output in outputs][processed.index_of_first_image:]


def finished(p: StableDiffusionProcessingImg2Img, image: Image.Image, by: Processed, first: Processed) -> Made:
    """A picture that was put together from passes, saved if asked."""
    # A1111: the infotext is the very first pass's
    return Made(keep(p, image, first.info, by.seed, "-interrupted" if p.progress.stopped else ""), by)


def collect(p: StableDiffusionProcessingImg2Img, made: list[Made], first: Processed, *, grid: bool = False,
            rows: int | None = None) -> Processed:
    """The result of all passes, with a grid in front where one is wanted and there are several pictures.

    first: the first pass, which speaks for the job where it was stopped before there was a picture.
    """
    comments = list(dict.fromkeys(p.comments))
    if not made:
        return replace(first, images=[], infotexts=[first.info], paths=[], index_of_first_image=0, comments=comments)
    outputs = [one.output for one in made]
    # A1111: a request's own options hold within its passes only
    shown = with_grid(p, outputs, p.standing, rows) if grid else outputs
    return Processed(
        images=[output.image for output in shown], infotexts=[output.infotext for output in shown],
        paths=[output.path for output in shown], index_of_first_image=len(shown) - len(outputs),
        all_prompts=[one.by.all_prompts[0] for one in made],
        all_negative_prompts=[one.by.all_negative_prompts[0] for one in made],
        all_seeds=[one.by.seed for one in made], all_subseeds=[one.by.all_subseeds[0] for one in made],
        comments=comments, interrupted=p.progress.stopped,
        extra_generation_params=made[-1].by.extra_generation_params)

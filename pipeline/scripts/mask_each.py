"""Several pictures with a mask each: every picture is run with its own mask, and the results are joined."""

from pipeline.errors import InvalidRequest
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.passes import Made, collect, pictures


def run(p: StableDiffusionProcessingImg2Img) -> Processed:
    """The result of a request whose image_mask is a list. Seeds and prompts are those of one batch of all its pictures."""
    count = len(p.init_images)
    seed = p.seed if isinstance(p.seed, list) else p.receipts.seed(p.seed, "seed")
    subseed = p.receipts.seed(p.subseed, "subseed") if p.subseed_strength else p.subseed
    p.progress.begin(count * p.n_iter)
    made: list[Made] = []
    first = None
    for number in range(count * p.n_iter):
        at = number % count
        one = p.variant(
            init_images=[p.init_images[at]], mask=p.image_mask[at], source_exif=p.source_exif[at:at + 1], batch_size=1, n_iter=1,
            prompt=of(p.prompt, number, "prompt"), negative_prompt=of(p.negative_prompt, number, "negative_prompt"),
            seed=of(seed, number, "seed") if isinstance(seed, list) else seed + (0 if p.subseed_strength else number),
            subseed=subseed + number if p.subseed_strength else subseed, do_not_save_grid=True)
        done = process_images(one)
        first = first or done
        made += [Made(output, done) for output in pictures(done)]
        if p.progress.stopped:
            break
    return collect(p, made, first, grid=True)


def of(value: object, number: int, name: str) -> object:
    """A picture's entry of a field that may be a list. Raises InvalidRequest if the list is too short."""
    if not isinstance(value, list):
        return value
    if number >= len(value):
        raise InvalidRequest(name, f"{name} must have one value per picture, got only {len(value)}")
    return value[number]

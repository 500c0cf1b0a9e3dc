"""Prompt matrix: all combinations of the parts of a prompt, as one annotated grid."""

import math
from dataclasses import dataclass, replace

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.finishing import keep_grid
from pipeline.geometry import Size
from pipeline.grids import Legend, annotate, unreadable
from pipeline.images import image_grid
from pipeline.options import Options
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.arguments import argument
from pipeline.scripts.passes import seeded

MAX_PARTS = 9
JOINS = {"comma": ", ", "space": " "}


@dataclass(frozen=True)
class PromptMatrix:
    put_at_start: bool = argument(False, "Put variable parts at start of prompt")
    different_seeds: bool = argument(False, "Use different seed for each picture")
    prompt_type: str = argument("positive", "Select prompt", choices=("positive", "negative"))
    delimiter: str = argument("comma", "Select joining char", choices=tuple(JOINS))
    margin: int = argument(0, "Grid margins (px)", minimum=0, maximum=500, step=2)


def run(p: StableDiffusionProcessingImg2Img, args: PromptMatrix) -> Processed:
    """A grid, then a picture for each combination of the prompt's parts, which are separated by "|"."""
    field = "prompt" if args.prompt_type == "positive" else "negative_prompt"
    base, *parts = getattr(p, field).split("|")
    if len(parts) > MAX_PARTS:
        raise InvalidRequest(field, f"{field}: at most {MAX_PARTS} parts can be combined, got {len(parts)}")
    prompts = [combined(base, parts, number, args) for number in range(1 << len(parts))]
    one = seeded(p)
    seeds = [one.seed + (index if args.different_seeds else 0) for index in range(len(prompts))]
    one = one.variant(**{field: prompts}, seed=seeds, n_iter=math.ceil(len(prompts) / p.batch_size), do_not_save_grid=True,
                      override_settings={"return_mask": False, "return_mask_composite": False})
    p.progress.begin(one.n_iter)
    processed = process_images(one)
    if not processed.images:
        return processed
    grid = keep_grid(p, matrix(processed.images, parts, args.margin, p.standing), processed.info, "prompt_matrix")
    return replace(processed, comments=[*processed.comments, *unreadable(legends(parts), p.standing)],
                   images=[grid.image, *processed.images], infotexts=[grid.infotext, *processed.infotexts],
                   paths=[grid.path, *processed.paths], index_of_first_image=1)


def combined(base: str, parts: list[str], number: int, args: PromptMatrix) -> str:
    """The base prompt with the parts whose bits are set in `number`."""
    chosen = [part.strip().strip(",") for bit, part in enumerate(parts) if number >> bit & 1]
    return JOINS[args.delimiter].join([*chosen, base] if args.put_at_start else [base, *chosen])


def matrix(images: list[Image.Image], parts: list[str], margin: int, options: Options) -> Image.Image:
    """The grid: the first half of the parts, rounded up, along the columns; the others along the rows."""
    across = math.ceil(len(parts) / 2)
    grid = image_grid(images, 1 << len(parts) - across, options.grid_background_color)
    return annotate(grid, Size(*images[0].size), legends(parts[:across]), legends(parts[across:]), margin, options)


def legends(parts: list[str]) -> list[Legend]:
    """A legend per combination, with the omitted parts struck through."""
    return [[Legend(part, bool(number >> bit & 1)) for bit, part in enumerate(parts)] for number in range(1 << len(parts))]

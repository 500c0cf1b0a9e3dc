"""Loopback: each picture is the source of the next one, with a denoising strength that changes over the loops."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pipeline.errors import InvalidRequest
from pipeline.images import color_target
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.scripts.arguments import argument
from pipeline.scripts.passes import Made, behind_mask, collect, pictures, seeded

CURVES: dict[str, Callable[[float], float]] = {
    "Aggressive": lambda x: math.sin(x * math.pi / 2),
    "Linear": lambda x: x,
    "Lazy": lambda x: 1 - math.cos(x * math.pi / 2),
}
"""Map the fraction of loops done, 0 to 1, to the fraction of the change."""


@dataclass(frozen=True)
class Loopback:
    loops: int = argument(4, "Loops", minimum=1, maximum=32, step=1)
    final_denoising_strength: float = argument(0.5, "Final denoising strength", minimum=0, maximum=1, step=0.01)
    denoising_curve: str = argument("Linear", "Denoising strength curve", choices=tuple(CURVES))
    append_interrogation: str = argument("None", "Append interrogated prompt at each iteration",
                                         choices=("None", "CLIP", "DeepBooru"))

    def strength(self, start: float, loop: int) -> float:
        """The denoising strength of a loop, counted from 0."""
        if self.loops == 1:
            return start
        share = CURVES[self.denoising_curve](loop / (self.loops - 1))
        return start + (self.final_denoising_strength - start) * share


def run(p: StableDiffusionProcessingImg2Img, args: Loopback) -> Processed:
    """Every loop's picture if there is one batch; with several, the last picture of each."""
    if args.append_interrogation != "None":
        raise InvalidRequest("script_args", f'script_args: "{args.append_interrogation}" cannot describe pictures here; '
                                            'Append interrogated prompt at each iteration must be "None"')
    base = seeded(p)
    base.extra_generation_params = {"Final denoising strength": args.final_denoising_strength,
                                    "Denoising curve": args.denoising_curve}
    if base.standing.img2img_color_correction:
        # A1111: the original source, with its transparent parts and size
        base.color_corrections = [color_target(base.init_images[0])]
    p.progress.begin(args.loops * p.n_iter)
    made: list[Made] = []
    first, seed = None, base.seed
    for _ in range(p.n_iter):
        complete = []
        for base, done in run_batch(base, args, seed):
            first, seed = first or done, done.seed + 1
            if not done.interrupted:
                complete.append(Made(pictures(done)[0], done))
        made += complete if p.n_iter == 1 else complete[-1:]
        if p.progress.stopped:
            break
    if not made:  # stopped in the first loop
        made = [Made(output, first) for output in pictures(first)]
    # A1111: the first loop's infotext is used for all
    made = [replace(one, output=replace(one.output, infotext=first.info)) for one in made]
    return collect(base, made, first, grid=True, rows=1)


def run_batch(p: StableDiffusionProcessingImg2Img, args: Loopback,
              seed: int) -> Iterator[tuple[StableDiffusionProcessingImg2Img, Processed]]:
    """(the request for what follows, result) for each loop of one batch, up to the first unfinished one."""
    source, fill = p.init_images, p.inpainting_fill
    for loop in range(args.loops):
        one = p.variant(seed=seed, batch_size=1, n_iter=1, do_not_save_grid=True, init_images=source, inpainting_fill=fill,
                        denoising_strength=args.strength(p.denoising_strength, loop))
        one.color_corrections = p.color_corrections
        done = process_images(one)
        p = behind(p, one)
        yield p, done
        if done.interrupted:
            return
        # A1111: after the first loop, masked content is the original
        seed, source, fill = done.seed + 1, [done.images[0]], 1


def behind(p: StableDiffusionProcessingImg2Img, loop: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The request for what follows a loop.

    A1111: infotext parameters that the loop recorded, such as its masked content, stay.
    """
    rest = behind_mask(p, loop)
    rest.extra_generation_params, rest.color_corrections = dict(loop.extra_generation_params), p.color_corrections
    return rest

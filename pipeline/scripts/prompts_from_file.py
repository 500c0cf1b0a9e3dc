"""Prompts from file or textbox: one run per line, which is a prompt or sets other fields too."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.processing import Processed, StableDiffusionProcessingImg2Img, process_images
from pipeline.samplers import SAMPLERS
from pipeline.scripts.arguments import argument
from pipeline.scripts.passes import Made, collect, pictures, seeded

PROMPTS = ("prompt", "negative_prompt")


@dataclass(frozen=True)
class PromptsFromFile:
    iterate_seed: bool = argument(False, "Iterate seed every line")
    same_seed: bool = argument(False, "Use same random seed for all lines")
    insert_at: str = argument("start", "Insert prompts at the", choices=("start", "end"))
    text: str = argument("", "List of prompt inputs")


def run(p: StableDiffusionProcessingImg2Img, args: PromptsFromFile) -> Processed:
    """All lines' pictures in order."""
    if args.iterate_seed or args.same_seed:
        p = seeded(p)
    lines = [read_line(line) for line in map(str.strip, args.text.splitlines()) if line]
    if not lines:
        raise InvalidRequest("script_args", "script_args: List of prompt inputs is empty")
    runs = [p.variant(do_not_save_grid=True, **changes(p, line, args, index)) for index, line in enumerate(lines)]
    p.progress.begin(sum(one.n_iter for one in runs))
    made: list[Made] = []
    first = None
    for one in runs:
        done = process_images(one)
        first = first or done
        made += [Made(output, done) for output in pictures(done)]
        if p.progress.stopped:
            break
    return collect(p, made, first)


def changes(p: StableDiffusionProcessingImg2Img, line: dict[str, Any], args: PromptsFromFile, index: int) -> dict[str, Any]:
    """The fields that a line changes, with its prompts joined to the request's."""
    fields = {"seed": p.seed + index * p.batch_size * p.n_iter} if args.iterate_seed else {}
    fields |= line
    for name in PROMPTS:
        both = [line.get(name, ""), getattr(p, name)]
        if all(both):
            fields[name] = " ".join(both if args.insert_at == "start" else reversed(both))
    fields = {name: value for name, value in fields.items() if hasattr(p, name) or value is not False}  # unknown but off: nothing to do
    unknown = next((name for name in fields if not hasattr(p, name)), None)
    if unknown is not None:
        raise InvalidRequest("script_args", f'script_args: a line uses "--{unknown}", which does not exist')
    return fields


# --- a line ---------------------------------------------------------------------------------------------------------

def true(value: str) -> bool:
    return value == "true"


def sampler(value: str) -> str:
    """The sampler's name, given in any case or as an alias."""
    names = {name.lower(): row.name for row in SAMPLERS.values() for name in (row.name, *row.aliases)}
    return names.get(value.lower(), value)


TAGS: dict[str, Callable[[str], Any]] = {
    "seed": int, "subseed": int, "subseed_strength": float, "seed_resize_from_h": int, "seed_resize_from_w": int,
    "sampler_name": sampler, "batch_size": int, "n_iter": int, "steps": int, "cfg_scale": float, "width": int, "height": int,
    "restore_faces": true, "tiling": true, "do_not_save_samples": true, "do_not_save_grid": true,
    "styles": lambda value: [value], "sd_model": str,
    "outpath_samples": str, "outpath_grids": str, "prompt_for_display": str, "sampler_index": int,
}
IGNORED = ("outpath_samples", "outpath_grids", "prompt_for_display", "sampler_index")
"""A prompt must not choose where pictures are saved; the others have no effect in A1111 either."""


def read_line(line: str) -> dict[str, Any]:
    """The fields that a line sets. A line that is not valid options is a prompt as a whole."""
    if "--" not in line:
        return {"prompt": line}
    try:
        fields = read_options(shlex.split(line))
    except ValueError:
        # A1111: an error makes the whole line a prompt
        return {"prompt": line}
    model = fields.pop("sd_model", None)
    if model is not None:
        fields["override_settings"] = {"sd_model_checkpoint": model}
    return {name: value for name, value in fields.items() if name not in IGNORED}


def read_options(words: list[str]) -> dict[str, Any]:
    """`--name value` pairs as fields; a prompt takes all words up to the next name. Raises ValueError."""
    fields: dict[str, Any] = {}
    while words:
        option, *words = words
        name = option.removeprefix("--")
        if not option.startswith("--") or not words or name not in (*PROMPTS, *TAGS):
            raise ValueError(option)
        value, *words = words
        if name in PROMPTS:
            while words and not words[0].startswith("--"):
                value = f"{value} {words.pop(0)}"
            fields[name] = value
        else:
            fields[name] = TAGS[name](value)
    return fields

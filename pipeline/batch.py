"""Batch: the same request for many files, each read when its turn comes."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.infotext import parse, read_from_image
from pipeline.options import number
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.rng import fixed_seed
from pipeline.uploads import open_picture

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
REUSABLE = ("Prompt", "Negative prompt", "Seed", "CFG scale", "Sampler", "Steps", "Model hash")
"""What a file's infotext can bring into its request."""


@dataclass(frozen=True)
class Batch:
    """What to read and where results go."""

    files: Sequence[Path]
    mask_folder: Path | None = None
    """Holds a mask for each file, by its name without the extension, or a single one for all."""
    output_folder: Path | None = None
    """Where results are saved under their file's name; None: as other pictures are."""
    reuse: Collection[str] = ()
    """Of REUSABLE."""
    info_folder: Path | None = None
    """Holds pictures of the files' names whose infotext is taken; None: the files' own."""
    scale_by: float | None = None
    """Times each picture's size; None: the request's width and height."""


def find_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder and those in it, in natural order: 2 before 10."""
    return sorted((file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]


def requests(batch: Batch, settings: dict[str, Any], *,
             has_model: Callable[[str], bool] = lambda name: False) -> Iterator[StableDiffusionProcessingImg2Img]:
    """A request per file, made when it is asked for; all have the same seed.

    `settings` are fields of StableDiffusionProcessingImg2Img. Files that cannot be read, or have no mask, are left out,
    and a comment of the request before or behind says so. Raises InvalidRequest where none is left.
    """
    unknown = set(batch.reuse) - set(REUSABLE)
    if unknown:
        raise InvalidRequest("reuse", f"reuse: {', '.join(sorted(unknown))} cannot be taken; valid: {', '.join(REUSABLE)}")
    settings = settings | {name: fixed_seed(settings.get(name, -1)) for name in ("seed", "subseed")}
    skipped: list[str] = []
    latest = None
    for file in batch.files:
        try:
            latest = request(batch, settings, file, has_model)
        except Unreadable as reason:
            (skipped if latest is None else latest.comments).append(str(reason))
            continue
        latest.comments += skipped
        skipped = []
        yield latest
    if latest is None:
        raise InvalidRequest("init_images", " ".join(["init_images: no file could be used.", *skipped]))


class Unreadable(Exception):
    """A file that the batch goes on without."""


def request(batch: Batch, settings: dict[str, Any], file: Path,
            has_model: Callable[[str], bool]) -> StableDiffusionProcessingImg2Img:
    """The request of one file. Raises Unreadable, and InvalidRequest where the settings themselves are bad."""
    image = read(file)
    fields = {"init_images": [image]}
    if batch.scale_by is not None:
        scale = number("scale_by", batch.scale_by, float, 0.05, 4)
        fields |= {"width": int(image.width * scale), "height": int(image.height * scale)}
    if batch.mask_folder is not None:
        fields["mask"] = read(find_mask(batch.mask_folder, file))
    if batch.output_folder is not None:
        fields |= {"outpath_samples": str(batch.output_folder), "samples_filename": file.stem}
    if batch.reuse:
        source = file if batch.info_folder is None else batch.info_folder / file.name
        fields |= reused(infotext(source), batch.reuse, settings, has_model)
    return StableDiffusionProcessingImg2Img(**settings | fields)


def read(file: Path) -> Image.Image:
    try:
        return open_picture(file, file.name).image
    except InvalidRequest as error:
        raise Unreadable(f"Left out: {error}.") from error


def find_mask(folder: Path, file: Path) -> Path:
    masks = [mask for mask in find_pictures(folder) if mask.parent == folder]
    mine = masks if len(masks) == 1 else [mask for mask in masks if mask.stem == file.stem]
    if not mine:
        raise Unreadable(f"Left out: {file.name} has no mask.")
    return mine[0]


def infotext(file: Path) -> dict[str, str]:
    """The parameters that a picture carries; none where there is no such picture."""
    try:
        with Image.open(file) as image:
            text, _ = read_from_image(image)
    except OSError:
        return {}
    return parse(text) if text else {}


def reused(params: dict[str, str], wanted: Collection[str], settings: dict[str, Any],
           has_model: Callable[[str], bool]) -> dict[str, Any]:
    """The fields that an infotext changes: prompts are added to the request's, the others take their place."""
    params = {key: value for key, value in params.items() if key in wanted}
    fields: dict[str, Any] = {}
    for key, name in (("Prompt", "prompt"), ("Negative prompt", "negative_prompt")):
        if params.get(key):
            fields[name] = f"{settings.get(name, '')} {params[key]}".strip()
    for key, name in (("Seed", "seed"), ("CFG scale", "cfg_scale"), ("Sampler", "sampler_name"), ("Steps", "steps")):
        if key in params:
            fields[name] = params[key]
    if has_model(params.get("Model hash", "")):
        fields["override_settings"] = settings.get("override_settings", {}) | {"sd_model_checkpoint": params["Model hash"]}
    return fields

"""Batch: the same request for many files, each read when its turn comes, and those left out that are done already."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.img2img import Mode, check_source, fitted
from pipeline.infotext import parse
from pipeline.job import Event
from pipeline.journal import Entry, Journal
from pipeline.limits import Client
from pipeline.metadata import read_metadata
from pipeline.options import number
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.rng import fixed_seed
from pipeline.scripts import check
from pipeline.series import Series, Shown
from pipeline.uploads import open_picture

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
REUSABLE = ("Prompt", "Negative prompt", "Seed", "CFG scale", "Sampler", "Steps", "Model hash")
"""What a file's infotext can bring into its request."""


@dataclass(frozen=True)
class Batch:
    """What to read and where results go."""

    files: Sequence[Path]
    masks: Sequence[Path] | None = None
    """One for each file, by its name without the extension, or a single one for all; None: there is no mask."""
    output_folder: Path | None = None
    """Where results are saved under their file's name; None: as other pictures are."""
    reuse: Collection[str] = ()
    """Of REUSABLE."""
    info_folder: Path | None = None
    """Holds pictures of the files' names whose infotext is taken; None: the files' own."""
    scale_by: float | None = None
    """Times each picture's size; None: the request's width and height."""


def run(engine: Engine, batch: Batch, *, selected_scale_tab: int = 0, scale_by: float = 1.0, mask_alpha: float = 0.0,
        resume: bool = True, mine_only: bool = False, job_id: str | None = None, client: Client = Client(),
        has_model: Callable[[str], bool] = lambda name: False, heartbeat: float | None = None, pace: float = 0.0,
        cancels: bool = True, **settings: Any) -> Iterator[Event]:
    """Do a batch as one job and stream its events; the keywords are img2img()'s.

    resume: leave out the files that are done already; mine_only: by this client. Raises InvalidRequest, before anything is
    queued.
    """
    if selected_scale_tab == 1:
        batch = replace(batch, scale_by=scale_by)
    work = series(batch, {"options": engine.options} | settings, has_model=has_model,
                  journal=engine.journal if resume else None, client=client.id if mine_only else None)
    return engine.submit(work, job_id, client, Mode.BATCH.value).events(heartbeat, pace=pace, cancels=cancels)


def find_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder and those in it, in natural order: 2 before 10."""
    return sorted((file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()), key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]


def series(batch: Batch, settings: dict[str, Any], *, has_model: Callable[[str], bool] = lambda name: False,
           journal: Journal | None = None, client: str | None = None) -> Series:
    """A request for each file, all with the same seed.

    `settings` are fields of StableDiffusionProcessingImg2Img. journal: files that it has a finished job of, with its
    pictures where they would go now, are not done again; client: only a job of this one counts. Raises InvalidRequest where
    no file could be done: the settings are bad, or there is no file.
    """
    if not batch.files:
        raise InvalidRequest("init_images", "init_images: there are no files; add pictures, or name a folder that holds some")
    unknown = set(batch.reuse) - set(REUSABLE)
    if unknown:
        raise InvalidRequest("reuse", f"reuse: {', '.join(sorted(unknown))} cannot be taken; valid: {', '.join(REUSABLE)}")
    if batch.scale_by is not None:
        number("scale_by", batch.scale_by, float, 0.05, 4)
    check(StableDiffusionProcessingImg2Img(**settings | {"init_images": [Image.new("RGB", (8, 8))]}))
    random = {name for name in ("seed", "subseed") if settings.get(name, -1) in (-1, None, "")}
    settings = settings | {name: fixed_seed(settings.get(name, -1)) for name in ("seed", "subseed")}
    begun = time.time()

    def make(file: Path) -> StableDiffusionProcessingImg2Img | list[Shown]:
        p = request(batch, settings, file, has_model)
        if journal is None:
            return p
        free = {name for name in random if getattr(p, name) == settings[name]}
        return made_before(journal.done_with(p, besides=free, before=begun, client=client), batch, file) or p

    return Series(batch.files, make, lambda file: file.name)


def request(batch: Batch, settings: dict[str, Any], file: Path,
            has_model: Callable[[str], bool]) -> StableDiffusionProcessingImg2Img:
    """The request of one file. Raises InvalidRequest."""
    image = open_picture(file, file.name).image
    fields: dict[str, Any] = {"init_images": [image]}
    if batch.scale_by is not None:
        fields |= {"width": int(image.width * batch.scale_by), "height": int(image.height * batch.scale_by)}
    if batch.masks is not None:
        mask = find_mask(batch.masks, file)
        fields["mask"] = mask_of(image, open_picture(mask, f"mask {mask.name}").image, settings)
    if batch.output_folder is not None:
        fields |= {"outpath_samples": str(batch.output_folder), "samples_filename": file.stem}
    if batch.reuse:
        source = file if batch.info_folder is None else batch.info_folder / file.name
        fields |= reused(infotext(source), batch.reuse, settings, has_model)
    return StableDiffusionProcessingImg2Img(**settings | fields)


def find_mask(masks: Sequence[Path], file: Path) -> Path:
    mine = masks if len(masks) == 1 else [mask for mask in masks if mask.stem == file.stem]
    if not mine:
        raise InvalidRequest("mask", f"mask: none of the {len(masks)} masks has this file's name")
    return mine[0]


def mask_of(image: Image.Image, mask: Image.Image, settings: dict[str, Any]) -> Image.Image:
    """A mask as the mode Inpaint upload takes it."""
    check_source(Mode.INPAINT_UPLOAD, (image, mask), inverted=bool(settings.get("inpainting_mask_invert")))
    return fitted(mask, image) if settings.get("inpaint_full_res", True) else mask


def made_before(entries: Sequence[Entry], batch: Batch, file: Path) -> list[Shown]:
    """The pictures of the newest job that are all still there, and one of them where it would be saved now; or none."""
    for entry in entries:
        paths = [picture.path for picture in entry.pictures]
        there = all(path.is_file() for path in paths)
        if there and any(batch.output_folder is None or belongs(path, batch.output_folder, file) for path in paths):
            return [(str(picture.path), picture.infotext) for picture in entry.pictures]
    return []


def belongs(path: Path, folder: Path, file: Path) -> bool:
    """Whether a picture lies in the folder under that file's name, with a number behind it or without."""
    return path.parent == folder.absolute() and re.fullmatch(re.escape(file.stem) + r"(-\d+)?", path.stem) is not None


def infotext(file: Path) -> dict[str, str]:
    """The parameters that a picture carries; none where there is no such picture."""
    try:
        text = read_metadata(file, file.name).infotext
    except InvalidRequest:
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

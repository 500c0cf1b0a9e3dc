"""Batch: the same request for many files, each read when its turn comes, skipping files that are already done."""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.img2img import Mode, check_source, fitted, with_mended_mask
from pipeline.infotext import parse
from pipeline.job import Event
from pipeline.journal import Entry
from pipeline.limits import Client
from pipeline.metadata import read_metadata
from pipeline.options import number
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.rng import fixed_seed
from pipeline.scripts import check
from pipeline.series import Series, Shown, Surroundings
from pipeline.uploads import is_picture, open_picture

REUSABLE = ("Prompt", "Negative prompt", "Seed", "CFG scale", "Sampler", "Steps", "Model hash")
"""What a file's infotext may override in its request."""


@dataclass(frozen=True)
class Batch:
    """What to read, and where results go."""

    files: Sequence[Path]
    folder: Path | None = None
    """The root of `files`: they are reported and saved under their paths relative to it; None: under their names alone."""
    masks: Sequence[Path] | None = None
    """One per file, called NAME or NAME_mask, or a single one for all; None: no masks."""
    mask_folder: Path | None = None
    """The root of `masks`, laid out like `folder`; None: they may be anywhere."""
    some_masked: bool = False
    """Files without a mask are processed whole, and a single mask applies only to the file of its name."""
    output_folder: Path | None = None
    """Results are saved here under their file's name; None: like other pictures."""
    reuse: Collection[str] = ()
    """A subset of REUSABLE."""
    info_folder: Path | None = None
    """Pictures of the same names to take infotext from; None: the files themselves."""
    scale_by: float | None = None
    """Factor on each picture's size; None: use the request's width and height."""


def run(engine: Engine, batch: Batch, *, selected_scale_tab: int = 0, scale_by: float = 1.0, mask_alpha: float = 0.0,
        resume: bool = True, mine_only: bool = False, job_id: str | None = None, client: Client = Client(),
        heartbeat: float | None = None, pace: float = 0.0, cancels: bool = True, **settings: Any) -> Iterator[Event]:
    """Run a batch as one job and stream its events; the keywords are img2img()'s.

    resume: skip files that are already done; mine_only: by this client. Raises InvalidRequest before anything is queued.
    """
    if selected_scale_tab == 1:
        batch = replace(batch, scale_by=scale_by)
    work = series(batch, {"options": engine.options} | settings, resume=resume, client=client.id if mine_only else None)
    return engine.submit(work, job_id, client, Mode.BATCH.value).events(heartbeat, pace=pace, cancels=cancels)


def find_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder and its subfolders, in natural order: 2 before 10."""
    return sorted((file for file in folder.rglob("*") if is_picture(file) and file.is_file() and not is_hidden(file, folder)),
                  key=natural)


def is_hidden(file: Path, folder: Path) -> bool:
    """Whether it lies in a hidden folder."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts[:-1])


MASK_ENDING = "_mask"


def apart_from_masks(files: Sequence[Path], *, by_folder: bool) -> tuple[list[Path], list[Path]]:
    """(the files, those called NAME_mask that are masks of a file NAME). by_folder: only within the same folder."""
    def place(file: Path, stem: str) -> tuple[Path | None, str]:
        return (file.parent if by_folder else None), stem

    known = {place(file, file.stem) for file in files}
    masks = [file for file in files if file.stem.endswith(MASK_ENDING)
             and place(file, file.stem.removesuffix(MASK_ENDING)) in known]
    return [file for file in files if file not in set(masks)], masks


def natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]


@dataclass(frozen=True)
class Files(Series):
    """A request for each file of a batch."""

    batch: Batch
    settings: dict[str, Any]
    """Fields of StableDiffusionProcessingImg2Img, with the random seeds already drawn."""
    drawn: frozenset[str]
    """Names of the seeds that were drawn."""
    begun: float
    """Seconds since 1970."""
    resume: bool = False
    """Skip files that an earlier job has done, if their pictures are where they would be saved now."""
    client: str | None = None
    """Count only this client's jobs; None: everybody's."""

    @property
    def items(self) -> Sequence[Path]:
        return self.batch.files

    @cached_property
    def _names(self) -> dict[Path, str]:
        return names(self.batch)

    def name(self, item: Path) -> str:
        return self._names[item]

    def make(self, item: Path, here: Surroundings = Surroundings()) -> StableDiffusionProcessingImg2Img | list[Shown]:
        p = request(self.batch, self.settings, item, here.has_model)
        if here.journal is None or not self.resume:
            return p
        free = {name for name in self.drawn if getattr(p, name) == self.settings[name]}
        done = here.journal.done_with(p, besides=free, before=self.begun, client=self.client)
        return made_before(done, self.batch, item) or p


def series(batch: Batch, settings: dict[str, Any], *, resume: bool = False, client: str | None = None) -> Files:
    """A request for each file, all with the same seed.

    `settings` are fields of StableDiffusionProcessingImg2Img. resume, client: as in Files. Raises InvalidRequest if the
    settings are bad or there are no files.
    """
    if not batch.files:
        raise InvalidRequest("init_images", "init_images: no files; add pictures, or enter a folder that contains some")
    unknown = set(batch.reuse) - set(REUSABLE)
    if unknown:
        raise InvalidRequest("reuse", f"reuse: {', '.join(sorted(unknown))} cannot be reused; valid: {', '.join(REUSABLE)}")
    if batch.scale_by is not None:
        number("scale_by", batch.scale_by, float, 0.05, 4)
    check(StableDiffusionProcessingImg2Img(**settings | {"init_images": [Image.new("RGB", (8, 8))]}))
    drawn = frozenset(name for name in ("seed", "subseed") if settings.get(name, -1) in (-1, None, ""))
    settings = settings | {name: fixed_seed(settings.get(name, -1)) for name in ("seed", "subseed")}
    return Files(batch, settings, drawn, time.time(), resume, client)


def names(batch: Batch) -> dict[Path, str]:
    """What each file is called: its path relative to the batch's folder, numbered if the name is taken."""
    called, seen = {}, Counter()
    for file in batch.files:
        name = inner(file, batch.folder).as_posix()
        seen[name] += 1
        called[file] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return called


def inner(file: Path, folder: Path | None) -> Path:
    """A file's path relative to the folder, or its name alone if it is elsewhere."""
    return file.relative_to(folder) if folder is not None and file.is_relative_to(folder) else Path(file.name)


def request(batch: Batch, settings: dict[str, Any], file: Path, has_model: Callable[[str], bool],
            ) -> StableDiffusionProcessingImg2Img:
    """The request of one file. Raises InvalidRequest."""
    place = inner(file, batch.folder)
    upload = open_picture(file, place.as_posix())
    image, notes = upload.image, list(upload.notes)
    fields: dict[str, Any] = {"init_images": [image], "source_exif": [upload.exif]}
    if batch.scale_by is not None:
        fields |= {"width": int(image.width * batch.scale_by), "height": int(image.height * batch.scale_by)}
    if (mask := find_mask(batch, file)) is not None:
        upload = open_picture(mask, f"mask {mask.name}")
        fields["mask"], said = mask_of(image, upload.image, settings)
        notes += [*upload.notes, *said]
    elif batch.some_masked:
        notes.append("Pictures without a mask called NAME_mask were processed whole.")
    if batch.output_folder is not None:
        fields |= {"outpath_samples": str(batch.output_folder / place.parent), "samples_filename": file.stem}
    if batch.reuse:
        fields |= reused(infotext(source_of_info(batch, file)), batch.reuse, settings, has_model)
    p = StableDiffusionProcessingImg2Img(**settings | fields)
    p.comments += notes
    return p


def find_mask(batch: Batch, file: Path) -> Path | None:
    """The mask of a file; None: process it whole. Raises InvalidRequest if there are masks but none for this file."""
    masks = batch.masks
    if masks is None:
        return None
    if len(masks) == 1 and not batch.some_masked:
        return masks[0]
    place = inner(file, batch.folder)
    mine = [mask for mask in masks if mask.stem in (place.stem, place.stem + MASK_ENDING)]
    # prefer a mask in the matching subfolder, else one directly in the masks' folder
    beside = [mask for mask in mine if inner(mask, batch.mask_folder).parent == place.parent]
    anywhere = [mask for mask in mine if inner(mask, batch.mask_folder).parent == Path()]
    found = next(iter(beside or anywhere), None)
    if found is None and not batch.some_masked:
        raise InvalidRequest("mask", f"mask: none of the {len(masks)} masks has this file's name")
    return found


def source_of_info(batch: Batch, file: Path) -> Path:
    """The picture whose infotext a file takes."""
    if batch.info_folder is None:
        return file
    beside = batch.info_folder / inner(file, batch.folder)
    return beside if beside.is_file() else batch.info_folder / file.name


def mask_of(image: Image.Image, mask: Image.Image, settings: dict[str, Any]) -> tuple[Image.Image, list[str]]:
    """(the mask as Inpaint upload takes it, notes on what was changed in it)."""
    (_, mask), notes = with_mended_mask((image, mask), settings)
    check_source(Mode.INPAINT_UPLOAD, (image, mask), inverted=bool(settings.get("inpainting_mask_invert")))
    return (fitted(mask, image) if settings.get("inpaint_full_res", True) else mask), notes


def made_before(entries: Sequence[Entry], batch: Batch, file: Path) -> list[Shown]:
    """The pictures of the newest job whose pictures all exist, one of them where it would be saved now; else none."""
    for entry in entries:
        paths = [picture.path for picture in entry.pictures]
        there = all(path.is_file() for path in paths)
        target = batch.output_folder and batch.output_folder / inner(file, batch.folder).parent
        if there and any(target is None or belongs(path, target, file) for path in paths):
            return [(str(picture.path), picture.infotext) for picture in entry.pictures]
    return []


def belongs(path: Path, folder: Path, file: Path) -> bool:
    """Whether a picture lies in the folder under that file's name, optionally with a number appended."""
    return path.parent == folder.absolute() and re.fullmatch(re.escape(file.stem) + r"(-\d+)?", path.stem) is not None


def infotext(file: Path) -> dict[str, str]:
    """The parameters in a picture's infotext; empty if it cannot be read."""
    try:
        text = read_metadata(file, file.name).infotext
    except InvalidRequest:
        return {}
    return parse(text) if text else {}


def reused(params: dict[str, str], wanted: Collection[str], settings: dict[str, Any],
           has_model: Callable[[str], bool]) -> dict[str, Any]:
    """The fields that an infotext changes: prompts are appended to the request's, other values replace them."""
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

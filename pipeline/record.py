"""A request as plain JSON and back, for history and for a picture's receipt."""

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.options import DRAWS, EDITS, GRIDS, MODEL_FILES, SPECS, Options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.txt2img import StableDiffusionProcessingTxt2Img

KINDS = {"img2img": StableDiffusionProcessingImg2Img, "txt2img": StableDiffusionProcessingTxt2Img}
PLACES = ("outpath_samples", "outpath_grids", "samples_filename", "do_not_save_samples", "do_not_save_grid")
"""Fields on where pictures go."""
ELSEWHERE = {*PLACES, "sd_model", "options", "force_task_id", "source_exif", "replay", "continues", "helps"}
"""Fields on where a request runs and where its pictures go; they do not affect the pictures."""
FILES = set(MODEL_FILES)
"""Options that a receipt replaces by the files themselves."""
UNSEEN = {spec.name for spec in SPECS.values() if not spec.in_picture}
"""Options that do not affect saved pictures."""
OF_LEGENDS = {"font"}
"""Options that show only in a script's grid."""

OUTSIDE_PROMPTS = ("CLIP_stop_at_last_layers", "sdxl_clip_l_skip")
"""Options that affect the empty prompt of pad_cond_uncond."""
OUTSIDE_RUNS = (*(spec.name for spec in SPECS.values() if spec.group == GRIDS), "img2img_background_color", "img2img_color_correction")
"""Options that scripts use outside their runs."""


def to_record(p: StableDiffusionProcessingImg2Img, name: Callable[[Image.Image], str]) -> dict[str, Any]:
    """A request as plain JSON; `name` gives the names of its pictures.

    Of its options, before `override_settings`, it holds only those that differ from the defaults.
    """
    def recorded(value: Any) -> Any:
        if isinstance(value, Image.Image):
            return {"picture": name(value)}
        if isinstance(value, (list, tuple)):
            return [recorded(each) for each in value]
        if isinstance(value, dict):
            return {key: recorded(each) for key, each in value.items()}
        return value

    kind = next(name for name, class_ in KINDS.items() if type(p) is class_)
    values = {spec.name: getattr(p, spec.name) for spec in fields(p) if spec.init and spec.name not in ELSEWHERE}
    return {"kind": kind, "options": unusual(p.standing)} | recorded(values | {"mask": p.image_mask})


def unusual(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults."""
    return {name: value for name, spec in SPECS.items() if (value := getattr(options, name)) != spec.default}


def essence(record: dict[str, Any], besides: Collection[str] = ()) -> dict[str, Any]:
    """The part of a record that determines the picture, without the fields `besides`."""
    options = {name: {key: value for key, value in record[name].items() if key not in UNSEEN}
               for name in ("options", "override_settings")}
    return {name: value for name, value in (record | options).items() if name not in besides}


def asked(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """A request as receipts record it: equal requests are equal here, whether from the page or the API."""
    record = to_record(p, p.digests.of)
    record |= {spec.name: bool(getattr(p, spec.name)) for spec in fields(p) if spec.type is bool and spec.name in record}
    apart = {name: value for name in apart_from_standing(p)
             if (value := getattr(p.options, name)) != getattr(p.standing, name)}
    options = replace(p.options, **{name: getattr(p.standing, name) for name in apart})
    record["options"] = {name: value for name, value in unusual(options).items()
                         if name not in FILES | UNSEEN and (p.script_name or name not in OF_LEGENDS)}
    if p.sd_model is not None and p.sd_model.info.may_edit:  # the file's name may have said it, and names change
        record["options"]["sd_model_kind"] = EDITS if p.sd_model.sees == "reference" else DRAWS
    for chosen in (record["options"], apart):  # receipts hold no paths
        chosen |= {name: Path(chosen[name]).name for name in OF_LEGENDS & chosen.keys()}
    # other overrides are in the options already
    record |= {"override_settings": apart, "seed_enable_extras": True}
    if p.script_name:  # scripts may use a run's grid as its picture
        record["do_not_save_grid"] = p.do_not_save_grid
    return without_fractions(record)


def apart_from_standing(p: StableDiffusionProcessingImg2Img) -> list[str]:
    """The options whose standing value this request uses too, in places where its overrides do not apply."""
    padding = OUTSIDE_PROMPTS if p.options.pad_cond_uncond else ()
    return sorted({*padding, *(OUTSIDE_RUNS if p.script_name else ())})


def without_fractions(value: Any) -> Any:
    """JSON in which 7.0 is 7."""
    if isinstance(value, list):
        return [without_fractions(each) for each in value]
    if isinstance(value, dict):
        return {key: without_fractions(each) for key, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def from_record(record: dict[str, Any], find: Callable[[str], Image.Image | None],
                **where: Any) -> StableDiffusionProcessingImg2Img | None:
    """The request of a record; None if a picture of it is not found. Raises InvalidRequest, as for any request.

    where: the fields of ELSEWHERE.
    """
    missing = False

    def rich(value: Any) -> Any:
        nonlocal missing
        if isinstance(value, dict) and value.keys() == {"picture"}:
            image = find(value["picture"])
            missing |= image is None
            return image
        if isinstance(value, list):
            return [rich(each) for each in value]
        if isinstance(value, dict):
            return {key: rich(each) for key, each in value.items()}
        return value

    values = rich(record)
    if missing:
        return None
    kind, options = KINDS[values.pop("kind")], Options().override(values.pop("options"))
    return kind(options=options, **values | where)

"""From a request to a processing object, and from its result to the answer."""

import json
import random
import string
from collections.abc import Mapping
from datetime import datetime, timedelta
from inspect import signature
from typing import Any

from PIL import Image

from api.backend import Backend
from api.controlnet import over_pictures
from api.models import ContinueRequest, GenerationRequest, Img2ImgRequest, Txt2ImgRequest
from api.options import acting, with_modules
from api.pasting import paste
from api.pictures import encode_picture, json_with_pictures, picture_bytes
from api.scripts import script_fields
from pipeline import __version__, scripts
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.img2img import greys_count
from pipeline.options import Options
from pipeline.painted import mend
from pipeline.processed import Processed
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.request import check_number_of_references
from pipeline.samplers import SAMPLERS, split_schedule
from pipeline.samplers.schedules import find_schedule
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.uploads import count_pixels, open_picture

MISSING = ("restore_faces",)
"""A1111's fields that are refused if true."""
OWN = ("init_images", "reference_images", "source_exif", "mask", "latent_mask", "sampler_name", "scheduler", "override_settings", "do_not_save_samples",
       "do_not_save_grid", "script_name", "script_args", "alwayson_scripts")
"""Request fields that reach the processing object in another form."""
NULL = {"resize_mode": 2, "inpainting_fill": 0, "inpainting_mask_invert": 0, "inpaint_full_res_padding": 0}
"""A1111's effective values for null; for most other fields null is refused."""
NEW = ("distilled_cfg_scale",)
"""Fields that A1111 lacks, for which null means the default."""
FOR_MASKS = ("mask_blur_x", "mask_blur_y")
"""Fields for which null is refused only with a mask, as in A1111."""
MAX_TASK_ID = 200
UNITS = "alwayson_scripts"
"""The field with ControlNet's units."""
Files = dict[str, list[bytes]]
"""Field → picture files."""


def task_id(request: GenerationRequest) -> str:
    """The job's id, for asking about its progress. Raises InvalidRequest for an id that cannot be logged safely."""
    asked = request.force_task_id or ""
    if len(asked) > MAX_TASK_ID or not asked.isprintable():
        raise InvalidRequest("force_task_id", f"force_task_id must be at most {MAX_TASK_ID} printable characters, got {asked[:80]!r}")
    kind = "img2img" if isinstance(request, Img2ImgRequest) else "txt2img"
    return request.force_task_id or f"task({kind}-{''.join(random.choices(string.ascii_uppercase + string.digits, k=7))})"


def processing(request: GenerationRequest, here: Backend,
               files: Files) -> tuple[GenerationRequest, StableDiffusionProcessingImg2Img]:
    """(the request completed from its infotext, its processing object). Decodes the pictures in `files`: blocks.

    Raises InvalidRequest, and HTTPException for unknown scripts.
    """
    request, unpasted = paste(request, here.settings.values(), here.models.catalog)
    kind = StableDiffusionProcessingImg2Img if isinstance(request, Img2ImgRequest) else StableDiffusionProcessingTxt2Img
    known = set(signature(kind).parameters)
    values = request.model_dump()
    refuse_missing(values)
    sampler_name, scheduler, notes = sampler_and_schedule(request)
    overrides = acting(with_modules(request.override_settings or {}, here.models.catalog))
    notes += unpasted + drop_unknown_checkpoint(overrides, here)
    settings = {name: value for name, value in values.items() if name in known and name not in OWN and (value is not None or name not in NEW)}
    always, said = script_fields(request, lenient=here.lenient_scripts)
    pictures_of_units = iter(files.get(UNITS, ()))
    always["alwayson_scripts"] = over_pictures(always["alwayson_scripts"], lambda text: open_picture(
        next(pictures_of_units), UNITS, over_api=True).image)
    settings, notes = settings | always, [*notes, *said]
    pictures, said = decoded(files)
    settings, notes = settings | pictures, [*notes, *said]
    if isinstance(request, Img2ImgRequest):
        settings = without_null(settings)
        if request.initial_noise_multiplier is None:  # as in A1111, where an override has no effect on it
            settings["initial_noise_multiplier"] = here.settings.options.initial_noise_multiplier
    elif "denoising_strength" not in request.model_fields_set or settings["denoising_strength"] is None:
        # A1111's own default, where its API has none
        settings.pop("denoising_strength")
    p = kind(**settings, sampler_name=sampler_name, scheduler=scheduler, options=here.settings.options,
             override_settings=overrides, **places(here, request))
    p.comments += notes
    masks = p.image_mask if isinstance(p.image_mask, list) else filter(None, [p.image_mask])
    surprises = [surprise.left for mask in masks for surprise in mend(
        mask, invert=bool(p.inpainting_mask_invert), greys=greys_count(settings), only_masked=bool(p.inpaint_full_res))[1]]
    p.comments += dict.fromkeys(surprises)
    scripts.check(p)
    return request, p


def without_null(settings: Mapping[str, Any]) -> dict[str, Any]:
    """img2img's fields with null replaced by its effective value or the default."""
    unused = FOR_MASKS if settings["mask"] is settings["latent_mask"] is None else ()
    return {name: NULL.get(name) if value is None else value for name, value in settings.items()
            if value is not None or name not in unused}


def refuse_missing(values: Mapping[str, Any]) -> None:
    """Raise InvalidRequest if a request uses a missing feature."""
    for name in MISSING:
        if values.get(name):
            raise InvalidRequest(name, f"{name}: not supported yet; leave it out, got {values[name]!r}")


def sampler_and_schedule(request: GenerationRequest) -> tuple[str | None, str | None, list[str]]:
    """(sampler, schedule, notes): unknown names are replaced by the defaults, as in A1111."""
    asked, notes = request.sampler_name or request.sampler_index, []
    sampler_name, ending = split_schedule(asked) if asked else (None, None)
    scheduler = request.scheduler or ending  # A1111: "Euler Karras" means Karras only if no schedule is given
    if scheduler and find_schedule(scheduler) is None:
        notes.append(f'Unknown schedule type "{scheduler}"; Automatic was used.')
        scheduler = None
    if sampler_name is not None and sampler_name not in SAMPLERS:
        notes.append(f'Unknown sampler "{asked}"; DPM++ 2M was used.')
        sampler_name = None
    return sampler_name, scheduler, notes


def drop_unknown_checkpoint(overrides: dict[str, Any], here: Backend) -> list[str]:
    """Remove an unknown checkpoint from the overrides, as A1111 does; returns notes."""
    name = overrides.pop("sd_model_checkpoint", None)
    if name in (None, ""):
        return []
    try:
        here.models.catalog.find_checkpoint(str(name))
    except UnknownName as error:
        return [f"{error}; the current one was used."]
    overrides["sd_model_checkpoint"] = str(name)
    return []


def picture_files(request: GenerationRequest, here: Backend) -> Files:
    """The files of the request's pictures, not decoded. Raises InvalidRequest. Downloads addresses: blocks."""
    of_units: list[bytes] = []
    over_pictures(request.alwayson_scripts, lambda text: of_units.append(picture_bytes(text, UNITS, here.fetcher)))
    check_number_of_references(len(references := request.reference_images or []))
    others = ({UNITS: of_units} if of_units else {}) | {"reference_images": [
        picture_bytes(text, "reference_images", here.fetcher) for text in references]}
    if not isinstance(request, Img2ImgRequest):
        return others
    limit = request.batch_size if isinstance(request.batch_size, int) else 1
    if len(request.init_images) > max(limit, 1):
        raise InvalidRequest("init_images", f"init_images: {len(request.init_images)} pictures given for a batch_size of "
                                            f"{limit}; give one, or at most batch_size")
    masks = {name: given if isinstance(given := getattr(request, name), list) else [] if given is None else [given]
             for name in ("mask", "latent_mask")}
    return {name: [picture_bytes(text, name, here.fetcher) for text in texts]
            for name, texts in ({"init_images": request.init_images} | masks).items()} | others


def pixels_of(files: Files) -> int:
    """Total pixels of a request's pictures, from their headers. Raises InvalidRequest."""
    return sum(count_pixels(data, field) for field, listed in files.items() for data in listed)


def decoded(files: Files) -> tuple[dict[str, Image.Image | list[Image.Image] | None], list[str]]:
    """(the request's picture fields, notes from decoding). Raises InvalidRequest."""
    uploads = {field: [open_picture(data, field, over_api=True) for data in listed] for field, listed in files.items() if field != UNITS}
    read: dict[str, Any] = {field: [upload.image for upload in listed] for field, listed in uploads.items()}
    notes = dict.fromkeys(note for listed in uploads.values() for upload in listed for note in upload.notes)
    if "init_images" not in uploads:
        return read, list(notes)
    read["source_exif"] = [upload.exif for upload in uploads["init_images"]]
    # a single picture instead of a list of one
    masks = {name: (read[name] if len(read[name]) > 1 else next(iter(read[name]), None)) for name in ("mask", "latent_mask")}
    return read | masks, list(notes)


def places(here: Backend, request: GenerationRequest) -> dict[str, Any]:
    """The folders to save pictures in, if they are saved."""
    kind = "img2img" if isinstance(request, Img2ImgRequest) else "txt2img"
    keep = bool(request.save_images)
    return {"do_not_save_samples": not keep, "do_not_save_grid": not keep,
            "outpath_samples": str(here.outputs / f"{kind}-images") if keep else None,
            "outpath_grids": str(here.outputs / f"{kind}-grids") if keep else None}


# --- the answer

FACTS = ("subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "seed_resize_from_w", "seed_resize_from_h",
         "denoising_strength", "styles")
"""Request fields that A1111 repeats in its answer."""


def facts(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """The values that the answer repeats, taken from a request before it is submitted."""
    known = {name: getattr(p, name) for name in FACTS} | {"batch_size": p.batch, "clip_skip": p.options.CLIP_stop_at_last_layers}
    return known if getattr(p, "enable_hr", True) else known | {"denoising_strength": None}


def answer(request: GenerationRequest | ContinueRequest, asked: Mapping[str, Any], processed: Processed, elapsed: float,
           options: Options) -> bytes:
    """The answer's JSON. Encodes pictures: blocks.

    asked: the request's facts(). options: the picture format; the request's overrides do not count, as in A1111.
    """
    images = [encode_picture(image, options.samples_format, quality=options.jpeg_quality, metadata=options.enable_pnginfo)
              for image in processed.images] if request.send_images else []
    return json_with_pictures("images", images,
                              {"parameters": parameters(request), "info": json.dumps(info(asked, processed, elapsed))})


def parameters(request: GenerationRequest | ContinueRequest) -> dict[str, Any]:
    """The request as understood, without pictures unless they are asked for."""
    values = request.model_dump()
    if not isinstance(request, Img2ImgRequest):
        return values | ({"reference_images": None} if "reference_images" in values else {})
    return values if request.include_init_images else values | {"init_images": None, "reference_images": None, "mask": None}


def info(asked: Mapping[str, Any], processed: Processed, elapsed: float) -> dict[str, Any]:
    """A1111's facts about the pictures; "comments" is an addition."""
    model, strength = processed.model, asked["denoising_strength"]
    extra = {name: as_json(value) for name, value in processed.extra_generation_params.items()}
    return {
        "prompt": processed.all_prompts[0], "all_prompts": processed.all_prompts,
        "negative_prompt": processed.all_negative_prompts[0], "all_negative_prompts": processed.all_negative_prompts,
        "seed": processed.seed, "all_seeds": processed.all_seeds,
        "subseed": processed.all_subseeds[0], "all_subseeds": processed.all_subseeds, "subseed_strength": asked["subseed_strength"],
        **{name: asked[name] for name in ("width", "height", "sampler_name", "cfg_scale", "steps", "batch_size")}, "restore_faces": False, "face_restoration_model": None,
        "sd_model_name": model.name, "sd_model_hash": model.hash, "sd_vae_name": model.vae, "sd_vae_hash": model.vae_hash,
        "seed_resize_from_w": asked["seed_resize_from_w"], "seed_resize_from_h": asked["seed_resize_from_h"], "denoising_strength": strength,
        "extra_generation_params": {"Denoising strength": strength, **extra} if strength is not None else extra,
        "index_of_first_image": processed.index_of_first_image, "infotexts": list(filter(None, processed.infotexts)),
        "styles": asked["styles"], "job_timestamp": timestamp(elapsed),
        "clip_skip": asked["clip_skip"],
        "is_using_inpainting_conditioning": processed.inpaints,
        "version": f"Palimpsest {__version__}", "comments": processed.comments,
    }


def as_json(value: Any) -> Any:
    """A value that JSON can hold; null for others, as in A1111."""
    return value if isinstance(value, str | int | float | bool | list | dict) else None


def timestamp(elapsed: float) -> str:
    """When a job that took `elapsed` seconds started, such as 20260131235959."""
    return f"{datetime.now() - timedelta(seconds=elapsed):%Y%m%d%H%M%S}"

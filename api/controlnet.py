"""ControlNet over HTTP: the routes of its extension, and the pictures in a request's units."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, HTTPException
from starlette.responses import Response

from api.backend import Here
from api.models import (
    ControlModelsAnswer, ControlModulesAnswer, ControlSettingsAnswer, ControlTypesAnswer, ControlVersionAnswer, DetectAnswer, DetectRequest)
from api.pictures import encode_picture, json_with_pictures, picture_bytes
from api.strict import StrictRoute
from api.visitors import Who
from pipeline.controlnet.preprocessors import Preprocessor, Slider, find_preprocessor, in_order, preprocess, shown
from pipeline.controlnet.types import control_types, listed_models
from pipeline.controlnet.units import TITLE, UNITS
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.images import flatten
from pipeline.uploads import count_pixels, open_picture

router = APIRouter(tags=["ControlNet"], route_class=StrictRoute)

VERSION = 3
"""Of the extension's API."""
MAX_PICTURES = 64
PICTURES = ("image", "input_image", "mask", "mask_image", "effective_region_mask")
"""A unit's fields that hold pictures."""


# --- the pictures of a request's units

def over_pictures(scripts: Any, change: Callable[[str], Any]) -> Any:
    """A request's alwayson_scripts with `change` applied to each picture's text in its units; those of units that are off are dropped."""
    if not isinstance(scripts, Mapping):
        return scripts
    return {title: over_script(given, change) if str(title).lower() == TITLE.lower() else given for title, given in scripts.items()}


def over_script(given: Any, change: Callable[[str], Any]) -> Any:
    if not isinstance(given, Mapping) or not isinstance(given.get("args"), list):
        return given
    return {**given, "args": [over_unit(unit, change) if isinstance(unit, Mapping) else unit for unit in given["args"]]}


def over_unit(unit: Mapping[str, Any], change: Callable[[str], Any]) -> dict[str, Any]:
    if not unit.get("enabled"):
        return {key: value for key, value in unit.items() if key not in PICTURES}
    return {key: over_value(value, change) if key in PICTURES else value for key, value in unit.items()}


def over_value(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return change(value) if value else None
    if isinstance(value, list):
        return [over_value(inner, change) for inner in value]
    return {key: over_value(inner, change) for key, inner in value.items()} if isinstance(value, Mapping) else value


# --- routes

@router.get("/controlnet/version")
async def version() -> ControlVersionAnswer:
    """The version of the extension's API that this follows."""
    return ControlVersionAnswer(version=VERSION)


@router.get("/controlnet/settings")
async def settings() -> ControlSettingsAnswer:
    """The number of units that the page shows; a request may have up to ten."""
    return ControlSettingsAnswer(control_net_unit_count=UNITS)


@router.get("/controlnet/model_list")
async def model_list(here: Here, who: Who, update: bool = True) -> ControlModelsAnswer:
    """The networks in the models folder, each with its short hash; update scans the folder again, for the owner."""
    def read() -> list[str]:
        if update and who.owner:
            here.models.catalog.refresh()
        return listed_models(here.models.catalog)

    return ControlModelsAnswer(model_list=await to_thread.run_sync(read))


@router.get("/controlnet/module_list")
async def module_list(alias_names: bool = False) -> ControlModulesAnswer:
    """The preprocessors, with their settings."""
    def name(one: Preprocessor) -> str:
        return one.label if alias_names else one.name

    listed = in_order()
    return ControlModulesAnswer(module_list=[name(one) for one in listed],
                                module_detail={name(one): {"model_free": False, "sliders": [described(s) for s in one.sliders]} for one in listed})


def described(slider: Slider) -> dict[str, Any]:
    return {"name": slider.label, "value": slider.value, "min": slider.minimum, "max": slider.maximum, "step": slider.step}


@router.get("/controlnet/control_types")
async def types(here: Here) -> ControlTypesAnswer:
    """The kinds of control, each with its preprocessors and the networks whose names say so."""
    return ControlTypesAnswer(control_types=await to_thread.run_sync(control_types, here.models.catalog))


@router.post("/controlnet/detect", response_model=DetectAnswer)
async def detect(body: DetectRequest, here: Here) -> Response:
    """What a preprocessor makes of pictures."""
    try:
        preprocessor = find_preprocessor(body.controlnet_module)
    except UnknownName as error:
        raise HTTPException(422, f"Module not available; {error}") from None
    if preprocessor.of_ip_adapters:
        raise HTTPException(422, f"Module not supported; {preprocessor.label} gives features, not a picture")
    texts, masks = body.controlnet_input_images or body.controlnet_images, body.controlnet_masks
    if not texts:
        raise HTTPException(422, "No image selected; controlnet_input_images must hold pictures in base64")
    if len(texts) > MAX_PICTURES:
        raise InvalidRequest("controlnet_input_images", f"controlnet_input_images: at most {MAX_PICTURES} pictures, got {len(texts)}")
    if preprocessor.takes_mask and len(masks) != len(texts):
        raise HTTPException(422, f"Preprocessor {body.controlnet_module} requires `controlnet_masks` param: one mask for each picture.")
    asked = preprocessor.settings(body.controlnet_processor_res, body.controlnet_threshold_a, body.controlnet_threshold_b)

    def work(index: int) -> str:
        files = {"controlnet_input_images": picture_bytes(texts[index], "controlnet_input_images", here.fetcher)}
        if preprocessor.takes_mask:
            files["controlnet_masks"] = picture_bytes(masks[index], "controlnet_masks", here.fetcher)
        with here.engine.shelf.reading(sum(count_pixels(file, field) for field, file in files.items()), "controlnet_input_images"):
            pixels = np.asarray(flatten(open_picture(files["controlnet_input_images"], "controlnet_input_images", over_api=True).image, "#ffffff"))
            if preprocessor.takes_mask:
                mask = open_picture(files["controlnet_masks"], "controlnet_masks", over_api=True).image.convert("L")
                if mask.size != pixels.shape[1::-1]:
                    raise InvalidRequest("controlnet_masks", "controlnet_masks: each must have the size of its picture, "
                                                             f"{pixels.shape[1]}x{pixels.shape[0]}, got {mask.width}x{mask.height}")
                pixels = np.dstack([pixels, np.asarray(mask)])
            return encode_picture(shown(preprocess(preprocessor, pixels, asked, here.models.annotators.annotate)), "png")

    images = [await to_thread.run_sync(work, index, limiter=here.pictures) for index in range(len(texts))]
    return Response(json_with_pictures("images", images, {"info": "Success"}), media_type="application/json")

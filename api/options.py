"""A1111's options over HTTP: those that take effect here, and those only stored for programs that expect them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Body

from api.backend import Backend, Here
from api.strict import StrictRoute
from api.visitors import Who
from api.waiting import wait_for
from pipeline.errors import Cancelled, InvalidRequest, PalimpsestError, UnknownName
from pipeline.limits import Client
from pipeline.models import MODULES, Catalog
from pipeline.options import MODEL_OPTIONS, SPECS, Options, OptionSpec
from pipeline.settings import KEPT, Settings

router = APIRouter(tags=["options"], route_class=StrictRoute)

PIXELS = frozenset((
    "cache_fp16_weight", "face_restoration", "fp8_storage", "postprocessing_enable_in_main_ui", "sd_hypernetwork", "sd_unet"))
"""A1111's options that change pictures but have no effect here; values other than the default are refused."""
UNSETTABLE = ("api_enable_requests", "api_forbid_local_requests", "api_useragent", "sd_checkpoint_hash",
              "infotext_explanation", "profiling_explanation", "sd_vae_explanation", "settings_in_ui")
"""Ignored silently, as in A1111: access to other servers is decided by this server's flags, and the last four are texts on
A1111's page."""


def understood(values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A request's options without those that only A1111 uses.

    field: where they come from. Raises InvalidRequest.
    """
    for name, value in values.items():
        if name not in SPECS and name not in KEPT and name not in UNSETTABLE:
            raise UnknownName(field, "option", name, {**SPECS, **KEPT})
        if name in PIXELS and name not in SPECS and value != KEPT[name]:
            raise InvalidRequest(name, f"{name} cannot be changed: it is not supported yet")
    return {name: value for name, value in values.items() if name not in UNSETTABLE}


def with_modules(values: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """A request's options with Forge's list of a model's files as the options that name them. Raises InvalidRequest, ModelError."""
    if MODULES not in values:
        return dict(values)
    return catalog.modules(values[MODULES]) | {name: value for name, value in values.items() if name != MODULES}


def acting(values: Mapping[str, Any]) -> dict[str, Any]:
    """A request's options that take effect here. Raises InvalidRequest."""
    return {name: value for name, value in understood(values, "override_settings").items() if name in SPECS}


def described(spec: OptionSpec) -> dict[str, Any]:
    """An option's schema for /openapi.json."""
    kind = {bool: "boolean", int: "integer", float: "number"}.get(type(spec.default), "string")
    bounds = {"minimum": spec.low, "maximum": spec.high, "enum": None if spec.choices is None else [*spec.choices, *spec.aliases]}
    return {"type": kind, "title": spec.label, "description": spec.sentence, "default": spec.default} | {
        key: value for key, value in bounds.items() if value is not None}


def seen_by(who: Client, settings: Settings) -> dict[str, Any]:
    """Every option with its value. A shared page's visitors see the owner's values only of effective, non-private options."""
    if who.owner:
        return settings.values()
    return settings.defaults | {name: value for name, value in asdict(settings.options).items() if SPECS[name].visitors}


def listed(values: Mapping[str, Any], defaults: Mapping[str, Any], catalog: Catalog, default_checkpoint: str) -> dict[str, Any]:
    """All options in A1111's form.

    A1111's response model turns every option with a non-zero integer default into a float, and clients expect that.
    """
    answer = {name: float(value) if is_whole(defaults[name]) and defaults[name] and is_whole(value) else value
              for name, value in values.items()}
    wanted = values["sd_model_checkpoint"]
    try:
        file = catalog.find_checkpoint(wanted or default_checkpoint)
        return answer | {"sd_model_checkpoint": file.title, "sd_checkpoint_hash": file.sha256 or ""}
    except PalimpsestError:  # it has been removed since
        return answer | {"sd_checkpoint_hash": ""}


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@router.get("/sdapi/v1/options")
async def get_options(here: Here, who: Who) -> dict[str, Any]:
    """Every option with its value; a shared page's visitors see the owner's values only of options that take effect here."""
    settings, models = here.settings, here.models
    return await to_thread.run_sync(listed, seen_by(who, settings), settings.defaults, models.catalog, models.default.rel)


@router.post("/sdapi/v1/options")
async def set_options(here: Here, values: dict[str, Any] = Body(
        description="The options to set, by name: those that take effect here, and any other of A1111's.",
        json_schema_extra={"properties": {name: described(spec) for name, spec in SPECS.items()}})) -> None:
    """Set options and remember them. Nothing is set if any is unknown or invalid.

    A change of checkpoint or VAE is answered once the model is loaded; while pictures are being made, it is loaded for the
    next one instead.
    """
    before = here.settings.options
    await to_thread.run_sync(lambda: change(here, understood(with_modules(values, here.models.catalog), "options")))
    changed = here.settings.options
    if any(getattr(changed, name) != getattr(before, name) for name in MODEL_OPTIONS) and not here.engine.jobs():
        await load_or_revert(here, before)


def change(here: Backend, values: dict[str, Any]) -> None:
    """Set options; a checkpoint or VAE must exist. Raises InvalidRequest, or ModelError for a pickle."""
    here.models.find(here.settings.options.override(
        {name: values[name] for name in MODEL_OPTIONS if name in values}))
    here.settings.change(values)
    here.engine.options = here.settings.options


async def load_or_revert(here: Backend, before: Options) -> None:
    """Load the chosen model; if that fails, undo the choice and raise the error."""
    try:
        await wait_for(here.engine.preload(here.settings.options))
    except Cancelled:  # another model has been chosen since
        return
    except Exception:
        await to_thread.run_sync(change, here, {name: getattr(before, name) for name in MODEL_OPTIONS})
        raise

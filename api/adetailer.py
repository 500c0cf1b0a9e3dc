"""ADetailer over HTTP: the routes of its extension."""

from typing import Any

from anyio import to_thread
from fastapi import APIRouter

from api.backend import Here
from api.models import DetailerModelsAnswer, DetailerSchemaAnswer, DetailerVersionAnswer
from api.strict import StrictRoute
from pipeline.adetailer import SPECS, VERSION
from pipeline.detectors.store import FOLDER, Detectors

router = APIRouter(tags=["ADetailer"], route_class=StrictRoute)

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


@router.get("/adetailer/v1/version")
async def version() -> DetailerVersionAnswer:
    """The version of the extension that this follows."""
    return DetailerVersionAnswer(version=VERSION)


@router.get("/adetailer/v1/schema")
async def schema() -> DetailerSchemaAnswer:
    """The fields of a pass."""
    return DetailerSchemaAnswer(title="ADetailerArgs", type="object", properties={name: described(name) for name in SPECS})


def described(name: str) -> dict[str, Any]:
    """A field in the terms of JSON Schema."""
    spec = SPECS[name]
    ranges = {word: spec.metadata[key] for key, word in (("low", "minimum"), ("high", "maximum"), ("choices", "enum")) if key in spec.metadata}
    return {"title": name.replace("_", " ").title(), "type": TYPES[spec.type], "default": spec.default} | ranges


@router.get("/adetailer/v1/ad_model")
async def models(here: Here) -> DetailerModelsAnswer:
    """The detectors in models/adetailer."""
    detectors = Detectors(here.models.catalog.root / FOLDER)
    return DetailerModelsAnswer(ad_model=await to_thread.run_sync(detectors.names_for_clients))

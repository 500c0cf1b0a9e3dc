"""A request as a shell command for the API, which returns the same bytes as the page has shown."""

import base64
import io
import json
from dataclasses import fields
from typing import Any

from PIL import Image

from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.record import ELSEWHERE, unusual

END = "PALIMPSEST"


def command(p: StableDiffusionProcessingImg2Img, address: str, *, login: bool) -> str:
    """A shell command with curl. address: of this server; login: the user has to fill in a login."""
    user = "-u USER:PASSWORD " if login else ""
    return (f"curl -s {user}-H 'Content-Type: application/json' --data-binary @- {address}/sdapi/v1/img2img <<'{END}'\n"
            f"{json.dumps(payload(p))}\n{END}\n")


def payload(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """An unrun request as the body of POST /sdapi/v1/img2img, independent of the server's current options."""
    body = {spec.name: getattr(p, spec.name) for spec in fields(p) if spec.init and spec.name not in ELSEWHERE}
    body |= {"mask": p.image_mask, "override_settings": unusual(p.options)}
    return {name: as_json(value) for name, value in body.items() if value is not None}


def as_json(value: Any) -> Any:
    """A value as JSON; pictures as PNG in base64."""
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {name: as_json(each) for name, each in value.items()}
    if not isinstance(value, Image.Image):
        return value
    file = io.BytesIO()
    value.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()

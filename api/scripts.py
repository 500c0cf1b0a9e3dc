"""A request's scripts, and the lists of scripts for clients."""

from typing import Any

from fastapi import HTTPException

from api.models import GenerationRequest, Img2ImgRequest, ScriptArgument, ScriptItem, ScriptsAnswer
from pipeline.scripts import ALWAYS_ON, SCRIPTS, AlwaysOn, Script

IGNORED = ("comments", "extra options", "hypertile", "refiner", "sampler", "seed")
"""Parts of A1111's page that are scripts there; requests may name them as always-on scripts, without effect."""


def script_fields(request: GenerationRequest) -> dict[str, Any]:
    """Fields of the processing object. Raises HTTPException 422 for an unknown script."""
    name = request.script_name or None
    if name is not None and name.lower() not in selectable(source=isinstance(request, Img2ImgRequest)):
        raise HTTPException(422, f"Script '{name}' not found")
    always = {title: given for title, given in (request.alwayson_scripts or {}).items() if title.lower() not in IGNORED}
    for title in always:
        if title.lower() in SCRIPTS:
            raise HTTPException(422, "Cannot have a selectable script in the always on scripts params")
        if title.lower() not in ALWAYS_ON:
            raise HTTPException(422, f"Script '{title}' not found")
    return {"script_name": name, "script_args": request.script_args or [], "alwayson_scripts": always}


def selectable(*, source: bool) -> dict[str, Script]:
    """Selectable scripts by lower-case title; without a source, those that need none."""
    return {title: script for title, script in SCRIPTS.items() if source or not script.needs_source}


def titles() -> ScriptsAnswer:
    return ScriptsAnswer(txt2img=list(selectable(source=False)), img2img=[*SCRIPTS, *ALWAYS_ON])


def descriptions() -> list[ScriptItem]:
    """The scripts of txt2img, then those of img2img."""
    return [*(description(script, img2img=False) for script in selectable(source=False).values()),
            *(description(script, img2img=True) for script in (*SCRIPTS.values(), *ALWAYS_ON.values()))]


def description(script: Script | AlwaysOn, *, img2img: bool) -> ScriptItem:
    args = [ScriptArgument(label=a.label, value=a.value, minimum=a.minimum, maximum=a.maximum, step=a.step,
                           choices=None if a.choices is None else list(a.choices)) for a in script.arguments]
    return ScriptItem(name=script.title.lower(), is_alwayson=isinstance(script, AlwaysOn), is_img2img=img2img, args=args)

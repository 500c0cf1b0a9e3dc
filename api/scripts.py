"""A request's scripts, and the lists of scripts for clients."""

from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException

from api.models import GenerationRequest, Img2ImgRequest, ScriptArgument, ScriptItem, ScriptsAnswer
from pipeline.scripts import ALWAYS_ON, SCRIPTS, AlwaysOn, Script

IGNORED = ("comments", "extra options", "hypertile", "refiner", "sampler", "seed")
"""Parts of A1111's page that are scripts there; requests may name them as always-on scripts, without effect."""
SWITCHES = ("enabled", "enable", "is_enabled", "active")
"""Names of switches in the arguments of extensions."""


def script_fields(request: GenerationRequest, *, lenient: bool = False) -> tuple[dict[str, Any], list[str]]:
    """(fields of the processing object, sentences on always-on scripts that are left out).

    lenient: leave unknown ones out. Raises HTTPException 422 for an unknown script.
    """
    name = request.script_name or None
    if name is not None and name.lower() not in selectable(source=isinstance(request, Img2ImgRequest)):
        raise HTTPException(422, f"Script '{name}' not found")
    always, notes = {}, []
    for title, given in (request.alwayson_scripts or {}).items():
        if title.lower() in SCRIPTS:
            raise HTTPException(422, "Cannot have a selectable script in the always on scripts params")
        if title.lower() in ALWAYS_ON:
            always[title] = given
        elif title.lower() in IGNORED or is_off(given):
            continue
        elif lenient:
            notes.append(f'The always-on script "{title[:100]}" is not known here and was left out.')
        else:
            known = ", ".join(script.title for script in ALWAYS_ON.values())
            raise HTTPException(422, f"Script '{title}' not found; known always-on scripts: {known}")
    return {"script_name": name, "script_args": request.script_args or [], "alwayson_scripts": always}, notes


def is_off(given: Any) -> bool:
    """Whether an always-on script of another program is empty or switched off by the values that such scripts use."""
    args = given.get("args") if isinstance(given, Mapping) else given
    if not args:
        return True
    if not isinstance(args, list):
        return False
    units = [arg for arg in args if isinstance(arg, Mapping)]
    return args[0] is False or (len(units) == len(args) and all(map(is_off_unit, units)))


def is_off_unit(unit: Mapping[str, Any]) -> bool:
    return any(unit.get(word) is False for word in SWITCHES) or unit.get("ad_model") == "None" or not unit


def selectable(*, source: bool) -> dict[str, Script]:
    """Selectable scripts by lower-case title; without a source, those that need none."""
    return {title: script for title, script in SCRIPTS.items() if source or not script.needs_source}


def titles() -> ScriptsAnswer:
    without_source = [title for title, script in ALWAYS_ON.items() if not script.needs_source]
    return ScriptsAnswer(txt2img=[*selectable(source=False), *without_source], img2img=[*SCRIPTS, *ALWAYS_ON])


def descriptions(upscalers: list[str]) -> list[ScriptItem]:
    """The scripts of txt2img, then those of img2img. upscalers: the names of all."""
    without_source = (script for script in ALWAYS_ON.values() if not script.needs_source)
    return [*(description(script, upscalers, img2img=False) for script in (*selectable(source=False).values(), *without_source)),
            *(description(script, upscalers, img2img=True) for script in (*SCRIPTS.values(), *ALWAYS_ON.values()))]


def description(script: Script | AlwaysOn, upscalers: list[str], *, img2img: bool) -> ScriptItem:
    args = [ScriptArgument(label=a.label, value=a.value, minimum=a.minimum, maximum=a.maximum, step=a.step,
                           choices=upscalers if a.upscalers else None if a.choices is None else list(a.choices)) for a in script.arguments]
    return ScriptItem(name=script.title.lower(), is_alwayson=isinstance(script, AlwaysOn), is_img2img=img2img, args=args)

"""Widgets for scripts, built from the arguments that each script declares."""

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from typing import Any

import gradio as gr

from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.scripts import ALWAYS_ON, SCRIPTS, AlwaysOn, Script, always_on, arguments, find
from pipeline.scripts.arguments import WIDGET, Argument
from ui.adetailer import DetailerControls, packed_passes, spread_passes
from ui.controlnet import ControlNetControls, packed_units, spread_units
from ui.events import QUEUED
from ui.fields import Slider

NONE = "None"
"""The menu's entry for no script."""


@dataclass
class ScriptControls:
    """The menu, and every script's widgets by "Title.argument"."""

    script_name: gr.Dropdown
    arguments: dict[str, gr.components.Component]
    controlnet: ControlNetControls | None = None
    adetailer: DetailerControls | None = None

    def named(self) -> dict[str, gr.components.Component]:
        sections = [section.named() for section in (self.controlnet, self.adetailer) if section]
        return {"script_name": self.script_name} | self.arguments | {name: widget for named in sections for name, widget in named.items()}


def build_script_menu(upscalers: list[str]) -> ScriptControls:
    """The menu, with the chosen script's widgets below. upscalers: the names of all."""
    menu = gr.Dropdown([NONE, *(script.title for script in SCRIPTS.values())], value=NONE, label="Script", elem_id="script")
    widgets, groups = {}, {}
    for script in SCRIPTS.values():
        with gr.Group(visible=False, elem_classes="script") as groups[script.title]:
            widgets |= build_arguments(script, upscalers)
    menu.change(lambda chosen: [gr.Group(visible=title == chosen) for title in groups], menu, list(groups.values()), **QUEUED)
    return ScriptControls(menu, widgets)


def build_always_on() -> dict[str, gr.components.Component]:
    """Widgets of the always-on scripts, each in its own accordion."""
    widgets = {}
    for script in filter(lambda script: script.arguments, ALWAYS_ON.values()):
        with gr.Accordion(script.title, open=False):
            widgets |= build_arguments(script)
    return widgets


def build_arguments(script: Script | AlwaysOn, upscalers: list[str] | None = None) -> dict[str, gr.components.Component]:
    widgets = {}
    for spec, known in described(script):
        if not known.label:
            gr.Markdown(known.value, container=True)
        elif known.on_page is WIDGET:
            widgets[f"{script.title}.{spec.name}"] = (
                gr.Dropdown(upscalers, value=known.value, label=known.label) if known.upscalers else widget_for(spec, known))
    return widgets


def described(script: Script | AlwaysOn) -> Iterator[tuple[Field, Argument]]:
    return zip(fields(script.record), script.arguments)


def widget_for(spec: Field, known: Argument) -> gr.components.Component:
    """A widget for the argument's type and range."""
    if isinstance(known.value, tuple):
        return gr.CheckboxGroup(list(known.choices), value=list(known.value), label=known.label)
    if known.choices is not None:
        return gr.Dropdown(list(known.choices), value=known.value, label=known.label)
    if isinstance(known.value, bool):
        return gr.Checkbox(known.value, label=known.label)
    if spec.type in (int, float):
        return Slider(known.minimum, known.maximum, value=known.value, step=known.step, label=known.label)
    return gr.Textbox(known.value, lines=1, max_lines=12, label=known.label)


def packed(values: dict[str, Any]) -> dict[str, Any]:
    """Values by widget, with the scripts' widgets packed into the request's fields script_name, script_args, alwayson_scripts.

    Missing values get their default, or the page's own value.
    """
    values = dict(values)
    chosen = values.pop("script_name", NONE)
    given = {script.title: [values.pop(f"{script.title}.{spec.name}", known.value if known.on_page is WIDGET else known.on_page)
                            for spec, known in described(script)]
             for script in (*SCRIPTS.values(), *ALWAYS_ON.values())}
    always = packed_units(values) | packed_passes(values) | {script.title: {"args": given[script.title]} for script in ALWAYS_ON.values() if script.arguments and given[script.title][0]}
    if chosen == NONE:
        return values | {"alwayson_scripts": always}
    return values | {"script_name": chosen, "script_args": given[chosen], "alwayson_scripts": always}


def spread(p: StableDiffusionProcessingImg2Img) -> dict[str, Any]:
    """The scripts' widget values for an earlier request: the inverse of packed()."""
    values: dict[str, Any] = {"script_name": NONE}
    if p.script_name:
        script = find(p.script_name)
        values = {"script_name": script.title} | filled(
            script, arguments.read(script.record, p.script_args, name="script_args", title=script.title))
    given = {script.title: record for script, record in always_on(p.alwayson_scripts)}
    for script in ALWAYS_ON.values():
        values |= filled(script, given.get(script.title) or script.record())
    return values | spread_units(p) | spread_passes(p)


def filled(script: Script | AlwaysOn, record: Any) -> dict[str, Any]:
    """A script's record as widget values."""
    return {f"{script.title}.{spec.name}": list(value) if isinstance(value := getattr(record, spec.name), tuple) else value
            for spec, known in described(script) if known.label and known.on_page is WIDGET}

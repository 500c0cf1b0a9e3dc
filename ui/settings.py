"""The tab Settings: every effective option with its explanation; saved values apply from then on."""

import json
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.options import SPECS, Options, OptionSpec
from pipeline.settings import Settings
from pipeline.small_files import reason
from ui.events import QUEUED, tell
from ui.fields import widget_for


@dataclass
class SettingsTab:
    """The tab's components."""

    widgets: dict[str, gr.components.Component]
    """By option name."""
    save: gr.Button


def build_settings(upscalers: list[str]) -> SettingsTab:
    """upscalers: the names of all."""
    widgets = {}
    with gr.Row(elem_classes="with-refresh"):
        gr.Markdown("Settings are remembered and apply to all later pictures, also over the API.")
        save = gr.Button("Save", variant="primary", scale=0, min_width=120, interactive=False, elem_id="settings-save")
    gr.HTML(search_html(), padding=False, elem_id="settings-search")
    for title, group in grouped().items():
        with gr.Accordion(title, open=title == "img2img", elem_id=group_id(title), elem_classes="settings-group"):
            with gr.Row():
                widgets |= {spec.name: widget_for(spec.name, min_width=300, elem_id=f"option-{spec.name}",
                                                   choices=upscalers if spec.name == "upscaler_for_img2img" else None) for spec in group}
    return SettingsTab(widgets, save)


def grouped() -> dict[str, list[OptionSpec]]:
    """Title → its options, in order."""
    groups: dict[str, list[OptionSpec]] = {}
    for spec in SPECS.values():
        if not spec.on_make:
            groups.setdefault(spec.group, []).append(spec)
    return groups


def group_id(title: str) -> str:
    """Of a group's element in the page."""
    return f"settings-{'-'.join(''.join(letter if letter.isalnum() else ' ' for letter in title).lower().split())}"


def search_html() -> str:
    """The field that finds options, with all that they are found by: Gradio makes a group's widgets when it is first opened."""
    options = [{"name": spec.name, "group": group_id(title), "texts": [spec.label, spec.name, spec.sentence]}
               for title, group in grouped().items() for spec in group]
    return (f'<div data-options="{escape(json.dumps(options))}"><input type="search" aria-label="Search the settings" '
            'placeholder="Search by words, or by the name in the API"><span role="status"></span></div>')


def wire_settings(tab: gr.Tab, page: SettingsTab, settings: Settings, engine: Engine) -> None:
    shown = gr.State({})
    outputs = [shown, page.save, *page.widgets.values()]
    gr.on(None, partial(brought_up_to_date, page, shown, engine, {}), None, outputs, **QUEUED)  # when the page is opened
    tab.select(partial(refreshed, page, shown, engine), shown, outputs, **QUEUED)
    page.save.click(partial(save, page, shown, settings, engine), shown, outputs, inputs_kwargs=page.widgets, **QUEUED)


def refreshed(page: SettingsTab, shown: gr.State, engine: Engine, before: dict[str, Any]) -> dict[gr.blocks.Block, Any]:
    """Updates when the tab is opened, unless the page's own opening is still running: that sets them."""
    return brought_up_to_date(page, shown, engine, before) if before else {shown: before}


def brought_up_to_date(page: SettingsTab, shown: gr.State, engine: Engine, before: dict[str, Any]) -> dict[gr.blocks.Block, Any]:
    """Updates for options that have changed since the widgets were set; the others stay, as somebody may be typing."""
    now = {name: getattr(engine.options, name) for name in page.widgets}
    changed = {name: value for name, value in now.items() if name not in before or before[name] != value}
    return {shown: now, page.save: gr.Button(interactive=True)} | {page.widgets[name]: value for name, value in changed.items()}


def save(page: SettingsTab, shown: gr.State, settings: Settings, engine: Engine, before: dict[str, Any],
         **values: Any) -> dict[gr.blocks.Block, Any]:
    """Set and remember the changed options, all or none."""
    values = {name: None if value == "" and getattr(Options(), name) is None else value for name, value in values.items()}
    changed = {name: value for name, value in values.items() if value != before.get(name)}
    try:
        settings.change(changed)
    except OSError as error:
        raise PalimpsestError(f"The settings stay until the program ends, but could not be saved: {reason(error)}") from error
    finally:
        engine.options = settings.options
    tell("Saved." if changed else "Nothing has changed.")
    return brought_up_to_date(page, shown, engine, values)

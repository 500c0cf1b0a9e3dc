"""The tab Settings: every option that acts, with the sentence that explains it; what is saved holds from then on."""

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from functools import partial
from itertools import groupby
from typing import Any

import gradio as gr

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.options import Options
from pipeline.settings import Settings
from ui.events import QUEUED, tell

GROUPS = {"CLIP_stop_at_last_layers": "Prompts", "sdxl_crop_top": "SDXL", "randn_source": "Noise",
          "img2img_fix_steps": "img2img", "add_model_hash_to_info": "Infotext", "sd_lora": "LoRA and embeddings",
          "eta_ancestral": "Sampling", "samples_format": "Pictures that the API gives", "live_previews_enable": "Watching"}
"""The option that a group begins with → its title."""
ELSEWHERE = ("sd_model_checkpoint", "sd_vae", "show_progress_type", "step_cache_interval", "step_cache_threshold",
             "guidance_start", "guidance_stop", "token_merging_ratio", "edit_reuse")
"""Options that are chosen where pictures are made."""


@dataclass
class SettingsTab:
    """What the tab holds."""

    widgets: dict[str, gr.components.Component]
    """By the option's name."""
    save: gr.Button


def build_settings() -> SettingsTab:
    widgets = {}
    with gr.Row(elem_classes="with-refresh"):
        gr.Markdown("What is set here is remembered, and holds for every picture from then on, for the API's too.")
        save = gr.Button("Save", variant="primary", scale=0, min_width=120, interactive=False, elem_id="settings-save")
    for title, group in grouped():
        with gr.Accordion(title, open=title == "img2img", elem_classes="settings-group"):
            with gr.Row():
                widgets |= {spec.name: widget_for(spec) for spec in group}
    return SettingsTab(widgets, save)


def grouped() -> Iterator[tuple[str, list[Field]]]:
    """(title, its options), in their order."""
    title = ""

    def title_of(spec: Field) -> str:
        nonlocal title
        title = GROUPS.get(spec.name, title)
        return title

    shown = [spec for spec in fields(Options) if spec.name not in ELSEWHERE]
    return ((name, list(group)) for name, group in groupby(shown, title_of))


def widget_for(spec: Field) -> gr.components.Component:
    """A widget of the option's kind and range. Its label is the option's name, as requests spell it."""
    low, high, choices, sentence = (spec.metadata[key] for key in ("low", "high", "choices", "sentence"))
    about = {"value": spec.default, "label": spec.name, "info": sentence, "min_width": 300, "elem_id": f"option-{spec.name}"}
    if choices is not None:
        return gr.Dropdown(list(choices), **about)
    if isinstance(spec.default, bool):
        return gr.Checkbox(**about)
    if isinstance(spec.default, int | float):
        return gr.Number(minimum=low, maximum=high, precision=0 if isinstance(spec.default, int) else None, **about)
    return gr.Textbox(**about)


def wire_settings(tab: gr.Tab, page: SettingsTab, settings: Settings, engine: Engine) -> None:
    shown = gr.State({})
    outputs = [shown, page.save, *page.widgets.values()]
    gr.on(None, partial(brought_up_to_date, page, shown, engine, {}), None, outputs, **QUEUED)  # when the page is opened
    tab.select(partial(refreshed, page, shown, engine), shown, outputs, **QUEUED)
    page.save.click(partial(save, page, shown, settings, engine), shown, outputs, inputs_kwargs=page.widgets, **QUEUED)


def refreshed(page: SettingsTab, shown: gr.State, engine: Engine, before: dict[str, Any]) -> dict[gr.blocks.Block, Any]:
    """The same when the tab is opened, unless the page's own opening is still on its way: that sets them."""
    return brought_up_to_date(page, shown, engine, before) if before else {shown: before}


def brought_up_to_date(page: SettingsTab, shown: gr.State, engine: Engine, before: dict[str, Any]) -> dict[gr.blocks.Block, Any]:
    """What has changed since the widgets were set; the others stay as they are, with what somebody may be typing."""
    now = {name: getattr(engine.options, name) for name in page.widgets}
    changed = {name: value for name, value in now.items() if name not in before or before[name] != value}
    return {shown: now, page.save: gr.Button(interactive=True)} | {page.widgets[name]: value for name, value in changed.items()}


def save(page: SettingsTab, shown: gr.State, settings: Settings, engine: Engine, before: dict[str, Any],
         **values: Any) -> dict[gr.blocks.Block, Any]:
    """Set and remember what was changed here, all of it or nothing."""
    values = {name: None if value == "" and getattr(Options(), name) is None else value for name, value in values.items()}
    changed = {name: value for name, value in values.items() if value != before.get(name)}
    try:
        settings.change(changed)
    except OSError as error:
        raise PalimpsestError(f"The settings hold until the program ends, but could not be written: {error}") from error
    finally:
        engine.options = settings.options
    tell("Saved." if changed else "Nothing was changed.")
    return brought_up_to_date(page, shown, engine, values)

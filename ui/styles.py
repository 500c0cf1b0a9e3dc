"""Prompt styles: choose them in a menu, write them into the prompts, edit them."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from pipeline.errors import PalimpsestError
from pipeline.small_files import reason
from pipeline.styles import StyleDatabase
from ui.controls import Controls
from ui.events import QUEUED, tell


@dataclass
class StyleEditor:
    """The editor below the menu."""

    group: gr.Group
    opened: gr.State
    """Whether it is open."""
    name: gr.Dropdown
    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    take: gr.Button
    save: gr.Button
    delete: gr.Button

    @property
    def texts(self) -> list[gr.components.Component]:
        return [self.prompt, self.negative_prompt]


def build_style_editor(styles: StyleDatabase) -> StyleEditor:
    with gr.Group(visible=False, elem_id="style-editor") as group:
        name = gr.Dropdown(list(styles.styles), value=None, allow_custom_value=True, label="Style",
                           info="An existing one, or the name of a new one", elem_id="style-name")
        prompt = gr.Textbox(label="Style's prompt", lines=1, max_lines=6, info="{prompt} stands for the prompt's own text",
                            elem_id="style-prompt")
        negative_prompt = gr.Textbox(label="Style's negative prompt", lines=1, max_lines=6, elem_id="style-negative-prompt")
        with gr.Row():
            take = gr.Button("Take the prompts", size="sm", elem_id="style-take")
            save = gr.Button("Save", size="sm", variant="primary", elem_id="style-save")
            delete = gr.Button("Delete", size="sm", variant="stop", elem_id="style-delete")
    return StyleEditor(group, gr.State(False), name, prompt, negative_prompt, take, save, delete)


def wire_styles(apply: gr.Button, styles: StyleDatabase, controls: Controls) -> None:
    """The button that writes the chosen styles into the prompts."""
    prompts = [controls.prompt, controls.negative_prompt]

    def write(names: list[str], prompt: str, negative_prompt: str) -> tuple[str, str, list]:
        return styles.apply_styles(prompt, names), styles.apply_negative_styles(negative_prompt, names), []

    apply.click(write, [controls.styles, *prompts], [*prompts, controls.styles], **QUEUED)


def wire_style_editor(edit: gr.Button, editor: StyleEditor, styles: StyleDatabase, controls: Controls) -> None:
    """edit: the button that opens and closes it."""
    edit.click(lambda opened: (not opened, gr.Group(visible=not opened)), editor.opened, [editor.opened, editor.group], **QUEUED)
    menus = [controls.styles, editor.name]
    editor.name.input(partial(texts_of, styles), editor.name, editor.texts, **QUEUED)
    editor.take.click(lambda *prompts: prompts, [controls.prompt, controls.negative_prompt], editor.texts, **QUEUED)
    editor.save.click(partial(save, styles), [editor.name, *editor.texts, controls.styles], menus, **QUEUED)
    editor.delete.click(partial(delete, styles), [editor.name, controls.styles], [*menus, *editor.texts], **QUEUED)


def texts_of(styles: StyleDatabase, name: str | None) -> list[Any]:
    """A style's two texts; for an unknown name, what has been typed so far stays."""
    style = styles.styles.get(name or "")
    return [gr.skip(), gr.skip()] if style is None else [style.prompt, style.negative_prompt]


def save(styles: StyleDatabase, name: str | None, prompt: str, negative_prompt: str, chosen: list[str]) -> list[gr.Dropdown]:
    styles.put((name or "").strip(), prompt, negative_prompt)
    write(styles)
    tell("Saved.")
    return menus(styles, chosen, (name or "").strip())


def delete(styles: StyleDatabase, name: str | None, chosen: list[str]) -> list[Any]:
    styles.remove(name or "")
    write(styles)
    return [*menus(styles, chosen, None), "", ""]


def write(styles: StyleDatabase) -> None:
    """Write the styles to their file. Raises PalimpsestError."""
    try:
        styles.save()
    except OSError as error:
        raise PalimpsestError(f"The styles stay until the program ends, but could not be saved: {reason(error)}") from error


def menus(styles: StyleDatabase, chosen: list[str], edited: str | None) -> list[gr.Dropdown]:
    """Both menus with the current styles."""
    names = list(styles.styles)
    return [gr.Dropdown(names, value=[name for name in chosen if name in names]), gr.Dropdown(names, value=edited)]

"""The page: making pictures, history, picture files' data; and passing pictures between them."""

from functools import partial

import gradio as gr

from pipeline.drafts import Drafts
from pipeline.engine import Engine
from pipeline.families.base import ModelInfo
from pipeline.img2img import Mode
from pipeline.loading import ModelStore
from pipeline.settings import Settings
from pipeline.upscalers.names import Upscalers
from ui.canvas import SEND, Shown
from ui.controls import changing_menus
from ui.editor import File
from ui.events import QUEUED
from ui.extras import EXTRAS, SINGLE, ExtrasTab, build_extras, wire_extras
from ui.history import build_history, wire_history
from ui.making import MAKE, Making, build_header, build_making
from ui.past import Past, wire_opening, wire_past
from ui.pasted import wire_reading
from ui.png_info import PngInfo, build_png_info, wire_png_info
from ui.restore import restored, settings_in
from ui.session import Session, forget_closed, wire_resuming, wire_session
from ui.settings import build_settings, wire_settings
from ui.stream import Folders, Update, hand_out
from ui.tabs import TAB_LABELS, Sample
from ui.workers import build_workers

KEYS = [(("Ctrl", "Enter"), "Generate"), (("Esc",), "Interrupt"), (("Ctrl", "↑"), "More weight for a word of the prompt: (word:1.1)"),
        (("Ctrl", "↓"), "Less weight"), (("Ctrl", "V"), "Paste a picture into the open tab"), (("`",), "Hold to see the source"),
        (("←", "→"), "Another result, where the result has the focus"), (("/",), "Search the settings or the history"),
        (("?",), "This list")]
CANVAS_KEYS = [(("B",), "Brush"), (("E",), "Eraser"), (("L",), "Lasso"), (("P",), "Polygon"),
               (("S",), "Lasso that snaps to edges"), (("R",), "Rectangle"), (("O",), "Ellipse"), (("F",), "Fill what has one colour"),
               (("C",), "Select a colour everywhere"), (("A",), "Select an object by a box or a stroke"),
               (("W",), "Select an object by clicks"), (("Alt",), "With a click: this is not part of the object"), (("N",), "Next object"),
               (("G",), "Gradient"), (("X",), "Extend the picture at its edges"), (("H",), "Show what Generate will do"),
               (("[", "]"), "Smaller or larger brush"), (("{", "}"), "Softer or harder brush"),
               (("Shift",), "A straight line from where the last stroke ended"), (("Ctrl", "Z"), "Undo"), (("Ctrl", "Shift", "Z"), "Redo"),
               (("M",), "Grow, shrink, feather or smooth the mask"),
               (("I",), "Invert the mask"), (("Del",), "Clear the mask"), (("V",), "Hide or show the mask"),
               (("Space",), "Drag the picture"), (("0",), "Fit"), (("1",), "Show at 100 %"), (("+", "-"), "Nearer or farther"),
               (("↑", "↓", "←", "→"), "Move the tool"), (("Enter",), "Set the tool down, and lift it")]


def build_page(page: gr.Blocks, engine: Engine, models: ModelStore, info: ModelInfo, folders: Folders, samples: list[Sample], *,
               settings: Settings, drafts: Drafts, shared: bool) -> None:
    """Lay out the page inside `page`, which is open, and wire it.

    info: of the model loaded at the start. shared: there are visitors, who see only their own jobs and change no settings.
    """
    session = Session()
    gr.HTML(keys_html(), elem_id="keys")
    header = build_header(models)
    if shared:
        gr.Markdown(shared_line(engine.limits.pictures), elem_id="shared")
    with gr.Tabs(selected=MAKE, overflow_behavior="wrap", elem_id="pages") as pages:
        with gr.Tab("Make", id=MAKE):
            making = build_making(engine, models, info, samples, header, pages, session, folders, drafts, shared=shared)
        wire_reading(making.reading, making.controls, making.panel, engine, models)
        opened = wire_session(page, session, making.controls, engine, models, making.panel)
        if engine.journal is not None:
            with gr.Tab("History", id="history") as tab:
                history = build_history()
            past = Past(engine, models, making, folders)
            wire_history(history, engine.journal, tab, session.client, shared=shared)
            wire_past(past, history, session)
            opened = wire_opening(past, opened, session)
        if not shared:
            with gr.Tab("Extras", id=EXTRAS):
                extras = build_extras(Upscalers(models.catalog).names(), TAB_LABELS, drafts)
            wire_extras(extras, engine, models, session, folders.extras)
            wire_sending(extras, making, pages)
        with gr.Tab("PNG info", id="png_info"):
            png_info = build_png_info(TAB_LABELS, drafts, extras=not shared)
        if not shared:
            wire_enlarging(png_info, extras, pages)
        wire_png_info(png_info, engine, models.catalog, session, shared=shared)
        wire_pasting(png_info, making, engine, models)
        if not shared:
            with gr.Tab("Settings", id="settings") as tab:
                wire_settings(tab, build_settings(Upscalers(models.catalog).names()), settings, engine)
            if len(engine.workers()) > 1:
                with gr.Tab("Workers", id="workers") as tab:
                    build_workers(tab, engine)
    wire_resuming(session, engine, making.panel, opened)
    page.unload(partial(forget_closed, page))


def shared_line(quota: int) -> str:
    """The note for visitors. quota: pictures per hour; 0: unlimited."""
    limit = f"; {quota} pictures an hour" if quota else ""
    return f"Shared page: pictures you make are saved on its owner's machine{limit}."


def wire_sending(extras: ExtrasTab, making: Making, pages: gr.Tabs) -> None:
    """Extras' buttons that send its selected result to a mode, and the results' button that sends one to Extras."""
    def fill(mode: Mode, results: list[str], index: int) -> Update:
        return making.modes[mode].loaded(results[min(index, len(results) - 1)])

    for mode, button in extras.sends.items():
        making.bring(button.click, partial(Mode, mode.value), [], partial(fill, mode), [extras.results, extras.selected])
    making.to_extras.click(lambda results, index: (gr.Tabs(selected=EXTRAS), Shown(results.at(index).file), SINGLE),
                           [making.panel.results, making.panel.selected], [pages, extras.picture, extras.inputs["source"]], **QUEUED)


def wire_enlarging(info: PngInfo, extras: ExtrasTab, pages: gr.Tabs) -> None:
    """PNG info's button that sends its picture to Extras."""
    info.to_extras.click(lambda files: (gr.Tabs(selected=EXTRAS), Shown(hand_out(files[0], extras.picture)), SINGLE), info.picture,
                         [pages, extras.picture, extras.inputs["source"]], js=SEND, **QUEUED)


def wire_pasting(info: PngInfo, making: Making, engine: Engine, models: ModelStore) -> None:
    """PNG info's buttons that send a picture and its settings to a mode."""
    def fill(mode: Mode, files: tuple[File, File], text: str | None) -> Update:
        tab = making.modes[mode]
        shown = tab.loaded(hand_out(files[0], tab.canvas))
        if text is None:
            return shown
        settings = settings_in(text, making.controls, models.catalog, engine.options, engine.styles)
        return shown | restored(making.controls, settings, changing_menus(models, engine.styles))

    for mode, button in info.sends.items():
        making.bring(button.click, partial(Mode, mode.value), [], partial(fill, mode), [info.picture, info.infotext])


def keys_html() -> str:
    """The page's keys, shown by "?"."""
    def table(rows: list) -> str:
        lines = (f"<tr><td>{''.join(f'<kbd>{key}</kbd>' for key in keys)}</td><td>{what}</td></tr>" for keys, what in rows)
        return f"<table>{''.join(lines)}</table>"

    return (f'<dialog aria-label="Keys"><div><section><h2>Keys</h2>{table(KEYS)}</section>'
            f'<section><h2>On the canvas</h2>{table(CANVAS_KEYS)}</section></div>'
            '<form method="dialog"><button>Close</button></form></dialog>')

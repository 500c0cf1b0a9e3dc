"""What a browser keeps over a reload: its id, its widgets' values, and its running job."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import gradio as gr

from pipeline import verify
from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.img2img import Mode
from pipeline.journal import Entry
from pipeline.limits import Client, network_of
from pipeline.loading import ModelStore
from pipeline.series import SHOWN
from ui.adetailer import STANDING as DETECTORS
from ui.controlnet import STANDING, UNITS_OFF
from ui.controls import Controls, changing_menus, shown_for, takes_references
from ui.events import QUEUED, QUIET, fits, lingering
from ui.fields import Seed
from ui.restore import listed, updates
from ui.stream import PAGE, Panel, Update, follow
from ui.visit import Result, Visit

STORED = {"secret": "palimpsest"}
"""Constant, or stored values would be lost at every start of the program. It hides nothing from its own browser."""

RESUMED = 60
"""Results to show again after a reload."""
VISIT = 12 * 3600
"""Seconds before its last job at which a visit starts."""
CLOSED = 8
"""Closed pages that Gradio keeps: a page that lost its connection looks closed, and may come back."""


class BrowserId(gr.BrowserState):
    """An unguessable id. Other values are ignored, so that no browser can pose as an API client."""

    is_template = True

    def preprocess(self, payload: Any) -> str:
        return payload if isinstance(payload, str) and re.fullmatch("[0-9a-f]{32}", payload) else ""


class Stored(gr.BrowserState):
    """Values by name. Anything else is ignored."""

    is_template = True

    def preprocess(self, payload: Any) -> dict[str, Any]:
        return payload if isinstance(payload, dict) else {}


class Session:
    """Values in the browser's local storage."""

    def __init__(self) -> None:
        self.client = BrowserId("", storage_key="palimpsest-client", **STORED)
        """The client's id, created on the browser's first visit."""
        self.settings = Stored({}, storage_key="palimpsest-settings", **STORED)
        """Field name → its widget's value."""
        self.modules = Stored({}, storage_key="palimpsest-modules", **STORED)
        """Checkpoint → (VAE, text encoders) that were last chosen for it."""
        self.sound = gr.BrowserState(False, storage_key="palimpsest-sound", **STORED)
        """Whether to play a sound at the end of a job."""


def wire_session(page: gr.Blocks, session: Session, controls: Controls, engine: Engine, models: ModelStore,
                 panel: Panel) -> gr.events.Dependency:
    """An opened page gets the current models and its own settings. Returns the event that does this."""
    named = controls.named()
    names = ", ".join(f'"{name}"' for name in named)
    # not `change`: Gradio 6.31 would then undo what is typed into a slider that an event has set
    kept = [*(widget.input for widget in named.values()), *(button.click for button in panel.generates)]
    gr.on(kept, None, list(named.values()), session.settings,
          js=f"(...values) => Object.fromEntries([{names}].map((name, i) => [name, values[i]]))", **QUIET)
    panel.sound.input(None, panel.sound, session.sound, js="(on) => on", **QUIET)
    # page.load, because gr.on(None, ...) would also listen to changes of stored values
    page.load(lambda on: on is True, session.sound, panel.sound, **QUEUED)
    return page.load(partial(opened, session, controls, engine, models), [session.client, session.settings],
                     [session.client, *named.values(), *controls.references().values()], **QUEUED)


def forget_closed(page: gr.Blocks) -> None:
    """Drop Gradio's data of closed pages, one or two MiB each, except the most recently used."""
    pages = page.state_holder.session_data
    closed = [name for name, kept in list(pages.items()) if kept.is_closed]
    for name in closed[:-CLOSED]:
        pages.pop(name, None)


def asked_by(handler: Callable[..., Iterator[Update]]) -> Callable[..., Iterator[Update]]:
    """Turns a handler that takes a Client into an event handler that takes the browser's id as its first input."""
    def handle(request: gr.Request, browser: str, *inputs: Any, **named: Any) -> Iterator[Update]:
        yield from lingering(handler(Client(browser, network_of(request.client.host)), *inputs, **named))

    return handle


def wire_resuming(session: Session, engine: Engine, panel: Panel, opened: gr.events.Dependency) -> None:
    """Afterwards the page finds its running job, or its last pictures."""
    def found(client: str, visit: Visit) -> Iterator[Update]:
        yield from lingering(resume(engine, panel, client, visit))

    opened.then(found, [session.client, panel.results], panel.outputs, **QUEUED)


def opened(session: Session, controls: Controls, engine: Engine, models: ModelStore, client: str,
           settings: dict[str, Any]) -> Update:
    """The page as this browser left it, except menu choices that no longer exist."""
    try:
        chosen = models.find(engine.options)[0]
    except PalimpsestError:
        chosen = models.default
    models.catalog.hashed(chosen)  # the menu shows it with its hash
    named, menus = controls.named(), changing_menus(models, engine.styles)
    standing = {"sd_model_checkpoint": chosen.rel, "sd_vae": engine.options.sd_vae, "sd_text_encoders": listed(engine.options.sd_text_encoders),
                "sd_model_kind": engine.options.sd_model_kind,
                "refiner_checkpoint": "", "styles": [],
                **STANDING, **DETECTORS}
    # a unit whose picture is gone would take the source instead
    kept = {name: value for name, value in settings.items()
            if name in named and name not in menus and name not in UNITS_OFF and possible(named[name], value)}
    chosen_here, _ = updates(controls, {name: settings[name] for name in menus if settings.get(name)}, menus)
    update = updates(controls, standing, menus)[0] | chosen_here | {named[name]: value for name, value in kept.items()}
    checkpoint = update[controls.sd_model_checkpoint]["value"]
    kind = kept.get("sd_model_kind", engine.options.sd_model_kind)
    shown = shown_for(models, checkpoint, kind)
    update[controls.sd_text_encoders] |= {"visible": shown["sd_text_encoders"]}
    return update | {
        session.client: client or uuid4().hex,
        controls.sd_model_kind: gr.Dropdown(value=kind, visible=shown["sd_model_kind"]),
        controls.image_cfg_scale: gr.Slider(value=kept.get("image_cfg_scale", 1.5), visible=shown["image_cfg_scale"]),
        controls.distilled_cfg_scale: gr.Slider(value=kept.get("distilled_cfg_scale", 3.5), visible=shown["distilled_cfg_scale"])} | dict.fromkeys(
            controls.references().values(), takes_references(models, checkpoint, kind))


def possible(widget: gr.components.Component, value: Any) -> bool:
    """Whether a current widget can show a value from an earlier version."""
    if isinstance(widget, Seed):
        return isinstance(value, str | int)  # a number in an earlier version
    return fits(widget, value)


def resume(engine: Engine, panel: Panel, client: str, visit: Visit) -> Iterator[Update]:
    """Show this browser's recent results, last job first, and its running or waiting job."""
    yield {panel.job_id: None}  # an event that yields nothing would clear all outputs
    if client and engine.journal is not None:
        entries = engine.journal.search(client=client, limit=RESUMED)
        for some in (last_of(entries), visit_of(entries)):
            known = len(visit)
            visit.add(shown_again(panel, some))
            if len(visit) > known:
                yield panel.show(visit)
    job = next((job for job in engine.jobs() if client and job.client.id == client and job.mode != verify.MODE), None)
    if job is not None:
        yield panel.start(job.id)
        yield from follow(panel, visit, job.id, job.events(**PAGE))


def shown_again(panel: Panel, entries: list[Entry]) -> list[Result]:
    """The pictures of jobs, newest job first, in the order they were shown."""
    results: list[Result] = []
    for entry in entries:
        made = [panel.result(kept.path, kept.infotext, job_of(entry), favourite=kept.favourite) for kept in entry.pictures
                if kept.path.exists()]
        results += sorted(made, key=lambda result: result.kind != "grid")  # a grid is saved last but shown first
    return results[:RESUMED]


def last_of(newest: list[Entry]) -> list[Entry]:
    """The last job's entry, or its newest files if it is a batch."""
    return [entry for entry in newest if job_of(entry) == job_of(newest[0])][:SHOWN]


def visit_of(newest: list[Entry]) -> list[Entry]:
    """The jobs of the last job's visit."""
    return [entry for entry in newest if entry.created > newest[0].created - VISIT]


def job_of(entry: Entry) -> str:
    """The id of a job, or of the batch that a file belongs to."""
    return entry.mode == Mode.BATCH.value and entry.id.rpartition("-")[0] or entry.id

"""The tab History: finds jobs and pictures by words, model or day, and restores them with all their settings."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.errors import PalimpsestError
from pipeline.journal import Entry, Journal, Picture
from ui.events import CONFIRM, QUEUED
from ui.fields import Day
from ui.stream import hand_out

PAGE = 48
"""Jobs shown at once."""
THUMBNAIL = (256, 256)
NOTHING = {"interrupted": "interrupted", "failed": "failed", "queued": "waiting", "running": "running", "done": "not saved"}
"""Shown instead of a picture, by the job's state."""
NOTHING_YET = "There is nothing here yet: what you make is kept here, with all that is needed to make it again."
NO_MATCH = "Nothing matches this search."
"""Both are shown by the stylesheet if there is no picture."""


@dataclass
class History:
    """The tab's components."""

    words: gr.Textbox
    model: gr.Textbox
    since: gr.DateTime
    favourites: gr.Checkbox
    gallery: gr.Gallery
    nothing: gr.HTML
    """Said if there is nothing to show."""
    more: gr.Button
    rows: gr.State
    """List of (job id, picture id or None), parallel to the gallery."""
    chosen: gr.State
    """The clicked row, or None."""
    details: gr.Column
    picture: gr.Image
    close: gr.Button
    """Only on a phone, where the details cover the list."""
    about: gr.Markdown
    infotext: gr.Textbox
    restore: gr.Button
    again: gr.Button
    proceed: gr.Button
    """Continues an interrupted job; hidden for others."""
    favour: gr.Button
    delete: gr.Button
    confirmed: gr.Checkbox
    """Whether deletion was confirmed."""

    @property
    def question(self) -> list[gr.components.Component]:
        return [self.words, self.model, self.since, self.favourites]

    @property
    def listed(self) -> list[gr.blocks.Block]:
        """Components that a search fills."""
        return [self.gallery, self.nothing, self.rows, self.more]

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """Components that a chosen job fills."""
        return [self.chosen, self.details, self.picture, self.about, self.infotext, self.favour, self.proceed]


def build_history() -> History:
    with gr.Row():
        words = gr.Textbox(label="Search", max_lines=1, placeholder="Words", scale=4, min_width=180, elem_id="history-words")
        model = gr.Textbox(label="Model", max_lines=1, placeholder="Its name", scale=2, min_width=140, elem_id="history-model")
        since = Day(label="Since", include_time=False, type="timestamp", scale=2, min_width=200,
                            elem_id="history-since")
        favourites = gr.Checkbox(label="Favourites", scale=1, min_width=130, elem_id="history-favourites")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=340):
            gallery = gr.Gallery(label="Newest first", columns=6, height=560, object_fit="cover", allow_preview=False,
                                 interactive=False, format="jpeg", buttons=[], elem_id="history")
            nothing = gr.HTML("", elem_id="history-nothing")
            more = gr.Button("Show more", size="sm", visible=False, elem_id="history-more")
        with gr.Column(scale=5, min_width=340, visible=False, elem_id="history-details") as details:
            close = gr.Button("Close", elem_id="history-close", elem_classes="sign")
            picture = gr.Image(label="Picture", height=380, format="png", interactive=False, buttons=["download", "fullscreen"],
                               elem_id="history-picture")
            about = gr.Markdown(elem_id="history-about")
            with gr.Row(elem_id="history-buttons"):
                restore = gr.Button("Restore everything", variant="primary", size="sm", min_width=80, elem_id="history-restore")
                proceed = gr.Button("Continue", size="sm", min_width=80, visible=False, elem_id="history-continue")
                again = gr.Button("Run again", size="sm", min_width=80, elem_id="history-again")
                favour = gr.Button("Favourite", size="sm", min_width=80, elem_id="history-favour")
                delete = gr.Button("Delete", size="sm", variant="stop", min_width=80, elem_id="history-delete")
            infotext = gr.Textbox(label="Infotext", lines=4, max_lines=12, buttons=["copy"], interactive=False,
                                  elem_id="history-infotext")
    return History(words, model, since, favourites, gallery, nothing, more, gr.State([]), gr.State(), details, picture, close, about, infotext,
                   restore, again, proceed, favour, delete, gr.Checkbox(visible="hidden"))


def wire_history(history: History, journal: Journal, tab: gr.Tab, client: gr.BrowserState, *, shared: bool) -> None:
    """shared: there are visitors, so each browser sees only its own jobs."""
    find = partial(found, history, journal, shared)
    asked = [client, *history.question]
    # always_last: a search made while another is running is not lost
    gr.on([tab.select, history.favourites.input, history.words.submit, history.model.submit, history.since.change], find, asked,
          history.listed, trigger_mode="always_last", **QUEUED)
    history.more.click(partial(found_more, history, journal, shared), [history.rows, *asked], history.listed, **QUEUED)
    history.close.click(lambda: gr.Column(visible=False), None, history.details, **QUEUED)

    def choose(rows: list, event: gr.SelectData) -> dict:
        return details(history, journal, tuple(rows[event.index]))

    history.gallery.select(choose, history.rows, history.shown, **QUEUED)
    history.favour.click(partial(favour, history, journal), history.chosen, history.favour, **QUEUED)
    history.delete.click(partial(delete, history, journal), [history.chosen, history.confirmed], [history.details], js=CONFIRM,
                         **QUEUED).then(
        find, asked, history.listed, **QUEUED)


def entries(journal: Journal, shared: bool, client: str, words: str, model: str, since: float | None, favourites: bool,
            before: float | None = None) -> list[Entry]:
    return journal.search(words, model=model, since=since, favourites=favourites, client=client if shared else None, limit=PAGE,
                          before=before)


def found(history: History, journal: Journal, shared: bool, *question: Any) -> dict:
    """The newest jobs that match the search."""
    _, *wanted = question
    return listed(history, journal, entries(journal, shared, *question), []) | {
        history.nothing: gr.HTML(NO_MATCH if any(wanted) else NOTHING_YET)}


def found_more(history: History, journal: Journal, shared: bool, rows: list, *question: Any) -> dict:
    """The next jobs that match the search."""
    last = journal.entry(rows[-1][0]) if rows else None
    more = entries(journal, shared, *question, before=last and last.created)
    return listed(history, journal, more, rows)


def listed(history: History, journal: Journal, jobs: list[Entry], before: list) -> dict:
    """The gallery with the jobs' pictures appended to its rows; a job without pictures shows its state."""
    rows = before + [(entry.id, kept) for entry in jobs for kept in ([kept.id for kept in entry.pictures] or [None])]
    known = {id: entry for id in {id for id, _ in rows} if (entry := journal.entry(id))}
    rows = [(id, kept) for id, kept in rows if id in known]
    return {history.gallery: gr.Gallery([tile(history, journal, known[id], kept) for id, kept in rows], visible=bool(rows)), history.rows: rows,
            history.nothing: gr.skip(), history.more: gr.Button(visible=len(jobs) == PAGE)}


def tile(history: History, journal: Journal, entry: Entry, kept: int | None) -> Any:
    """A picture's gallery entry: its thumbnail, with a star if it is a favourite."""
    picture = picture_of(entry, kept)
    thumbnail = None if picture is None else journal.thumbnail(picture)
    if thumbnail is None:
        return Image.new("RGB", THUMBNAIL, "#94a3b8"), NOTHING[entry.state]
    return hand_out(thumbnail, history.gallery), "★" if picture.favourite else None


def picture_of(entry: Entry | None, kept: int | None) -> Picture | None:
    return next((picture for picture in entry.pictures if picture.id == kept), None) if entry else None


def details(history: History, journal: Journal, chosen: tuple) -> dict:
    """Details of the clicked row."""
    entry = journal.entry(chosen[0])
    if entry is None:
        raise PalimpsestError("This job no longer exists; search again.")
    picture = picture_of(entry, chosen[1])
    shown = None if picture is None or not picture.path.exists() else hand_out(picture.path, history.picture)
    return {history.chosen: chosen, history.details: gr.Column(visible=True),
            history.picture: gr.Image(shown, visible=shown is not None),
            history.about: about(entry), history.infotext: picture.infotext if picture else entry.prompt,
            history.favour: favour_button(picture), history.proceed: gr.Button(visible=journal.can_continue(entry))}


def about(entry: Entry) -> str:
    """When and with which model it was made, and how it ended."""
    when = datetime.fromtimestamp(entry.created).strftime("%Y-%m-%d %H:%M")
    state = "" if entry.state == "done" else f" · **{NOTHING[entry.state]}**"
    why = f"\n\n{literally(entry.message)}" if entry.message else ""
    return f"{when} · {literally(entry.model or 'no model yet')}{state}{why}"


def literally(text: str) -> str:
    """Text escaped so that Markdown shows it unchanged."""
    return "".join(f"\\{sign}" if sign in r"\`*_{}[]()<>#+-.!|" else sign for sign in text)


def favour_button(picture: Picture | None) -> gr.Button:
    return gr.Button("★ Favourite" if picture and picture.favourite else "☆ Favourite", interactive=picture is not None)


def favour(history: History, journal: Journal, chosen: tuple) -> gr.Button:
    """Mark the chosen picture as a favourite, or not."""
    picture = picture_of(journal.entry(chosen[0]), chosen[1])
    if picture is not None:
        journal.favour(picture.id, not picture.favourite)
    return favour_button(picture_of(journal.entry(chosen[0]), chosen[1]))


def delete(history: History, journal: Journal, chosen: tuple, confirmed: bool) -> gr.Column:
    """Delete the chosen picture; with its last one, the job."""
    if not confirmed:
        return gr.Column()
    entry = journal.entry(chosen[0])
    if entry is not None:
        journal.discard(entry, chosen[1])
    return gr.Column(visible=False)

"""How page events are sent; an event that fails gives a sentence in a corner of the page."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import singledispatch
from html import escape
from time import monotonic
from traceback import extract_tb
from typing import Any

import gradio as gr
from gradio.exceptions import ComponentProcessingError, InvalidPathError

from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.options import number

logger = logging.getLogger(__name__)

QUIET = {"queue": False, "show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""For events that run only in the browser, or must never wait: no spinner, not offered as an endpoint. The page does not
show their errors, so they must not raise.

The empty list matters: without it, the page searches its component tree for every output of all earlier events, to tell it to
show nothing, at every step of a picture; that took half of its time."""
QUEUED = QUIET | {"queue": True, "concurrency_limit": None}
"""For all other events: errors, gr.Info and gr.Warning reach the page only through the queue."""
LINGER = 1.0
"""Seconds for which an event that goes on repeats its updates: see lingering()."""
CONFIRM = """(...values) => [...values.slice(0, -1),
                           window.confirm(window.palimpsest.translate('Delete the file of this picture?'))]"""
"""The script of a delete button: it asks, and passes the answer as the last input."""


# --- sentences

def error_toast(sentence: str) -> gr.Error:
    """The sentence as a toast. Toasts are HTML, and a sentence may contain text from files or users."""
    return gr.Error(escape(sentence, quote=False), print_exception=False)


def tell(sentence: str) -> None:
    """Show a sentence on the page."""
    gr.Info(escape(sentence, quote=False))


def warn(sentence: str) -> None:
    """Show a sentence on the page, as a warning."""
    gr.Warning(escape(sentence, quote=False))


def lingering(updates: Iterator[Any]) -> Iterator[Any]:
    """The updates of an event, each repeated in those that follow it within LINGER seconds.

    Gradio sends an update as its difference from the one before, and its client (@gradio/client 2, apply_diff_stream) changes the
    earlier one in place, even if the page has not drawn that yet: what the later one leaves out never appears. States stay
    on the server, so they are not repeated. Anything but a dict by component passes as it is.
    """
    recent: dict[gr.blocks.Block, tuple[Any, float]] = {}
    for update in updates:
        if not isinstance(update, dict):
            yield update
            continue
        now = monotonic()
        recent = {block: kept for block, kept in recent.items() if kept[1] > now - LINGER and not block.stateful}
        yield {block: value for block, (value, _) in recent.items()} | update
        recent |= {block: (value, now) for block, value in update.items()}


# --- whatever is sent

class Page(gr.Blocks):
    """gr.Blocks whose events answer invalid data with one sentence instead of a traceback."""

    async def preprocess_data(self, block_fn: Any, inputs: list, state: Any, explicit_call: bool = False) -> list:
        # the state holds a copy of components that events have changed, such as menus with new choices
        blocks = [state[block._id] if not block.stateful and state is not None and block._id in state else block
                  for block in block_fn.inputs]
        if not isinstance(inputs, list) or len(inputs) < len(blocks):
            raise PalimpsestError("This page is older than the running program; reload it.")
        taken = [value if block.stateful else fitting(block, value) for block, value in zip(blocks, inputs)]
        return await super().preprocess_data(block_fn, taken, state, explicit_call)

    async def process_api(self, block_fn: Any, inputs: list, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return await super().process_api(block_fn, inputs, *args, **kwargs)
        except Exception as error:
            raise error_toast(sentence_on(error, getattr(block_fn, "name", block_fn))) from error


def sentence_on(error: Exception, event: object) -> str:
    """The message shown for an error in an event. Unexpected errors are logged."""
    if isinstance(error, ComponentProcessingError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    match error:
        case PalimpsestError():
            return str(error)
        case gr.Error():
            return error.message
        case InvalidPathError() | FileNotFoundError():
            return "A file of this page no longer exists; add the picture again."
    where = extract_tb(error.__traceback__)[-1]
    logger.warning("The page's event %s failed in %s, line %d: %s", event, where.filename, where.lineno, " ".join(repr(error).split())[:300])
    logger.debug("In full:", exc_info=error)
    return f"Something went wrong ({type(error).__name__}); see the program's log. Reloading the page may help."


@singledispatch
def fitting(block: gr.blocks.Block, value: Any) -> Any:
    """An event's data for a component, converted to its type. Raises InvalidRequest if the component cannot hold it."""
    return value


@fitting.register
def _(block: gr.Textbox, value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else refuse(block, "text", value)


@fitting.register
def _(block: gr.Checkbox, value: Any) -> bool:
    return value if isinstance(value, bool) else refuse(block, "on or off", value)


@fitting.register(gr.Slider)
@fitting.register(gr.Number)
def _(block: gr.Slider | gr.Number, value: Any) -> int | float | None:
    # an empty field; whoever needs the number complains
    return None if value is None else number(name_of(block), value, float if isinstance(value, float) else int, None, None)


@fitting.register(gr.Radio)
@fitting.register(gr.Dropdown)
@fitting.register(gr.CheckboxGroup)
def _(block: gr.Radio | gr.Dropdown | gr.CheckboxGroup, value: Any) -> Any:
    several = isinstance(block, gr.CheckboxGroup) or bool(getattr(block, "multiselect", False))
    if value is None:
        return [] if several else None
    if several != isinstance(value, list):
        refuse(block, "a list" if several else "one of its choices", value)
    for one in value if several else [value]:
        if not listed(block, one):
            valid = ", ".join(str(label) for label, _ in block.choices)
            refuse(block, f"one of its choices ({valid})", one)
    return value


def listed(block: gr.Radio | gr.Dropdown | gr.CheckboxGroup, value: Any) -> bool:
    """Whether a menu offers it or allows custom values."""
    return (isinstance(value, str) and getattr(block, "allow_custom_value", False)) or any(
        type(value) is type(choice) and value == choice for _, choice in block.choices)


def fits(block: gr.blocks.Block, value: Any) -> bool:
    """Whether a component can hold a value."""
    with suppress(InvalidRequest):
        return fitting(block, value) is not None
    return False


def refuse(block: gr.blocks.Block, wanted: str, got: Any) -> None:
    said = f'"{got}"' if isinstance(got, str) else "nothing" if got is None else repr(got)
    raise InvalidRequest(name_of(block), f"{name_of(block)} must be {wanted}, got {said[:100]}")


def name_of(block: gr.blocks.Block) -> str:
    return getattr(block, "label", None) or getattr(block, "elem_id", None) or block.get_block_name()

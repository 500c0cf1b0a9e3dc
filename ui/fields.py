"""Fields that leave validation to the request, so that page and API agree; and widgets for options."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import gradio as gr

from pipeline.errors import InvalidRequest
from pipeline.options import SPECS, number
from pipeline.request import WHOLE_NUMBERS


WHOLE = 10**6
"""How many choices a menu shows that is searched whole, not its first hundred: None, for all, is lost on Gradio's way to the browser."""


class Slider(gr.Slider):
    """gr.Slider that shows the usual range but accepts any typed number; the request validates it."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:
        return payload


class Seed(gr.Textbox):
    """A 64-bit integer. Not gr.Number: browsers store numbers as floats, with only 53 bits."""

    is_template = True

    def preprocess(self, payload: str | None) -> int:
        """The number; -1 for an empty field. Raises InvalidRequest."""
        text = (payload or "").strip()
        return number(self.label, text, int, *WHOLE_NUMBERS["seed"]) if text else -1

    def postprocess(self, value: Any) -> str:
        return "" if value is None else str(value)


class Day(gr.DateTime):
    """gr.DateTime with a message for invalid dates."""

    is_template = True

    def preprocess(self, payload: str | None) -> Any:
        try:
            return super().preprocess(payload)
        except (ValueError, TypeError, OverflowError):
            raise InvalidRequest(self.label, f'{self.label}: "{payload}" is not a date; write 2026-01-31, or now - 7d') from None


def widget_for(name: str, *, step: float | None = None, choices: list[str] | None = None, **more: Any) -> gr.components.Component:
    """The widget of an option, from its own description. step: for a slider. choices: names found on this machine."""
    spec = SPECS[name]
    about = {"value": spec.default, "label": spec.label, "info": spec.sentence, **more}
    if step is not None:
        return Slider(spec.low, spec.high, step=step, **about)
    if choices is not None:
        return gr.Dropdown(choices, **about)
    if spec.choices is not None:
        return gr.Dropdown(list(spec.choices), **about)
    if isinstance(spec.default, bool):
        return gr.Checkbox(**about)
    if isinstance(spec.default, int | float):
        return gr.Number(minimum=spec.low, maximum=spec.high, precision=0 if isinstance(spec.default, int) else None, **about)
    return gr.Textbox(**about)


# --- a request's fields without a widget of their own

def as_lines(values: Mapping[str, Any]) -> str:
    """Fields as lines such as "ad_clip_skip: 2", for a box of further fields."""
    return "\n".join(f"{name}: {as_text(value)}" for name, value in values.items())


def as_text(value: Any) -> str:
    """Text as it is, unless it would be read as something else; other values as JSON."""
    return value if isinstance(value, str) and as_value(value) == value else json.dumps(value, ensure_ascii=False)


def as_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_lines(text: str, known: Collection[str]) -> dict[str, Any]:
    """The inverse of as_lines(). Raises InvalidRequest for a line that names none of the known fields."""
    values = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, value = line.partition(":")
        if not colon or name.strip() not in known:
            raise InvalidRequest("others", f'Further fields: "{line}" is not a field with a value, such as {", ".join(list(known)[:3])}')
        values[name.strip()] = as_value(value.strip())
    return values


def build_further(example: str, **more: Any) -> gr.Textbox:
    """The box for such fields."""
    return gr.Textbox("", lines=1, max_lines=8, label="Further fields", info="As in requests, one per line", placeholder=example, **more)


def too_many(title: str, what: str, found: list[Any], most: int) -> list[str]:
    """A sentence, if infotext or a request has more of something than the page."""
    return [f"{title}: the page has {most} {what}; those after it were left out."] if len(found) > most else []

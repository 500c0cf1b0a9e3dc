"""Fields that leave validation to the request, so that page and API agree; and widgets for options."""

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

"""Fields that leave it to the request what is valid, so that it is the same on the page and over the API."""

from typing import Any

import gradio as gr

from pipeline.errors import InvalidRequest
from pipeline.options import number
from pipeline.request import WHOLE_NUMBERS


class Slider(gr.Slider):
    """gr.Slider that shows the usual range and takes any number that is typed: the request says what is valid."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | None:
        return payload


class Seed(gr.Textbox):
    """A whole number of 64 bits. Not gr.Number: browsers keep numbers as floats, which have 53."""

    is_template = True

    def preprocess(self, payload: str | None) -> int:
        """The number, -1 for an empty field. Raises InvalidRequest."""
        text = (payload or "").strip()
        return number(self.label, text, int, *WHOLE_NUMBERS["seed"]) if text else -1

    def postprocess(self, value: Any) -> str:
        return "" if value is None else str(value)


class Day(gr.DateTime):
    """gr.DateTime that says what it cannot read."""

    is_template = True

    def preprocess(self, payload: str | None) -> Any:
        try:
            return super().preprocess(payload)
        except (ValueError, TypeError, OverflowError):
            raise InvalidRequest(self.label, f'{self.label}: "{payload}" is not a date; write 2026-01-31, or now - 7d') from None

"""The arguments of a script: one frozen record per script, filled from the list that a request carries."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.options import number


WIDGET = object()
"""Stands for the value of a widget on the page."""


@dataclass(frozen=True)
class Argument:
    """An argument as described to programs, with the names of A1111's script-info."""

    label: str
    value: Any
    """The default."""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] | None = None
    on_page: Any = WIDGET
    """What the page sends if it has no widget for it."""
    upscalers: bool = False
    """Whether the networks of the models folder that enlarge pictures are choices too."""


def argument(default: Any, label: str, *, minimum: float | None = None, maximum: float | None = None,
             step: float | None = None, choices: tuple[str, ...] | None = None, on_page: Any = WIDGET) -> Any:
    """A field of a script's record, annotated with the argument's type; a tuple holds any number of the choices.

    A request may give a choice by its index.
    """
    return field(default=default, metadata={"argument": Argument(label, default, minimum, maximum, step, choices, on_page)})


def notice(text: str) -> Any:
    """A text on A1111's page that takes a position among the arguments; its value is ignored."""
    return field(default=text, metadata={"argument": Argument("", text)})


def free(default: Any, label: str, choices: tuple[str, ...] | None = None, *, upscalers: bool = False, on_page: Any = WIDGET) -> Any:
    """A field that the script checks itself."""
    known = Argument(label, default, choices=choices, upscalers=upscalers, on_page=on_page)
    return field(default=default, metadata={"argument": known, "free": True})


def describe(record: type) -> list[Argument]:
    """The arguments in order."""
    return [spec.metadata["argument"] for spec in fields(record)]


def read(record: type, given: Any, *, name: str, title: str) -> Any:
    """The record filled with all its arguments. Raises InvalidRequest for the request's field `name`."""
    specs = fields(record)
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(specs):
        came = f"{len(given)}" if isinstance(given, Sequence) and not isinstance(given, str) else repr(given)
        labels = ", ".join(spec.metadata["argument"].label or "a text" for spec in specs)
        raise InvalidRequest(name, f'{name}: "{title}" takes a list of {len(specs)} values ({labels}), got {came}')
    try:
        return record(*map(checked_argument, specs, given))
    except InvalidRequest as error:
        raise InvalidRequest(name, f'{name} of "{title}": {error}') from None


def checked_argument(spec: Field, value: Any) -> Any:
    """`value` converted to the argument's type, within its range. Raises InvalidRequest."""
    known: Argument = spec.metadata["argument"]
    if not known.label or spec.metadata.get("free"):
        return value
    if isinstance(known.value, tuple):
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(item in known.choices for item in value):
            raise InvalidRequest(spec.name, f"{known.label} must be a list of {', '.join(known.choices)}, got {value!r}")
        return tuple(value)
    if known.choices is not None:
        return chosen(known, value)
    if spec.type is bool:
        if value not in (True, False):
            raise InvalidRequest(spec.name, f"{known.label} must be true or false, got {value!r}")
        return bool(value)
    if spec.type is str:
        if not isinstance(value, str):
            raise InvalidRequest(spec.name, f"{known.label} must be text, got {value!r}")
        return value
    converted = number(known.label, value, spec.type, known.minimum, known.maximum)
    return value if spec.type is float and isinstance(value, (int, float)) else converted  # infotext prints it as it was given


def chosen(known: Argument, value: Any) -> str:
    """The choice with that name, ignoring case, or index. Raises InvalidRequest."""
    names = {choice.lower(): choice for choice in known.choices}
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(known.choices):
        return known.choices[value]
    raise InvalidRequest(known.label, f"{known.label} must be one of {', '.join(known.choices)}, got {value!r}")

"""The current options: defaults plus what people have set, remembered in a file."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.options import SPECS, Options

logger = logging.getLogger(__name__)

MAX_TEXT = 10_000
"""Characters of an inert value, as JSON."""
KEPT: Mapping[str, Any] = MappingProxyType(json.loads(Path(__file__).with_name("a1111_options.json").read_text("utf-8")))
"""A1111's options with their defaults. Those in Options take effect; the others are only stored."""


class Settings:
    """Every option by name. A change is checked in full, then applied, then written; a rejected one changes nothing.

    path: the JSON file of non-default values; None: nothing is remembered.
    kept: defaults of options that have no effect here, stored for programs that expect them.
    """

    def __init__(self, path: Path | None = None, kept: Mapping[str, Any] = KEPT):
        self.options = Options()
        self._path, self._lock = path, Lock()
        acting = asdict(self.options)
        self._defaults = {name: default for name, default in kept.items() if name not in acting}
        self._kept: dict[str, Any] = {}
        if path is not None and path.exists():
            self._load(path)

    @property
    def defaults(self) -> dict[str, Any]:
        """Every name that can be set, with its default."""
        return self._defaults | asdict(Options())

    def values(self) -> dict[str, Any]:
        """Every name with its current value."""
        return self._defaults | self._kept | asdict(self.options)

    def change(self, values: Mapping[str, Any], *, remember: bool = True) -> None:
        """Set options. Raises InvalidRequest for an unknown name or an invalid value, before any is set.

        Raises OSError if the file cannot be written; the change then lasts until the program ends.
        """
        with self._lock:
            kept = {name: checked_kept(name, value, self._defaults[name]) for name, value in values.items()
                    if name in self._defaults}
            self.options = self.options.override({name: value for name, value in values.items() if name not in kept})
            self._kept |= kept
            if remember and self._path is not None:
                self._write(self._path)

    def _write(self, path: Path) -> None:
        values, defaults = self.values(), self.defaults
        text = json.dumps({name: value for name, value in values.items() if value != defaults[name]}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".tmp")
        draft.write_text(text + "\n", "utf-8")
        os.replace(draft, path)

    def _load(self, path: Path) -> None:
        """Read the file, ignoring unknown names and invalid values, so that an old file does not stop the program."""
        try:
            stored = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s); the defaults are used", path, error)
            return
        known = {*self._defaults, *SPECS}
        for name, value in stored.items() if isinstance(stored, dict) else ():
            if name not in known:
                continue
            try:
                self.change({name: value}, remember=False)
            except InvalidRequest as error:
                logger.warning("%s: %s; the default is used", path, error)


def checked_kept(name: str, value: Any, default: Any) -> Any:
    """A stored option's value, if it has its default's type and a bounded length. Raises InvalidRequest."""
    if default is not None and not same_kind(value, default):
        wanted = {bool: "true or false", str: "text", list: "a list"}.get(type(default), "a number")
        raise InvalidRequest(name, f"{name} must be {wanted}, got {value!r}")
    if len(json.dumps(value)) > MAX_TEXT:
        raise InvalidRequest(name, f"{name} must have at most {MAX_TEXT} characters")
    return value


def same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, int | float) and not isinstance(default, bool):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(default))

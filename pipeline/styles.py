"""Named pieces of prompts, kept in A1111's styles.csv."""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from pipeline.errors import InvalidRequest, ModelError, UnknownName

COLUMNS = ("name", "prompt", "negative_prompt")
DIVIDER_WIDTH = 40
MAX_LENGTH = 100_000
"""Characters of a prompt with its styles: a text with {prompt} twice doubles it each time."""


@dataclass(frozen=True)
class Style:
    """What a style adds to a prompt and a negative prompt. `{prompt}` in its text stands for the person's own prompt."""

    name: str
    prompt: str = ""
    negative_prompt: str = ""
    path: Path | None = None
    """The file that holds it; None: a divider between the styles of several files."""


class StyleDatabase:
    """The styles of one file, or of all files matching a pattern such as `styles*.csv`. A missing file counts as empty."""

    def __init__(self, path: Path | str | None = None):
        """path: None for no styles. Raises ModelError for an invalid styles file."""
        self._path = None if path is None else Path(path)
        self.styles: dict[str, Style] = {}
        """By name, in file order; a later style replaces an earlier one of the same name."""
        self.reload()

    def reload(self) -> None:
        """Read the files again."""
        self.styles = {}
        several = self._path is not None and "*" in self._path.name
        for file in self._files():
            if several:
                divider = f" {file.stem.upper()} ".center(DIVIDER_WIDTH, "-")
                self.styles[divider] = Style(divider)
            self.styles |= {style.name: style for style in read_styles(file)}

    def apply_styles(self, prompt: str, names: Iterable[str]) -> str:
        """The prompt with those styles applied in turn. An unknown name only strips the prompt."""
        return merge(prompt, [self.styles.get(name, Style(name)).prompt for name in names])

    def apply_negative_styles(self, negative_prompt: str, names: Iterable[str]) -> str:
        """The same for a negative prompt."""
        return merge(negative_prompt, [self.styles.get(name, Style(name)).negative_prompt for name in names])

    def extract(self, prompt: str, negative_prompt: str) -> tuple[list[str], str, str]:
        """(names, prompt, negative prompt): the styles found in the texts, and the prompts they were applied to."""
        names: list[str] = []
        while match := next((match for match in self._matches(prompt, negative_prompt) if match[0] not in names), None):
            name, prompt, negative_prompt = match
            names.insert(0, name)  # the style applied last is the outermost
        return names, prompt, negative_prompt

    def _matches(self, prompt: str, negative_prompt: str) -> Iterator[tuple[str, str, str]]:
        """(name, prompt, negative prompt) for each style that may have been applied last, with the prompts before it."""
        for style in self.styles.values():
            rests = without(prompt, style.prompt), without(negative_prompt, style.negative_prompt)
            if (style.prompt or style.negative_prompt) and None not in rests:
                yield style.name, *rests

    def put(self, name: str, prompt: str, negative_prompt: str = "") -> None:
        """Add or replace a style, in memory until save(). Raises InvalidRequest for a missing or invalid name."""
        if not name or name.startswith("#"):
            raise InvalidRequest("name", f'name must not be empty or start with "#", got "{name}"')
        known = self.styles.get(name)
        path = known.path if known and known.path else Path(str(self._path).replace("*", ""))
        self.styles[name] = Style(name, prompt, negative_prompt, path)

    def remove(self, name: str) -> None:
        """Remove a style, in memory until save(). Raises UnknownName."""
        if name not in self.styles:
            raise UnknownName("name", "style", name, self.styles)
        del self.styles[name]

    def save(self) -> None:
        """Write each style back to its file."""
        own = {style.path for style in self.styles.values() if style.path is not None}
        for file in own | set(self._files()):
            write_styles(file, [style for style in self.styles.values() if style.path == file])

    def _files(self) -> list[Path]:
        if self._path is None:
            return []
        if "*" in self._path.name:
            return sorted(map(Path, glob(str(self._path))))
        return [self._path]


def merge(prompt: str, texts: Iterable[str]) -> str:
    """The prompt with each style's text wrapped around it or appended. Raises InvalidRequest if that gets too long."""
    for text in texts:
        length = len(text) + max(1, text.count("{prompt}")) * len(prompt)
        if length > MAX_LENGTH:
            raise InvalidRequest("styles", f"styles: the prompt would be longer than {MAX_LENGTH} characters")
        if "{prompt}" in text:
            prompt = text.replace("{prompt}", prompt)
        else:
            prompt = ", ".join(filter(None, (prompt.strip(), text.strip())))
    return prompt


def without(prompt: str, text: str) -> str | None:
    """The prompt before a style's text was wrapped around it or appended; None if it was not."""
    left, *right = text.strip().split("{prompt}")
    prompt = prompt.strip()
    if not right:
        return prompt.removesuffix(left).removesuffix(", ") if prompt.endswith(left) else None
    fits = len(right) == 1 and prompt.startswith(left) and prompt.endswith(right[0]) and len(prompt) >= len(left + right[0])
    return prompt[len(left):len(prompt) - len(right[0])] if fits else None


def read_styles(file: Path) -> list[Style]:
    """The styles in a file. Rows whose name starts with "#" are comments; the columns name, text are the old format."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(f'"{file}" cannot be read as styles: {error}') from error
    if rows and not {"name"} < {*rows[0]} & {"name", "prompt", "text"}:
        raise ModelError(f'"{file}" cannot be read as styles: its first line must name the columns {", ".join(COLUMNS)}')
    return [Style(row["name"], row.get("prompt", row.get("text")) or "", row.get("negative_prompt") or "", file)
            for row in rows if not (row["name"] or "#").startswith("#")]


def write_styles(file: Path, styles: list[Style]) -> None:
    """Replace the file atomically."""
    part = file.with_name(file.name + ".part")
    with part.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows((style.name, style.prompt, style.negative_prompt) for style in styles)
    os.replace(part, file)

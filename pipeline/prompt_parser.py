"""A1111's prompt grammar as plain data: weights, prompt editing, AND, network tags, comments.

Parsing time grows linearly with a prompt's length, so that no request can hold up the others: patterns do not backtrack
over what they have read, and nothing recurses.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TypeVar

from pipeline.errors import InvalidRequest

T = TypeVar("T")

_OPENER = {")": "(", "]": "["}


# (a), (a:1.2), [a], BREAK

MAX_OPEN_BRACKETS = 100  # 1.1 ** 100 is 13781: no picture survives it

_ATTENTION_TOKEN = re.compile(
    r"""\\(?P<escaped>[()\[\]\\]?)
      | :\s*+(?P<weight>[+-]?[.\d]++)\s*+\)
      | (?P<opener>[(\[])
      | (?P<closer>[)\]])
      | (?P<text>[^\\()\[\]:]+|:)""",
    re.VERBOSE,
)
_BREAK = re.compile(r"(?:(?<!\s)\s++)?\bBREAK\b\s*+")  # the look-behind: try each run of spaces from its start only


def parse_attention(text: str) -> list[tuple[str, float]]:
    """The pieces of a prompt with their weights; ("BREAK", -1.0) asks for a new chunk.

    Never empty: "" is [("", 1.0)]. Neighbours of equal weight are joined. Inside weighted brackets BREAK is an ordinary word,
    weight and is a word. Raises InvalidRequest for a weight like 1.2.3 and for brackets too deep to mean anything.
    """
    pieces: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # the pieces at which the brackets still open begin

    def multiply(start: int, factor: float) -> None:
        weights[start:] = [weight * factor for weight in weights[start:]]

    for token in _ATTENTION_TOKEN.finditer(text):
        kind, value = token.lastgroup, token[token.lastgroup]
        if kind == "opener":
            opened[value].append(len(pieces))
            _refuse_depth(sum(map(len, opened.values())))
        elif kind == "closer" and opened[_OPENER[value]]:
            multiply(opened[_OPENER[value]].pop(), 1.1 if value == ")" else 1 / 1.1)
        elif kind == "weight" and opened["("]:
            multiply(opened["("].pop(), _weight(value))
        elif kind == "escaped":
            pieces.append(value)
            weights.append(1.0)
        else:
            for i, part in enumerate(_BREAK.split(token[0])):
                pieces += ["BREAK", part] if i else [part]
                weights += [-1.0, 1.0] if i else [1.0]

    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)

    joined = groupby(zip(pieces, weights), key=itemgetter(1))
    return [("".join(piece for piece, _ in group), weight) for weight, group in joined] or [("", 1.0)]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        problem = f'prompt: a weight must be a number, as in (red:1.2), got "{text[:20]}"'
        raise InvalidRequest("prompt", problem) from None


def _refuse_depth(depth: int) -> None:
    if depth > MAX_OPEN_BRACKETS:
        raise InvalidRequest("prompt", f"prompt: at most {MAX_OPEN_BRACKETS} brackets may be open at once; "
                                       r"close them, or write \( and \[ for literal brackets")


# [before:after:when], [a|b|c]


@dataclass(frozen=True)
class _Switch:
    """`before` up to and including step `when`, `after` from then on."""

    before: list
    after: list
    when: int

    def at(self, step: int) -> list:
        return self.before if step <= self.when else self.after


@dataclass(frozen=True)
class _Alternation:
    """One option a step in turn, the first at step 1."""

    options: list[list]

    def at(self, step: int) -> list:
        return self.options[(step - 1) % len(self.options)]


_Edit = _Switch | _Alternation

_EDIT_TOKEN = re.compile(r"\\.|[^\\\[\]():|]+|[\\\[\]():|]")
_EDIT_SHAPE = re.compile(r"\[(?:::?|\|+)\]")
_WHEN = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


def parse_timeline(text: str, steps: int, *, old_rule: bool = False, earlier: int = 0) -> list[tuple[int, str]]:
    """The prompt over time: (end_step, text) by rising end_step, the last of which is `steps`.

    `steps` is counted twice for samplers that call the model twice a step. A time is a share of the steps when it is
    written with a point; by `old_rule`, A1111's before 1.6, when it is below 1. Weights stay in the text. A prompt
    that cannot be read is used as it stands. In hires fix's second pass, times count on from the `earlier` steps of the first:
    shares from 1 to 2, steps from `earlier` on.
    """
    read = _read_edits(text, partial(_switch_step, steps=steps, old_rule=old_rule, earlier=0 if old_rule else earlier)) if "[" in text else None
    if read is None:
        return [(steps, text)]
    pieces, edits = read
    ends = {steps} | {edit.when for edit in edits if isinstance(edit, _Switch) and edit.when >= 1}
    if any(isinstance(edit, _Alternation) for edit in edits):
        ends.update(range(1, steps + 1))
    return [(end, _text_at(pieces, end)) for end in sorted(ends)]


def at_step(timeline: Sequence[tuple[int, T]], call: int) -> tuple[int, T]:
    """The entry used at denoiser call number `call`, counted from 0 in every run.

    A1111: an entry that ends at E covers calls 0 to E, and calls past the last entry use the first.
    """
    return next((entry for entry in timeline if call <= entry[0]), timeline[0])


def _switch_step(when: str, steps: int, old_rule: bool, earlier: int) -> int:
    value = float(when)
    is_share = value < 1 if old_rule else "." in when
    if is_share:
        value = (value - (earlier > 0)) * steps
    else:
        value -= earlier
    return int(max(-1, min(steps, value)))  # bounded first: 1e999 is infinite


def _read_edits(text: str, switch_step: Callable[[str], int]) -> tuple[list[str | _Edit], list[_Edit]] | None:
    """The prompt as text and (nested) edits, and all edits in one list; None for a prompt that cannot be read.

    Stray brackets and colons are text, but only outside all brackets: one that turns out to be stray makes every
    bracket around it stray too. A "|" is never text.
    """
    tokens = _EDIT_TOKEN.findall(text)
    if "\\" in tokens:  # with nothing after it in its line
        return None
    pieces: list[str | _Edit] = []
    edits: list[_Edit] = []
    separators: list[int] = []  # where in `pieces` each ":" and "|" stands
    opened: list[tuple[int, int]] = []  # brackets still open: their place in `pieces` and in `separators`
    for token in tokens:
        if token in ("(", "["):
            opened.append((len(pieces), len(separators)))
        elif token in (":", "|"):
            separators.append(len(pieces))
        elif token in _OPENER and opened:
            start, first = opened.pop()
            bounds = [start, *separators[first:], len(pieces)]
            del separators[first:]
            shape = "".join(pieces[i] for i in bounds[:-1]) + token  # "[::]" for [a:b:3]
            edit = _edit(shape, pieces, bounds, switch_step)
            if edit:
                edits.append(edit)
                pieces[start:] = [edit]
                continue
            if shape not in ("()", "(:)", "[]"):  # emphasis stays as text for parse_attention; the rest is stray
                opened.clear()
        pieces.append(token)
    return None if "|" in pieces else (pieces, edits)


def _edit(shape: str, pieces: list, bounds: list[int], switch_step: Callable[[str], int]) -> _Edit | None:
    """The edit that a bracket of this shape holds, if any. `bounds`: the places of the bracket and its separators."""
    if not _EDIT_SHAPE.fullmatch(shape):
        return None
    parts = [pieces[left + 1:right] for left, right in pairwise(bounds)]
    if "|" in shape:
        return _Alternation(parts)
    *texts, when = parts
    number = _WHEN.fullmatch(when[0]) if len(when) == 1 and isinstance(when[0], str) else None
    before = texts[0] if len(texts) == 2 else []
    return _Switch(before, after=texts[-1], when=switch_step(number[1])) if number else None


def _text_at(pieces: list[str | _Edit], step: int) -> str:
    text = []
    todo = pieces[::-1]
    while todo:
        piece = todo.pop()
        if isinstance(piece, str):
            text.append(piece)
        else:
            todo += piece.at(step)[::-1]
    return "".join(text)


# a :1.2 AND b

_AND_WEIGHT = re.compile(r":\s*+([-+]?(?:\d+\.?|\d*\.\d+))\Z")


def split_and(text: str) -> list[tuple[str, float]]:
    """The prompts between the ANDs with their weights, 1.0 where none is written. Weights may be negative."""
    return [_weighted(part.rstrip()) for part in re.split(r"\bAND\b", text)]


def _weighted(prompt: str) -> tuple[str, float]:
    weight = _AND_WEIGHT.search(prompt)
    return (prompt[:weight.start()].rstrip(), float(weight[1])) if weight else (prompt, 1.0)


# <lora:name:0.8>

_NETWORK = re.compile(r"<(\w+):([^>]+)>")
_NOT_IN_A_TAG = re.compile(r"[:>#\r\n]")
"""What ends a name in a tag, the tag, or, as a comment, all of its line."""


def in_a_tag(name: str) -> str:
    """The name as a tag can hold it: what it cannot hold as in an address, a:b as a%3Ab."""
    return _NOT_IN_A_TAG.sub(lambda found: f"%{ord(found[0]):02X}", name)


@dataclass(frozen=True)
class Network:
    """A tag such as <lora:name:0.8:dyn=4>: kind "lora", args ("name", "0.8"), named {"dyn": "4"}."""

    kind: str
    args: tuple[str, ...]
    named: dict[str, str]


def extract_networks(text: str) -> tuple[str, list[Network]]:
    """The prompt without its network tags, and the tags in order, of unknown kinds too."""
    end = text.rfind(">") + 1  # past it no tag closes, and looking for the end of each would take quadratic time
    networks = [_network(*tag.groups()) for tag in _NETWORK.finditer(text, 0, end)]
    return _NETWORK.sub("", text[:end]) + text[end:], networks


def _network(kind: str, items: str) -> Network:
    name, *rest = items.split(":")
    split = [item.split("=") for item in rest]
    return Network(
        kind,
        args=(name, *("=".join(parts) for parts in split if len(parts) != 2)),  # a name may hold "="
        named=dict(parts for parts in split if len(parts) == 2),
    )


# comments


def strip_comments(text: str) -> str:
    """The prompt without comments, from each "#" to the end of its line. A "#" cannot be escaped."""
    without_lines = re.sub(r"(^|\n)#[^\n]*(\n|$)", "\n", text)
    return re.sub(r"#[^\n]*(\n|$)", "\n", without_lines)

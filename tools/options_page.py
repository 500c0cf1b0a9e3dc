"""Write docs/options.md from what the options say of themselves: python -m tools.options_page"""

import json
from pathlib import Path

from pipeline.options import SPECS, OptionSpec

PAGE = Path(__file__).parents[1] / "docs" / "options.md"
HEAD = """# Options

Set on the page under Settings, by `POST /sdapi/v1/options` for every picture from then on, or in `override_settings` for one request. Those marked * are chosen on the tab Make. "In infotext" is the name that a picture's text has for the option and that is read back from there; names in brackets are only read. A1111's other options are kept for programs that expect them, and do nothing.

This page is written by `python -m tools.options_page`.
"""


def text() -> str:
    """The whole page."""
    groups: dict[str, list[OptionSpec]] = {}
    for spec in SPECS.values():
        groups.setdefault(spec.group, []).append(spec)
    return HEAD + "".join(f"\n## {title}\n\n" + table(specs) for title, specs in groups.items())


def table(specs: list[OptionSpec]) -> str:
    head = "| Option | Label | What it does | Values | Default | In infotext |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row(spec))} |\n" for spec in specs)


def row(spec: OptionSpec) -> list[str]:
    told = [spec.infotext or "", *(f"({label})" for label in spec.also_read)]
    return [f"`{spec.name}`{' *' * spec.on_make}", spec.label, spec.sentence, values(spec), f"`{json.dumps(spec.default)}`", " ".join(told).strip()]


def values(spec: OptionSpec) -> str:
    """What it takes, in words."""
    if spec.choices is not None:
        return ", ".join(f"`{choice}`" for choice in spec.choices)
    if isinstance(spec.default, bool):
        return "`true` or `false`"
    if not isinstance(spec.default, int | float):
        return "text"
    noun = "a whole number" if isinstance(spec.default, int) else "a number"
    if spec.high is not None:
        return f"{noun} from {spec.low} to {spec.high}"
    return noun if spec.low is None else f"{noun} from {spec.low}"


if __name__ == "__main__":
    PAGE.write_text(text(), "utf-8")

"""The viewer: the selected result, and a filmstrip of this visit; its browser part is ui/web/results."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr

from ui.visit import Result, Visit

NOT_LOADED = "The results could not be loaded; reload the page."
MOUNT = f"""import(new URL("web/results/index.js", document.baseURI)).then(
  ({{ mount }}) => mount(element, props, watch, (...told) => trigger("select", ...told)),
  () => {{ element.textContent = "{NOT_LOADED}"; }})"""


@dataclass(frozen=True)
class Comparison:
    """A result beside another picture of its size."""

    file: str
    """The result's file, as the page has it."""
    before: str
    """The other picture's file."""
    remark: str = ""
    """A line on the two."""


@dataclass(frozen=True)
class Shown:
    """What a viewer is to show."""

    visit: Visit
    selected: int = 0
    comparison: Comparison | None = None
    opening: bool = False
    """Open it, rather than only offer it."""
    id: str = field(default_factory=lambda: uuid4().hex)
    """The browser only gets values that differ from before."""


class Viewer(gr.HTML):
    """gr.HTML that takes a `Shown`, and reports a selection by `select`: value is the result's file.

    Files are sent to the browser by name only, under which Gradio serves its copies.
    """

    is_template = True

    def __init__(self, *, label: str, elem_id: str, **props: Any):
        super().__init__(html_template=f'<div class="viewer" role="group" aria-label="{label}"></div>', js_on_load=MOUNT,
                         apply_default_css=False, label=label, elem_id=elem_id, elem_classes="viewer-block", **props)

    def preprocess(self, payload: Any) -> None:
        return None

    def postprocess(self, value: Shown | None) -> dict[str, Any]:
        if value is None:
            return {"results": [], "selected": 0}
        told = {"results": [described(result) for result in value.visit], "selected": value.selected}
        # Gradio deletes what it finds here once it is old, and at the program's end
        self.temp_files |= {file for result in value.visit for file in (result.file, result.thumbnail) if file}
        if value.comparison is not None:
            self.temp_files.add(value.comparison.before)
            told["comparison"] = vars(value.comparison) | {"opening": value.opening}
        return told | {"shown": value.id}

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


def described(result: Result) -> dict[str, Any]:
    """A result in the browser's form."""
    return {"file": result.file, "thumbnail": result.thumbnail, "name": Path(result.path).name, "kind": result.kind,
            "favourite": result.favourite, "seed": result.seed}

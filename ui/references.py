"""The strip of reference pictures as a component; its browser part is ui/web/references."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.data_classes import FileData, GradioModel

from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest
from ui.canvas import Draft, file_data, fits_file
from ui.events import fitting, refuse

FIELD = "reference_images"
NOT_LOADED = "The reference pictures could not be loaded; reload the page."
MOUNT = f"""import(new URL("web/references/index.js", document.baseURI)).then(
  ({{ mount }}) => mount(element, props, watch), () => {{ element.textContent = "{NOT_LOADED}"; }})"""


class Held(GradioModel):
    """The strip's content, as sent by the browser."""

    canvas: str = ""
    """Its element id."""
    files: list[Draft | FileData] = []
    problem: str = ""
    """Why an upload failed, in the server's words."""


SCHEMA = Held.model_json_schema()


@dataclass(frozen=True)
class Takes:
    """How many pictures the chosen model can see; 0: the strip is hidden, and its pictures wait."""

    most: int


@dataclass(frozen=True)
class Shown:
    """Pictures for the strip."""

    files: list[str]
    added: bool = False
    """To those that are there, or in their place."""


class References(gr.HTML):
    """gr.HTML that returns the pictures' files, undecoded, and takes `Takes` or a `Shown`.

    drafts: where the browser uploads them. Events that read it need canvas.SEND as their script.
    """

    is_template = True
    data_model = Held

    def __init__(self, drafts: Drafts, *, label: str, elem_id: str, **props: Any):
        self.drafts = drafts
        super().__init__(html_template=f'<div class="references" role="group" aria-label="{label}" hidden></div>', js_on_load=MOUNT,
                         apply_default_css=False, label=label, elem_id=elem_id, elem_classes="references-block", **props)

    def preprocess(self, payload: Held | None) -> list[str]:
        if payload is None:
            return []
        if payload.problem:
            raise InvalidRequest(FIELD, payload.problem)
        return [self.drafts.path(file.draft, FIELD) if isinstance(file, Draft) else file.path for file in payload.files]

    def postprocess(self, value: Takes | Shown | None) -> dict[str, Any]:
        held: dict[str, Any] = {"canvas": self.elem_id}
        if isinstance(value, Takes):
            return held | {"takes": value.most}
        if value is None:
            return held
        return held | {"files": list(map(file_data, value.files)), "added": value.added, "shown": uuid4().hex}

    def api_info(self) -> dict[str, Any]:
        return deepcopy(SCHEMA)


@fitting.register
def _(block: References, value: Any) -> Any:
    if value is None or isinstance(value, dict) and isinstance(files := value.get("files", []), list) and all(
            isinstance(file, dict) and fits_file(file) for file in files):
        return value
    refuse(block, "what the strip of references holds", value)

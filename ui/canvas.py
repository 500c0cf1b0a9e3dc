"""The canvas as a component: a picture to paint a mask on; its browser part is ui/web/canvas."""

import base64
import io
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from gradio.processing_utils import save_pil_to_cache
from PIL import Image

from pipeline.drafts import NAME, Drafts
from pipeline.errors import InvalidRequest
from pipeline.foresight import Foresight
from pipeline.geometry import Size
from ui.editor import File
from ui.events import fitting, refuse

NOT_LOADED = "The canvas could not be loaded; reload the page."
MOUNT = f"""import(new URL("web/canvas/index.js", document.baseURI)).then(
  ({{ mount }}) => mount(element, props, watch, trigger), () => {{ element.textContent = "{NOT_LOADED}"; }})"""
SEND = "(...values) => window.palimpsest?.canvases?.send(values) ?? values"
"""The script of an event that reads canvases: it first uploads what the server does not have yet."""
SEND_JOB = "(...values) => window.palimpsest?.canvases?.send(values, { job: true }) ?? values"
"""The same for a job: previews of what it will do come first."""
SEND_PICTURES = "(...values) => window.palimpsest?.canvases?.send(values, { only: 'picture' }) ?? values"
"""The same without masks."""
SEND_PAINTED = "(...values) => window.palimpsest?.canvases?.send(values, { only: 'painted' }) ?? values"
"""The same without pictures."""


class Draft(GradioModel):
    """A file that the browser has uploaded to api/drafts.py."""

    draft: str


class Held(GradioModel):
    """A canvas's content, as sent by the browser."""

    canvas: str = ""
    """Its element id."""
    picture: Draft | FileData | None = None
    mask: Draft | FileData | None = None
    paint: Draft | FileData | None = None
    problem: str = ""
    """Why an upload failed, in the server's words."""


SCHEMA = Held.model_json_schema()
"""Made once: Gradio asks for it twice per canvas whenever somebody opens the page."""


@dataclass(frozen=True)
class Shown:
    """What a canvas is to show."""

    picture: str
    """Path of its file."""
    mask: Image.Image | None = None
    """L, of the picture's size; 255: regenerate here. With `uploads` any picture, returned unchanged."""
    opening: bool = False
    """Only if the browser itself has kept nothing for this canvas."""


@dataclass(frozen=True)
class Laid:
    """A mask file of other proportions than the picture's, as it will be used."""

    mask: Image.Image
    """L, of the picture's size."""
    fit: str
    """By which rule; see pipeline.foresight.Fit."""
    size: Size
    """The file's own."""


@dataclass(frozen=True)
class Foreseen:
    """A preview of what Generate will do, for a canvas to show."""

    foresight: Foresight | None
    """None: there is nothing to show."""
    laid: Laid | None = None
    """What the canvas shows of an uploaded mask, instead of the file stretched to the picture."""


class Canvas(gr.HTML):
    """gr.HTML that returns (picture file, file of the paint), undecoded, and takes a `Shown` or a `Foreseen`.

    Events: "upload" and "clear": another picture, or none; "input" asks for a preview, "submit" runs the islands one by one,
    "apply" tells that the picture was enlarged.

    drafts: where the browser uploads them. kind: what is painted: "mask", an 8-bit grey PNG of the picture's size, or "paint",
    colours with alpha; with "picture" nothing can be. The second file is None if nothing was painted. uploads: a mask that came
    as a file is returned unchanged until it is painted on, and the inputs for picture and mask stand above the canvas; their ids
    begin with this. foresees: whether it asks for previews.
    """

    is_template = True
    data_model = Held

    def __init__(self, drafts: Drafts, *, kind: str = "mask", uploads: str = "", foresees: bool = False, label: str, elem_id: str,
                 **props: Any):
        self.drafts, self.kind = drafts, kind
        data = f'data-kind="{kind}" data-uploads="{uploads}" data-foresees="{"yes" if foresees else ""}"'
        super().__init__(html_template=f'<div class="canvas" {data} role="group" aria-label="{label}"></div>',
                         js_on_load=MOUNT, apply_default_css=False, label=label, elem_id=elem_id, elem_classes="canvas-block", **props)

    def preprocess(self, payload: Held | None) -> tuple[File, File]:
        if payload is None:
            return None, None
        if payload.problem:
            raise InvalidRequest("init_images", payload.problem)
        painted = None if self.kind == "picture" else getattr(payload, self.kind)
        return self._path(payload.picture, "init_images"), self._path(painted, "mask")

    def _path(self, file: Draft | FileData | None, field: str) -> File:
        if isinstance(file, Draft):
            return self.drafts.path(file.draft, field)
        return file and file.path

    def postprocess(self, value: Shown | Foreseen | None) -> dict[str, Any]:
        held: dict[str, Any] = {"canvas": self.elem_id}
        if value is None:
            return held
        if isinstance(value, Foreseen):
            return held | {"foreseen": described(value.foresight) | {"laid": described_mask(value.laid), "id": uuid4().hex}}
        mask = None if value.mask is None else save_pil_to_cache(value.mask, self.GRADIO_CACHE, format="png")
        # the browser is told only what differs from before, and the same picture may be meant anew
        return held | {"picture": file_data(value.picture), "mask": mask and file_data(mask), "shown": uuid4().hex,
                       "opening": value.opening}

    def api_info(self) -> dict[str, Any]:
        return deepcopy(SCHEMA)


def described(foresight: Foresight | None) -> dict[str, Any]:
    """What the browser draws, as JSON; the edge as a data URL of a small PNG."""
    if foresight is None:
        return {"frames": []}
    edge = None if foresight.edge is None else {"box": foresight.edge_box, "png": data_url(foresight.edge)}
    return {"frames": foresight.frames, "together": foresight.together, "size": foresight.size, "onlyMasked": foresight.only_masked,
            "inverted": foresight.inverted, "edge": edge}


def described_mask(laid: Laid | None) -> dict[str, Any] | None:
    return laid and {"png": data_url(laid.mask), "fit": laid.fit, "size": laid.size}


def data_url(image: Image.Image) -> str:
    """A PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def file_data(path: str) -> dict[str, Any]:
    """A file in the form of Gradio's events, which lets the browser fetch it."""
    return FileData(path=path).model_dump()


@fitting.register
def _(block: Canvas, value: Any) -> Any:
    if value is None or isinstance(value, dict) and all(fits_file(value.get(name)) for name in ("picture", "mask", "paint")):
        return value
    refuse(block, "what a canvas holds", value)


def fits_file(value: Any) -> bool:
    """Whether it may be a file of a canvas; Gradio checks those that it keeps itself."""
    if not isinstance(value, dict):
        return value is None
    return isinstance(value.get("path"), str) or isinstance(name := value.get("draft"), str) and bool(NAME.fullmatch(name))

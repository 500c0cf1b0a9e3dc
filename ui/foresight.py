"""Events of the canvases: preview what Generate will do with the mask, run its islands one by one, follow an enlarged picture's size."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import PalimpsestError
from pipeline.foresight import foresee, lying
from pipeline.geometry import Size
from pipeline.img2img import Mode, Pair, request_of
from pipeline.limits import Client
from pipeline.options import number
from pipeline.scripts import ALWAYS_ON, EACH_ISLAND
from pipeline.uploads import count_pixels, open_file, upright_size
from ui.canvas import SEND, SEND_JOB, SEND_PAINTED, Canvas, Foreseen, Laid
from ui.controls import MASKED_CONTENT, Controls, within_range
from ui.editor import File, Reader
from ui.events import QUEUED, QUIET, tell
from ui.scripts import NONE, packed
from ui.session import Session, asked_by
from ui.stream import Folders, Panel, Update, run
from ui.tabs import MASKED, ModeTab
from ui.visit import Visit

SETTINGS = ("mask_blur", "mask_alpha", "inpainting_mask_invert", "inpaint_full_res", "inpaint_full_res_padding", "resize_mode",
            "selected_scale_tab", "width", "height", "scale_by",
            *(f"{script.title}.{next(iter(script.record.__dataclass_fields__))}" for script in ALWAYS_ON.values() if script.uses_greys))
"""Widgets that affect what happens to a mask."""
STEP = 8
"""Width and height are multiples of this."""
AT_ONCE = 2
"""Previews computed at once; others wait, so that they do not slow down sampling."""
FORESEEN = QUEUED | {"concurrency_limit": AT_ONCE, "concurrency_id": "foresight", "trigger_mode": "always_last"}
ORIGINAL = MASKED_CONTENT.index("original")
CHANGED = "() => window.palimpsest?.canvases?.settingsChanged()"


def wire_foresight(modes: dict[Mode, ModeTab], controls: Controls, engine: Engine, panel: Panel, folders: Folders, session: Session) -> None:
    """Canvases with a mask preview what Generate will do, as the settings and the mask change."""
    named = controls.named()
    settings = {name: named[name] for name in SETTINGS}
    gr.on([widget.change for widget in settings.values()], None, js=CHANGED, **QUIET)
    for mode in MASKED:
        tab, canvas = modes[mode], modes[mode].canvas
        script = SEND_PAINTED if mode is Mode.INPAINT else SEND
        canvas.input(partial(shown, engine, mode, tab.read), canvas, canvas, inputs_kwargs=settings, js=script, **FORESEEN)
        canvas.submit(asked_by(partial(run_islands, engine, mode, panel, folders, tab.read)), [session.client, panel.results, canvas],
                      inputs_kwargs=controls.asked(), outputs=panel.outputs, js=SEND_JOB, **QUEUED)
    size = [controls.width, controls.height]
    modes[Mode.INPAINT].canvas.apply(grown, [*size, controls.selected_scale_tab, controls.inpaint_full_res, controls.inpainting_fill],
                                       size, **QUEUED)


def shown(engine: Engine, mode: Mode, read: Callable[..., Pair], files: tuple[File, File], **settings: Any) -> Foreseen:
    """What Generate would do now; nothing if it would refuse (it says so itself)."""
    try:
        with engine.shelf.reading(sum(count_pixels(file, "mask") for file in files if file)):
            source = read(Reader(), files) if mode is Mode.INPAINT_SKETCH else read_alone(*files)
            if None in source:
                return Foreseen(None)
            settings = {"options": engine.options} | packed(settings)
            laid = laid_out(source, settings) if mode is Mode.INPAINT_UPLOAD else None
    except PalimpsestError:
        return Foreseen(None)
    try:
        return Foreseen(foresee(request_of(mode, source, **settings)), laid)
    except PalimpsestError:  # such as for a black mask
        return Foreseen(None, laid)


def read_alone(picture: File, mask: File) -> Pair:
    """The mask with a blank picture: only the picture's size matters here, which without its file is the mask's."""
    painted = Reader().picture(mask, "mask")
    if painted is None:
        return None, None
    size = painted.size if picture is None else upright_size(open_file(picture, "init_images"))
    return Image.new("RGB", size), painted


def laid_out(source: Pair, settings: dict[str, Any]) -> Laid | None:
    """How a mask file of other proportions than the picture's will be used; None if its proportions are the same."""
    picture, mask = source
    if picture.width * mask.height == picture.height * mask.width:
        return None
    p = request_of(Mode.IMG2IMG, (picture, None), **settings)
    lies, fit = lying(mask, Size(*picture.size), only_masked=bool(p.inpaint_full_res), resize_mode=p.resize_mode, size=p.size)
    return Laid(lies, fit.value, Size(*mask.size))


def run_islands(engine: Engine, mode: Mode, panel: Panel, folders: Folders, read: Callable[..., Pair], client: Client, visit: Visit,
                files: tuple[File, File], **settings: Any) -> Iterator[Update]:
    """Generate, but run the parts of the mask that lie far apart one after the other."""
    chosen = settings["script_name"]
    if chosen not in (NONE, EACH_ISLAND):
        raise PalimpsestError(f'The script "{chosen}" is selected; select None to run the areas one after the other.')
    yield from run(engine, mode, panel, folders, read, client, visit, files, **settings | {"script_name": EACH_ISLAND})


def grown(width: float | None, height: float | None, by: int, only_masked: int, content: int, event: gr.EventData) -> tuple[Any, Any]:
    """Width and height for an enlarged picture, if they had the old picture's shape and the area is the whole picture."""
    if content not in (None, ORIGINAL):
        tell(f'Masked content is "{MASKED_CONTENT[content]}", so the fill of the new area has no effect; choose "original".')
    given = event._data if isinstance(event._data, dict) else {}
    before, after = (size_in(given.get(name), name) for name in ("from", "to"))
    if by or only_masked or None in (width, height):
        return gr.skip(), gr.skip()
    apart = abs(width * before.height - height * before.width)
    if apart / min(before) > STEP:
        tell(f"Width and height stay {width:.0f}×{height:.0f}, which is not the picture's shape.")
        return gr.skip(), gr.skip()
    return within_range(width * after.width / before.width, height * after.height / before.height)


def size_in(value: Any, name: str) -> Size:
    """A size from an event's data. Raises InvalidRequest."""
    sides = value if isinstance(value, list) and len(value) == 2 else [None, None]
    return Size(*(number(name, side, int, 1, None) for side in sides))

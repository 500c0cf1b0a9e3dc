"""Pictures that could not be saved are nobody else's."""

import stat
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from ui.results import build_running_buttons
from ui.stream import Panel
from ui.viewer import Viewer


@pytest.fixture
def panel():
    with gr.Blocks():
        made = {spec.name: gr.HTML() for spec in fields(Panel)}
        yield Panel(**made | {"viewer": Viewer(label="Result", elem_id="gallery"), "running": build_running_buttons(), "generates": []})


def test_a_picture_that_could_not_be_saved_lies_where_only_this_program_comes(panel, picture):
    done = SimpleNamespace(paths=[None], images=[picture], infotexts=["text"])
    [result] = panel.results_of(done, "job")
    assert stat.S_IMODE(Path(panel.unsaved.name).stat().st_mode) == 0o700
    assert Path(result.path).is_relative_to(panel.unsaved.name)
    assert not Path(result.path).is_relative_to(panel.viewer.GRADIO_CACHE)
    served = Path(result.file).relative_to(panel.viewer.GRADIO_CACHE)
    assert len(served.parts) == 2 and len(served.parts[0]) == 64  # named by its content

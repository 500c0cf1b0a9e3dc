"""What comes out of the picture components, and what a visitor can put in."""

from pathlib import Path

import gradio as gr
import pytest
from gradio.data_classes import FileData, ImageData
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest
from ui.canvas import Canvas, Draft, Held, Shown
from ui.editor import PictureInput, Reader, read_painted, read_picture, read_sketch, read_uploaded
from ui.events import fitting


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


@pytest.fixture
def strokes(tmp_path):
    """Makes a layer as the editor uploads it: clear, with a painted rectangle."""
    def make(size=(8, 8), box=(2, 2, 6, 6), alpha=255):
        layer = Image.new("RGBA", size)
        layer.paste((244, 63, 94, alpha), box)
        layer.save(tmp_path / "layer.png")
        return str(tmp_path / "layer.png")

    return make


def test_a_picture_comes_as_the_file_that_was_uploaded():
    with gr.Blocks():
        component = PictureInput(type="filepath")
    assert component.preprocess(ImageData(path="/uploads/cat.tiff", orig_name="cat.tiff")) == "/uploads/cat.tiff"
    assert component.preprocess(None) is None


@pytest.fixture
def painted(tmp_path):
    """Makes a mask as the canvas sends it."""
    def make(size=(8, 8), box=(2, 2, 6, 6), value=255):
        mask = Image.new("L", size)
        mask.paste(value, box)
        mask.save(tmp_path / "mask.png")
        return str(tmp_path / "mask.png")

    return make


@pytest.fixture
def canvas():
    with gr.Blocks():
        return Canvas(Drafts(), label="Picture", elem_id="canvas")


def test_a_canvas_gives_the_files_that_were_sent_and_those_that_it_was_given(canvas, picture):
    path = canvas.drafts.room()
    path.write_bytes(Path(picture).read_bytes())
    name, _ = canvas.drafts.keep(path, "a" * 32, "mask")
    assert canvas.preprocess(Held(picture=FileData(path="/kept/cat.png"), mask=Draft(draft=name))) == ("/kept/cat.png", str(path))
    assert canvas.preprocess(Held()) == canvas.preprocess(None) == (None, None)


def test_a_canvas_for_colours_gives_what_was_painted_in_them():
    with gr.Blocks():
        sketch = Canvas(Drafts(), kind="paint", label="Picture", elem_id="sketch")
    held = Held(picture=FileData(path="/kept/cat.png"), paint=FileData(path="/kept/paint.png"), mask=FileData(path="/kept/mask.png"))
    assert sketch.preprocess(held) == ("/kept/cat.png", "/kept/paint.png")


def test_what_could_not_be_sent_is_told_where_it_is_needed(canvas):
    with pytest.raises(InvalidRequest, match="larger than 64 MiB"):
        canvas.preprocess(Held(problem="init_images: the file is larger than 64 MiB"))


@pytest.mark.parametrize("value", ["x", 3, {"picture": "/etc/passwd"}, {"picture": {"draft": "../x"}}, {"mask": [1]}])
def test_what_no_canvas_can_hold_is_refused_by_its_name(canvas, value):
    with pytest.raises(InvalidRequest, match="Picture must be what a canvas holds"):
        fitting(canvas, value)


def test_a_picture_shown_twice_is_told_to_the_browser_twice(canvas, picture):
    first, second = (canvas.postprocess(Shown(picture, Image.new("L", (8, 8), 255))) for _ in range(2))
    assert first["picture"]["path"] == picture and first["mask"] == second["mask"] and first != second
    assert canvas.postprocess(None) == {"canvas": "canvas"}


def test_a_painted_mask_keeps_its_greys(picture, painted):
    image, mask = read_painted(Reader(), (picture, painted(value=77)))
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert mask.mode == "L" and mask.getbbox() == (2, 2, 6, 6) and mask.getextrema() == (0, 77)


def test_a_mask_painted_all_over_masks_everything(picture, painted):
    assert read_painted(Reader(), (picture, painted(box=(0, 0, 8, 8))))[1].getextrema() == (255, 255)


def test_a_mask_of_another_size_is_laid_over_the_picture(picture, painted):
    _, mask = read_painted(Reader(), (picture, painted(size=(16, 16), box=(4, 4, 12, 12))))
    assert mask.size == (8, 8) and mask.getbbox() == (2, 2, 6, 6)


def test_a_sketch_of_another_size_is_laid_over_the_picture(picture, strokes):
    sketched, _ = read_sketch(Reader(), (picture, strokes(size=(16, 16), box=(4, 4, 12, 12))))
    assert sketched.size == (8, 8) and sketched.getpixel((2, 2)) == sketched.getpixel((5, 5)) == (244, 63, 94)
    assert sketched.getpixel((1, 1)) == sketched.getpixel((6, 6)) == (10, 20, 30)


def test_an_opaque_layer_is_no_sketch(picture):
    with pytest.raises(InvalidRequest, match="mask: the painted layer has no transparency"):
        read_sketch(Reader(), (picture, picture))


def test_nothing_is_read_where_nothing_is_given():
    assert read_picture(Reader(), (None, None)) == read_painted(Reader(), (None, None)) == read_uploaded(Reader(), (None, None)) == (None, None)


def test_what_was_changed_on_the_way_is_noted_for_both_files(picture, tmp_path):
    turned = tmp_path / "turned.png"
    Image.new("RGB", (8, 4)).save(turned, exif=bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000"))
    reader = Reader()
    image, _ = read_uploaded(reader, (str(turned), picture))
    assert image.size == (4, 8) and len(reader.notes) == 1 and "upright" in reader.notes[0]

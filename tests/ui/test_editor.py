"""What comes out of the picture components, and what a visitor can put in."""

import gradio as gr
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import DataWithFiles, FileData, ImageData
from PIL import Image

from pipeline.errors import InvalidRequest
from ui.editor import MaskEditor, PictureInput, Reader, read_painted, read_picture, read_uploaded


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


@pytest.fixture
def editor():
    with gr.Blocks():
        return MaskEditor()


def test_a_picture_comes_as_the_file_that_was_uploaded():
    with gr.Blocks():
        component = PictureInput(type="filepath")
    assert component.preprocess(ImageData(path="/uploads/cat.tiff", orig_name="cat.tiff")) == "/uploads/cat.tiff"
    assert component.preprocess(None) is None


def test_an_untouched_picture_comes_as_its_file(editor):
    payload = EditorData(background=FileData(path="/uploads/cat.png"), layers=[], composite=None)
    assert editor.preprocess(payload) == ("/uploads/cat.png", None)
    assert editor.preprocess(None) == (None, None)


def test_strokes_come_as_a_file_too(editor):
    payload = EditorData(background=FileData(path="/uploads/cat.png"), layers=[FileData(path="/uploads/layer.png")], composite=None)
    assert editor.preprocess(payload) == ("/uploads/cat.png", "/uploads/layer.png")


def test_nobody_can_fill_the_servers_memory_with_strokes(editor):
    with pytest.raises(gr.Error, match="uploaded as files"):
        editor.accept_blobs(DataWithFiles(data={"type": "layer", "index": "999999", "id": "x"}, files=[("file", b"x")]))
    assert not editor.blob_storage


def test_a_painted_mask_is_where_the_brush_was(picture, strokes):
    image, mask = read_painted(Reader(), (picture, strokes()))
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert mask.getbbox() == (2, 2, 6, 6) and mask.getextrema() == (0, 255)


def test_a_layer_painted_all_over_masks_everything(picture, strokes):
    _, mask = read_painted(Reader(), (picture, strokes(box=(0, 0, 8, 8))))
    assert mask.getextrema() == (255, 255)


def test_the_faint_edge_of_a_stroke_does_not_count(picture, strokes):
    _, mask = read_painted(Reader(), (picture, strokes(alpha=128)))
    assert mask.getbbox() is None


def test_a_canvas_of_another_size_is_laid_over_the_picture(picture, strokes):
    _, mask = read_painted(Reader(), (picture, strokes(size=(16, 16), box=(4, 4, 12, 12))))
    assert mask.size == (8, 8) and mask.getbbox() == (2, 2, 6, 6)


def test_an_opaque_layer_is_no_mask(picture):
    with pytest.raises(InvalidRequest, match="mask: the painted layer has no transparency"):
        read_painted(Reader(), (picture, picture))


def test_nothing_is_read_where_nothing_is_given():
    assert read_picture(Reader(), None) == read_painted(Reader(), (None, None)) == read_uploaded(Reader(), None, None) == (None, None)


def test_what_was_changed_on_the_way_is_noted_for_both_files(picture, tmp_path):
    turned = tmp_path / "turned.png"
    Image.new("RGB", (8, 4)).save(turned, exif=bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000"))
    reader = Reader()
    image, _ = read_uploaded(reader, str(turned), picture)
    assert image.size == (4, 8) and len(reader.notes) == 1 and "upright" in reader.notes[0]

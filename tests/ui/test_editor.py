"""What comes out of the picture components, and what a visitor can put in."""

import io

import gradio as gr
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import DataWithFiles, FileData, ImageData
from PIL import Image

from pipeline.errors import InvalidRequest
from ui.editor import MAX_EDITORS, MAX_LAYERS, MaskEditor, PictureInput, Reader, read_painted, read_picture, read_uploaded


def png(image):
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def strokes(size=(8, 8), box=(2, 2, 6, 6), alpha=255):
    """A layer as the editor sends it: clear, with a painted rectangle."""
    layer = Image.new("RGBA", size)
    layer.paste((244, 63, 94, alpha), box)
    return png(layer)


PICTURE = png(Image.new("RGB", (8, 8), (10, 20, 30)))


def send(editor, visitor, kind="layer", index="0", data=b"x"):
    """What the browser posts, as Gradio's route hands it on: form fields are text."""
    editor.accept_blobs(DataWithFiles(data={"type": kind, "index": index, "id": visitor}, files=[("file", data)]))


@pytest.fixture
def editor():
    with gr.Blocks():
        return MaskEditor()


def test_a_picture_comes_as_the_file_that_was_uploaded():
    with gr.Blocks():
        component = PictureInput(type="filepath")
    assert component.preprocess(ImageData(path="/uploads/cat.tiff", orig_name="cat.tiff")) == "/uploads/cat.tiff"
    assert component.preprocess(None) is None


def test_painted_blobs_are_handed_over_once(editor):
    send(editor, "me", "background", "null", PICTURE)
    send(editor, "me", "layer", "0", strokes())
    payload = EditorData(background=None, layers=[], composite=None, id="me")
    assert editor.preprocess(payload) == (PICTURE, strokes())
    assert editor.preprocess(payload) == (None, None)


def test_an_untouched_picture_comes_as_its_file(editor):
    payload = EditorData(background=FileData(path="/uploads/cat.png"), layers=[], composite=None)
    assert editor.preprocess(payload) == ("/uploads/cat.png", None)
    assert editor.preprocess(None) == (None, None)


@pytest.mark.parametrize("index", ["999999", "-1", str(MAX_LAYERS)])
def test_a_layer_number_out_of_range_is_refused_and_stores_nothing(editor, index):
    with pytest.raises(gr.Error, match="index must be between 0 and 7"):
        send(editor, "me", index=index)
    assert not editor.blob_storage


def test_forgotten_canvases_are_dropped_oldest_first(editor):
    for visitor in range(MAX_EDITORS + 3):
        send(editor, str(visitor))
    assert len(editor.blob_storage) == MAX_EDITORS and "2" not in editor.blob_storage and "3" in editor.blob_storage


def test_a_painted_mask_is_where_the_brush_was():
    picture, mask = read_painted(Reader(), (PICTURE, strokes()))
    assert picture.getpixel((0, 0)) == (10, 20, 30)
    assert mask.getbbox() == (2, 2, 6, 6) and mask.getextrema() == (0, 255)


def test_a_layer_painted_all_over_masks_everything():
    _, mask = read_painted(Reader(), (PICTURE, strokes(box=(0, 0, 8, 8))))
    assert mask.getextrema() == (255, 255)


def test_the_faint_edge_of_a_stroke_does_not_count():
    _, mask = read_painted(Reader(), (PICTURE, strokes(alpha=128)))
    assert mask.getbbox() is None


def test_a_canvas_of_another_size_is_laid_over_the_picture():
    _, mask = read_painted(Reader(), (PICTURE, strokes(size=(16, 16), box=(4, 4, 12, 12))))
    assert mask.size == (8, 8) and mask.getbbox() == (2, 2, 6, 6)


def test_an_opaque_layer_is_no_mask():
    with pytest.raises(InvalidRequest, match="mask: the painted layer has no transparency"):
        read_painted(Reader(), (PICTURE, PICTURE))


def test_nothing_is_read_where_nothing_is_given():
    assert read_picture(Reader(), None) == read_painted(Reader(), (None, None)) == read_uploaded(Reader(), None, None) == (None, None)


def test_what_was_changed_on_the_way_is_noted_for_both_files():
    stream = io.BytesIO()
    Image.new("RGB", (8, 4)).save(stream, "PNG", exif=bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000"))
    reader = Reader()
    picture, mask = read_uploaded(reader, stream.getvalue(), PICTURE)
    assert picture.size == (4, 8) and len(reader.notes) == 1 and "upright" in reader.notes[0]

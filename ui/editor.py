"""How pictures and masks come out of Gradio's components: their files as they were uploaded, decoded by our rules."""

import gradio as gr
import numpy as np
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorData
from gradio.data_classes import FileData, ImageData
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.uploads import open_picture

File = str | bytes | None
"""A path, or the bytes that the browser sent, or nothing."""

MAX_LAYERS = 8
MAX_EDITORS = 64
"""Canvases whose strokes are held in memory between painting and generating; the oldest is dropped."""


class PictureInput(gr.Image):
    """gr.Image that hands over the path of the file as it was uploaded, which nobody has decoded yet."""

    is_template = True

    def preprocess(self, payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path


class MaskEditor(gr.ImageEditor):
    """gr.ImageEditor that hands over (picture file, mask file) undecoded, and bounds what a visitor can store."""

    is_template = True

    def preprocess(self, payload: EditorData | None) -> tuple[File, File]:
        if payload is None:
            return None, None
        stored = self.blob_storage.pop(payload.id, None) if payload.id is not None else payload
        if stored is None:
            return None, None
        layers = [layer for layer in stored.layers or [] if layer is not None]
        return as_file(stored.background), as_file(layers[0]) if layers else None

    @server
    def accept_blobs(self, data: AcceptBlobs):
        """Gradio's own, which takes any index and forgets nothing, within bounds."""
        index = data.data["index"]
        if index not in (None, "", "null") and not 0 <= int(index) < MAX_LAYERS:
            raise gr.Error(f"index must be between 0 and {MAX_LAYERS - 1}, got {index}", print_exception=False)
        while len(self.blob_storage) >= MAX_EDITORS and data.data["id"] not in self.blob_storage:
            self.blob_storage.pop(next(iter(self.blob_storage)))
        return super().accept_blobs(data)


def as_file(value: FileData | bytes | None) -> File:
    return value.path if isinstance(value, FileData) else value


class Reader:
    """Decodes what a tab holds; `notes` then says what was changed on the way."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def picture(self, file: File, field: str) -> Image.Image | None:
        if file is None:
            return None
        upload = open_picture(file, field)
        self.notes += upload.notes
        return upload.image


Pair = tuple[Image.Image | None, Image.Image | None]


def read_picture(reader: Reader, file: File) -> Pair:
    return reader.picture(file, "init_images"), None


def read_painted(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture and the painted mask: what the brush has covered, whatever its colour."""
    picture, layer = reader.picture(files[0], "init_images"), files[1]
    if picture is None or layer is None:
        return picture, None
    strokes = open_picture(layer, "mask").image
    if strokes.mode != "RGBA":
        raise InvalidRequest("mask", "mask: the painted layer has no transparency; clear the picture and paint again")
    mask = Image.fromarray(np.where(np.asarray(strokes.getchannel("A")) > 128, 255, 0).astype(np.uint8))
    return picture, mask if mask.size == picture.size else mask.resize(picture.size, Image.Resampling.NEAREST)


def read_uploaded(reader: Reader, file: File, mask: File) -> Pair:
    return reader.picture(file, "init_images"), reader.picture(mask, "mask")

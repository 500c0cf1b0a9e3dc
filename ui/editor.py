"""Decodes the pictures and masks of the page's components by our own rules."""

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.img2img import Pair
from pipeline.uploads import open_picture

File = str | None
"""The path of an uploaded file, or None."""


class PictureInput(gr.Image):
    """gr.Image that returns the path of the uploaded file, undecoded."""

    is_template = True

    def preprocess(self, payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path


class Reader:
    """Decodes a tab's files; `notes` then lists what was changed."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.exif: list[bytes | None] = []
        """The source pictures' EXIF."""

    def picture(self, file: File, field: str) -> Image.Image | None:
        if file is None:
            return None
        upload = open_picture(file, field)
        self.notes += upload.notes
        if field == "init_images":
            self.exif.append(upload.exif)
        return upload.image


def read_picture(reader: Reader, files: tuple[File, File]) -> Pair:
    return reader.picture(files[0], "init_images"), None


def read_painted(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture and the mask that was painted on it, L of its size, greys included."""
    picture, mask = reader.picture(files[0], "init_images"), files[1]
    if picture is None or mask is None:
        return picture, None
    painted = open_picture(mask, "mask").image.convert("L")
    return picture, painted if painted.size == picture.size else painted.resize(picture.size, Image.Resampling.NEAREST)


def read_sketch(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture with the paint on it."""
    picture, painted = read_sketch_and_original(reader, files)
    return painted or picture, None


def read_sketch_and_original(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture, and the same with what was painted on it, as RGB; None where nothing was."""
    picture, strokes = read_strokes(reader, files)
    if picture is None or strokes is None or strokes.getbbox() is None:
        return picture, None
    return picture, Image.alpha_composite(picture.convert("RGBA"), strokes).convert(picture.mode)


def read_strokes(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture and what was painted on it, RGBA of its size. Raises InvalidRequest."""
    picture, layer = reader.picture(files[0], "init_images"), files[1]
    if picture is None or layer is None:
        return picture, None
    strokes = open_picture(layer, "mask").image
    if strokes.mode != "RGBA":
        raise InvalidRequest("mask", "mask: the painted layer has no transparency; clear the picture and paint again")
    return picture, strokes if strokes.size == picture.size else strokes.resize(picture.size, Image.Resampling.NEAREST)


def read_uploaded(reader: Reader, files: tuple[File, File]) -> Pair:
    """The picture and its mask as that was uploaded, or as it was painted."""
    return reader.picture(files[0], "init_images"), reader.picture(files[1], "mask")

"""Pictures that browsers cannot show, as PNG, and masks as they count."""

import io

import gradio as gr
import pillow_heif
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from tests.api.conftest import LOCAL, running_backend

PATH, MASK = "/shown-picture", "/shown-mask"


@pytest.fixture(scope="module")
def paged(demo, tmp_path_factory):
    """A client of an application with a page."""
    with gr.Blocks() as page:
        gr.Textbox()
    with running_backend(demo, [], tmp_path_factory.mktemp("paged")) as backend:
        with TestClient(build_app(page, ("me", "secret"), backend=backend), base_url=LOCAL) as client:
            client.auth = ("me", "secret")
            yield client


def heic(size=(64, 48)):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera maker", 6
    pillow_heif.from_pillow(Image.new("RGB", size, (200, 60, 20))).save(stream, exif=exif.tobytes())
    return stream.getvalue()


def test_heic_becomes_an_upright_png_that_keeps_its_exif(paged):
    answer = paged.post(PATH, content=heic(), headers={"Content-Type": "image/heic"})
    image = Image.open(io.BytesIO(answer.content))
    assert answer.status_code == 200 and (image.format, image.size) == ("PNG", (48, 64))
    assert image.getexif().get(0x010F) == "Camera maker" and 0x0112 not in image.getexif()


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def coloured(size=(40, 20)):
    """Black, with a red band that A1111 counts as dark."""
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), (10, 0, 20, 20))
    return image


def clear(size=(40, 20)):
    image = Image.new("RGBA", size)
    image.paste((255, 255, 255, 90), (10, 0, 20, 20))
    return image


@pytest.mark.parametrize("mask, value", [(coloured(), 255), (clear(), 90), (coloured().convert("L").point(lambda v: v and 77), 77)])
def test_a_mask_is_seen_as_it_counts_stretched_to_the_picture(paged, mask, value):
    answer = paged.post(f"{MASK}?width=80&height=60", content=png(mask))
    seen = Image.open(io.BytesIO(answer.content))
    assert (seen.mode, seen.size, answer.headers["palimpsest-size"]) == ("L", (80, 60), "40x20")
    assert seen.getpixel((30, 30)) == value and seen.getpixel((5, 30)) == seen.getpixel((70, 30)) == 0


@pytest.mark.parametrize("query, sentence", [
    ("", "width must be a whole number"), ("?width=0&height=5", "width must be a whole number"), ("?width=5&height=x", "height must be"),
    ("?width=90000000&height=90000000", "mask: the request's pictures may have"), ("?width=8&height=8", "mask: the file is not a picture")])
def test_a_mask_that_cannot_be_seen_is_one_sentence(paged, query, sentence):
    answer = paged.post(MASK + query, content=b"text" if query.endswith("=8") else png(clear()))
    assert answer.status_code == 422 and answer.json()["detail"].startswith(sentence)


@pytest.mark.parametrize("content, sentence", [(heic()[:200], "image: the HEIC file is damaged or cut short"), (b"", "image: the file is empty"),
                                               (b"text", "image: the file is not a picture")])
def test_what_is_no_picture_is_one_sentence(paged, content, sentence):
    answer = paged.post(PATH, content=content)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(sentence)


def test_nobody_else_gets_anything(paged):
    assert paged.post(PATH, content=heic(), auth=("me", "wrong")).status_code == 401
    assert paged.post(PATH, content=heic(), headers={"Origin": "https://example.org"}).status_code == 403

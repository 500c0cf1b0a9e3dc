"""Pictures that browsers cannot show, as PNG."""

import io

import gradio as gr
import pillow_heif
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from tests.api.conftest import LOCAL, running_backend

PATH = "/shown-picture"


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


@pytest.mark.parametrize("content, sentence", [(heic()[:200], "image: the HEIC file is damaged or cut short"), (b"", "image: the file is empty"),
                                               (b"text", "image: the file is not a picture")])
def test_what_is_no_picture_is_one_sentence(paged, content, sentence):
    answer = paged.post(PATH, content=content)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(sentence)


def test_nobody_else_gets_anything(paged):
    assert paged.post(PATH, content=heic(), auth=("me", "wrong")).status_code == 401
    assert paged.post(PATH, content=heic(), headers={"Origin": "https://example.org"}).status_code == 403

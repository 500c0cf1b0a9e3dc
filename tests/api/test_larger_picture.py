"""A canvas's picture made larger: by its own visitor, with what its file says, within bounds."""

import io
import json

import gradio as gr
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from pipeline.drafts import Drafts
from tests.api.conftest import LOCAL, running_backend

PATH, DRAFTS = "/larger-picture", "/canvas-drafts"
LOGIN = ("me", "secret")


@pytest.fixture(scope="module")
def app(demo, tmp_path_factory):
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox()
    with running_backend(demo, [], tmp_path_factory.mktemp("larger")) as backend:
        yield build_app(page, LOGIN, backend=backend, drafts=Drafts())


@pytest.fixture
def client(app):
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as client:
        client.auth = LOGIN
        yield client


def photo():
    """A JPEG 60x40 that stands on its side."""
    y, x = np.mgrid[:40, :60]
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera maker", 6
    Image.fromarray(np.stack([4 * x, 6 * y, x + y], axis=-1).astype(np.uint8)).save(stream, "JPEG", exif=exif.tobytes())
    return stream.getvalue()


def sent(client):
    return client.post(f"{DRAFTS}?kind=picture", content=photo()).json()["draft"]


def larger(client, draft, **asked):
    return client.post(PATH, params={"picture": draft, "left": 8, "fill": "edge"} | asked)


def test_the_answer_is_the_upright_original_with_more_around_it_and_a_draft_of_ones_own(client):
    answer = larger(client, sent(client), top=16)
    image = Image.open(io.BytesIO(answer.content))
    assert answer.status_code == 200 and (image.format, image.size) == ("PNG", (48, 76))
    original = Image.open(io.BytesIO(photo())).transpose(Image.Transpose.ROTATE_270)
    assert image.crop((8, 16, 48, 76)).tobytes() == original.tobytes()
    assert image.getexif().get(0x010F) == "Camera maker" and 0x0112 not in image.getexif()
    assert json.loads(answer.headers["X-Notes"]) == ["The picture was turned upright according to its EXIF."]
    name = answer.headers["X-Draft"]
    assert client.get(DRAFTS, params={"draft": name}).json() == [name]
    assert Image.open(io.BytesIO(larger(client, name).content)).size == (56, 76)  # and so on


def test_nobody_elses_picture_can_be_named(client, app):
    draft = sent(client)
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as other:
        other.auth = LOGIN
        sent(other)
        answer = larger(other, draft)
    assert answer.status_code == 422 and "no longer kept" in answer.json()["detail"]
    assert client.post(PATH, params={"picture": draft}, auth=("me", "wrong")).status_code == 401
    assert client.post(PATH, params={"picture": draft}, headers={"Origin": "https://example.org"}).status_code == 403


@pytest.mark.parametrize("asked, sentence", [
    ({"left": "much"}, "left must be a whole number between 0 and 16384"), ({"left": 0}, "one side must grow"),
    ({"left": 16384}, "too large"), ({"fill": "magic"}, "fill must be one of"), ({"fill": "colour", "colour": "x"}, "colour must be a colour"),
])
def test_what_cannot_be_is_one_sentence(client, asked, sentence):
    answer = larger(client, sent(client), **asked)
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_a_file_that_would_be_too_long_is_refused(client, monkeypatch):
    draft = sent(client)
    monkeypatch.setattr("pipeline.drafts.MAX_BYTES", 50)
    answer = larger(client, draft)
    assert answer.status_code == 422 and "would have more than" in answer.json()["detail"]

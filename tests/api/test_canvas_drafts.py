"""What a canvas sends before Generate, what it asks to have selected, and the page's scripts."""

import io

import gradio as gr
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from api.drafts import VISITOR
from api.selections import AREA
from pipeline.drafts import Drafts
from pipeline.selecting import Selecting
from tests.api.conftest import LOCAL

PATH = "/canvas-drafts"
LOGIN = ("me", "secret")


def png(size=(64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, "PNG")
    return stream.getvalue()


class Model:
    """Stands for an engine: selects the upper half."""

    def segmenters(self):
        return ["tiny"]

    def segment(self, name, picture, key, prompt):
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[:len(mask) // 2, 3:] = 255
        return mask


@pytest.fixture
def seen():
    return []


@pytest.fixture
def app(seen, tmp_path):
    with gr.Blocks(analytics_enabled=False) as page:
        gr.JSON().change(seen.append, gr.JSON(), None, api_name="told")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "part.js").write_text("export const one = 1;\n")
    drafts = Drafts()
    return build_app(page, LOGIN, drafts=drafts, selecting=Selecting(drafts, Model()), web=tmp_path / "web")


@pytest.fixture
def client(app):
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as client:
        client.auth = LOGIN
        yield client


def send(client, content=None, kind="mask"):
    return client.post(f"{PATH}?kind={kind}", content=content or png())


def told(client, draft):
    return client.post("/gradio_api/run/told", json={"data": [{"mask": {"draft": draft}}]})


def test_a_picture_is_kept_and_its_size_told(client):
    answer = send(client).json()
    assert (answer["width"], answer["height"]) == (64, 48)
    assert client.get(PATH, params={"draft": [answer["draft"], "0" * 32]}).json() == [answer["draft"]]


def test_scripts_cannot_read_whose_a_draft_is(client):
    cookie = next(value for name, value in send(client).headers.multi_items() if name == "set-cookie" and VISITOR in value)
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert VISITOR not in send(client).headers.get("set-cookie", "")


def test_an_event_may_name_ones_own_drafts_only(client, app, seen):
    draft = send(client).json()["draft"]
    assert told(client, draft).status_code == 200 and len(seen) == 1
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as other:
        other.auth = LOGIN
        send(other)
        assert other.get(PATH, params={"draft": draft}).json() == []
        refused = told(other, draft)
        assert refused.status_code == 403 and "no longer kept" in refused.json()["detail"] and len(seen) == 1


def test_what_cannot_be_kept_is_one_sentence(client, monkeypatch):
    assert send(client, b"text").json()["detail"].startswith("mask: the file is not a picture")
    assert send(client, b"text", "picture").json()["detail"].startswith("init_images: the file is not a picture")
    assert send(client, kind="else").json()["detail"] == "kind must be one of picture, mask, paint, reference"
    monkeypatch.setattr("api.drafts.MAX_BYTES", 50)
    answer = send(client)
    assert answer.status_code == 422 and "larger than" in answer.json()["detail"]


def test_nobody_else_gets_in(client):
    assert client.post(f"{PATH}?kind=mask", content=png(), auth=("me", "wrong")).status_code == 401
    assert client.post(f"{PATH}?kind=mask", content=png(), headers={"Origin": "https://example.org"}).status_code == 403
    assert client.get("/web/part.js", auth=("me", "wrong")).status_code == 401


SELECTIONS = "/canvas-selections"
CLICK = {"tool": "click", "model": "tiny", "points": [[1, 2]]}


def test_a_mask_comes_as_the_numbers_of_what_is_selected(client):
    answer = client.post(SELECTIONS, json=CLICK | {"draft": send(client, kind="picture").json()["draft"]})
    assert answer.headers[AREA] == "3 0 64 24" and len(answer.content) == 61 * 24 and set(answer.content) == {255}
    assert int(answer.headers["content-length"]) < 100
    assert client.get(SELECTIONS).json() == ["tiny"]


def test_a_path_comes_as_points(client):
    draft = send(client, kind="picture").json()["draft"]
    answer = client.post(SELECTIONS, json={"tool": "edge", "draft": draft, "points": [[1, 1], [9, 9]], "reach": 0})
    assert answer.json()["path"][0] == [1, 1] and AREA not in answer.headers


def test_a_selection_in_anothers_picture_is_refused(client, app):
    draft = send(client, kind="picture").json()["draft"]
    with TestClient(app, base_url=LOCAL, raise_server_exceptions=False) as other:
        other.auth = LOGIN
        send(other)
        answer = other.post(SELECTIONS, json=CLICK | {"draft": draft})
        assert answer.status_code == 410 and "no longer kept" in answer.json()["detail"]


def test_who_may_not_open_the_page_may_select_nothing(client):
    assert client.post(SELECTIONS, json=CLICK, auth=("me", "wrong")).status_code == 401
    assert client.get(SELECTIONS, auth=("me", "wrong")).status_code == 401
    assert client.post(SELECTIONS, json=CLICK, headers={"Origin": "https://example.org"}).status_code == 403


@pytest.mark.parametrize("body", [b"", b"[]", b"{" * 3000, b'{"tool": "' + b"x" * (1 << 18) + b'"}'])
def test_a_question_that_is_none_is_one_sentence(client, body):
    answer = client.post(SELECTIONS, content=body)
    assert answer.status_code == 422 and "JSON object of at most 256 KiB" in answer.json()["detail"]


def test_scripts_come_as_what_browsers_run(client):
    answer = client.get("/web/part.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8" and answer.headers["cache-control"] == "no-cache"
    assert client.get("/web/part.js", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/web/../app.py").status_code == 404

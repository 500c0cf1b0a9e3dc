"""What a canvas sends before Generate, and the page's scripts."""

import io

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from api.drafts import VISITOR
from pipeline.drafts import Drafts
from tests.api.conftest import LOCAL

PATH = "/canvas-drafts"
LOGIN = ("me", "secret")


def png(size=(64, 48)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def app(seen, tmp_path):
    with gr.Blocks(analytics_enabled=False) as page:
        gr.JSON().change(seen.append, gr.JSON(), None, api_name="told")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "part.js").write_text("export const one = 1;\n")
    return build_app(page, LOGIN, drafts=Drafts(), web=tmp_path / "web")


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
    assert send(client, kind="else").json()["detail"] == "kind must be one of picture, mask, paint"
    monkeypatch.setattr("api.drafts.MAX_BYTES", 50)
    answer = send(client)
    assert answer.status_code == 422 and "larger than" in answer.json()["detail"]


def test_nobody_else_gets_in(client):
    assert client.post(f"{PATH}?kind=mask", content=png(), auth=("me", "wrong")).status_code == 401
    assert client.post(f"{PATH}?kind=mask", content=png(), headers={"Origin": "https://example.org"}).status_code == 403
    assert client.get("/web/part.js", auth=("me", "wrong")).status_code == 401


def test_scripts_come_as_what_browsers_run(client):
    answer = client.get("/web/part.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8" and answer.headers["cache-control"] == "no-cache"
    assert client.get("/web/part.js", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/web/../app.py").status_code == 404

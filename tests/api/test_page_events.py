"""What events of the page may carry, by whichever route they come."""

import json
from pathlib import Path

import gradio as gr
import pytest
from fastapi.testclient import TestClient
from gradio.utils import get_upload_folder

from api import build_app
from api.events import MAX_EVENT, UploadLimit
from tests.api.conftest import LOCAL

META = {"_type": "gradio.FileData"}
FETCHED = "http://192.0.2.1/x.png"
ROUTES = ["run/predict", "run/predict/", "api/predict", "queue/join", "call/predict", "call/v2/predict", "queue/join?__theme=dark",
          "component_server"]


@pytest.fixture
def seen():
    """What reached a handler."""
    return []


@pytest.fixture
def client(seen):
    def handle(file):
        seen.append(file)
        return file

    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Image(type="filepath")
        box.change(handle, box, box, api_name="predict")
        gr.JSON().change(handle, gr.JSON(), gr.JSON(), api_name="json")
    with TestClient(build_app(page, None), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def fetched(monkeypatch):
    """The addresses that Gradio is made to ask: it must not be."""
    asked = []

    async def ask(url, cache_dir):
        asked.append(url)
        raise AssertionError(url)

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", ask)
    return asked


def event(*data, fn_index=0):
    return {"data": list(data), "fn_index": fn_index, "session_hash": "x"}


def send(client, route, file, **how):
    body = {"file": file} if "v2" in route else event(file)
    return client.post(f"/gradio_api/{route}", content=how.pop("content", None) or json.dumps(body),
                       headers={"Content-Type": "application/json"} | how)


@pytest.mark.parametrize("route", ROUTES)
def test_an_address_in_an_event_is_refused_on_every_route(client, fetched, seen, route):
    answer = send(client, route, {"path": FETCHED, "meta": META})
    assert answer.status_code == 403 and answer.json()["error"] == "Files are not fetched from other servers."
    assert not fetched and not seen


FORMS = {
    "upper case": {"path": "HTTP://192.0.2.1/", "meta": META},
    "another scheme": {"path": "file:///etc/passwd", "meta": META},
    "ftp": {"path": "ftp://192.0.2.1/x", "meta": META},
    "data": {"path": "data:image/png;base64,AAAA", "meta": META},
    "blanks before": {"path": " \t\nhttp://192.0.2.1/", "meta": META},
    "no scheme": {"path": "//192.0.2.1/x", "meta": META},
    "another machine of Windows": {"path": r"\\192.0.2.1\x", "meta": META},
    "no meta": {"path": FETCHED},
    "nested": [{"a": [[{"b": {"path": FETCHED, "meta": META}}]]}],
    "url": {"path": f"{get_upload_folder()}/x.png", "url": FETCHED, "meta": META},
    "url of another server's page": {"path": f"{get_upload_folder()}/x.png", "url": "http://192.0.2.1/gradio_api/file=/x"},
    "url in its own address": {"url": f"{LOCAL}/gradio_api/file={FETCHED}", "path": "", "meta": META},
    "url that is escaped": {"url": f"{LOCAL}/gradio_api/file=http%3A%2F%2F192.0.2.1", "path": "", "meta": META},
    "url of this server, but no file": {"url": f"{LOCAL}/sdapi/v1/options", "path": "", "meta": META},
    "names in capitals": {"PATH": FETCHED, "meta": META},
}


@pytest.mark.parametrize("file", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("route", ["run/predict", "queue/join"])
def test_every_form_of_an_address_is_refused(client, fetched, route, file):
    answer = send(client, route, file)
    assert answer.status_code == 403 and answer.json()["detail"] == "Files are not fetched from other servers."
    assert not fetched


@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data; boundary=x"},
                                     {"Content-Type": "application/json; charset=utf-16"}])
def test_what_kind_of_text_it_is_said_to_be_changes_nothing(client, fetched, headers):
    text = json.dumps(event({"path": FETCHED, "meta": META}))
    content = text.encode("utf-16" if "utf-16" in headers["Content-Type"] else "utf-8")
    assert send(client, "queue/join", None, content=content, **headers).status_code == 403
    assert not fetched


def test_the_first_of_two_entries_of_a_name_counts_too(client):
    text = '{"data": [{"path": "%s", "path": "", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}' % FETCHED
    assert send(client, "run/predict", None, content=text).status_code == 403


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "\u00e4".encode("latin-1"), '{"data": NaN,}'])
def test_what_is_no_json_is_refused_in_a_sentence(client, content):
    answer = send(client, "queue/join", None, content=content)
    assert answer.status_code == 400 and answer.json()["error"].startswith("The body of an event must be JSON")


def test_endless_data_is_refused(client):
    answer = send(client, "queue/join", None, content=b" " * (MAX_EVENT + 1))
    assert answer.status_code == 413 and "larger than 16 MiB" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/tmp/x.png"])
def test_files_that_were_not_uploaded_are_refused(client, path, seen):
    answer = send(client, "run/predict", {"path": path, "meta": META})
    assert answer.status_code == 500 and "was not uploaded by a user" in answer.json()["error"] and not seen


@pytest.mark.parametrize("path", ["secret.png", "../x", "~/x", "./x", "/tmp/../x", "/tmp//x", "x" * 5000, "a\0b"])
def test_a_file_without_its_whole_path_is_refused_without_naming_a_folder(client, path):
    answer = send(client, "run/predict", {"path": path, "meta": META})
    assert answer.json()["error"] == "An event names a file that was not uploaded to this page."
    assert answer.status_code == 403 and str(Path.cwd()) not in answer.text


def test_an_upload_with_its_own_address_passes(client, picture, tmp_path, seen):
    picture.save(tmp_path / "a.png")
    [path] = client.post("/gradio_api/upload", files={"files": ("a.png", (tmp_path / "a.png").read_bytes())}).json()
    file = {"path": path, "url": f"{LOCAL}/gradio_api/file={path}", "meta": META}
    assert send(client, "run/predict", file).status_code == 200 and len(seen) == 1


def test_addresses_in_what_people_write_are_text(client, seen):
    answer = client.post("/gradio_api/run/json", json={"data": [["see http://192.0.2.1/ and //x", {"prompt": FETCHED}]]})
    assert answer.status_code == 200 and seen == [["see http://192.0.2.1/ and //x", {"prompt": FETCHED}]]


def test_a_network_uploads_only_so_much_in_an_hour():
    now = [0.0]
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Image()
    limited = UploadLimit(build_app(page, None), 5000, lambda: now[0])
    near, far = (TestClient(limited, base_url=LOCAL, client=(host, 1)) for host in ("10.0.0.7", "10.0.0.8"))

    def upload(client):
        return client.post("/gradio_api/upload", files={"files": ("a.png", bytes(3000))})

    assert [upload(near).status_code for _ in range(3)] == [200, 200, 429]
    assert "may be uploaded in an hour" in upload(near).json()["error"]
    assert upload(far).status_code == 200
    now[0] = 3601.0
    assert upload(near).status_code == 200


def test_a_shared_page_bounds_uploads_and_one_of_ones_own_does_not():
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Image()
    for shared in (True, False):
        kinds = [middleware.cls for middleware in build_app(page, None, shared=shared).user_middleware]
        assert (UploadLimit in kinds) == shared

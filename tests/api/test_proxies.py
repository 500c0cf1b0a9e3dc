"""Behind a proxy: by another name, at another port, under a path."""

import re

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from api import build_app
from app import parse_flags
from tests.api.conftest import LOCAL
from tests.api.test_guard import LOGIN, basic

UPSTREAM = {"Host": "127.0.0.1:7860"}
OUTSIDE = "http://pictures.example:8080"


def visit(login=None, **how):
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Image("assets/samples/desert.png", type="filepath")
        box.change(lambda file: "assets/samples/desert.png", box, box, api_name="same")
    return TestClient(build_app(page, login, **how), base_url=LOCAL, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client():
    return visit()


def ask(client, headers):
    return client.post("/gradio_api/run/same", json={"data": [None]}, headers=headers)


PROXIES = {
    "Host and port passed on": {"Host": "pictures.example:8080", "Origin": OUTSIDE},
    "Host without its port": {"Host": "pictures.example", "Origin": OUTSIDE},
    "Host without its port, by https": {"Host": "pictures.example", "Origin": "https://pictures.example:8443"},
    "X-Forwarded-Host": UPSTREAM | {"X-Forwarded-Host": "pictures.example:8080", "Origin": OUTSIDE},
    "X-Forwarded-Host of two proxies": UPSTREAM | {"X-Forwarded-Host": "pictures.example:8080, inner", "Origin": OUTSIDE},
    "no Host, a browser that says same-origin": UPSTREAM | {"Origin": OUTSIDE, "Sec-Fetch-Site": "same-origin"},
}


@pytest.mark.parametrize("headers", PROXIES.values(), ids=PROXIES)
def test_an_event_of_our_page_passes_and_is_answered_for_the_address_of_the_browser(headers):
    answer = ask(visit(LOGIN), headers | basic(*LOGIN))
    assert answer.status_code == 200
    assert answer.json()["data"][0]["url"].startswith(f"{headers['Origin']}/gradio_api/file=")


@pytest.mark.parametrize("headers", [
    {"Origin": "http://127.0.0.1:8080"}, {"Host": "127.0.0.1:7860", "Origin": "http://127.0.0.1"},
    {"Origin": "null"}, {"Origin": "file://"}, {"Origin": "http://127.0.0.1:7860.evil.example"},
    {"Origin": OUTSIDE, "Sec-Fetch-Site": "same-site"}, {"Origin": OUTSIDE, "Sec-Fetch-Site": "cross-site"},
    {"Origin": OUTSIDE, "Sec-Fetch-Site": "none of these"}, {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "cross-site"},
])
def test_pages_of_other_sites_are_refused(client, headers):
    assert ask(client, headers).status_code == 403


@pytest.mark.parametrize("route", ["run/same", "queue/join", "cancel", "upload"])
@pytest.mark.parametrize("headers, status", [(UPSTREAM | {"Origin": OUTSIDE}, 403), ({"Host": "other.example"}, 403)])
def test_a_refusal_is_json_that_the_page_shows(client, route, headers, status):
    answer = client.post(f"/gradio_api/{route}", json={}, headers=headers)
    assert answer.status_code == status and answer.json()["error"] == answer.json()["detail"]
    assert answer.json()["detail"].endswith(".")


def test_the_refusal_says_what_the_proxy_has_to_do(client):
    said = ask(client, UPSTREAM | {"Origin": OUTSIDE}).json()["detail"]
    assert OUTSIDE in said and "127.0.0.1:7860" in said and "pass on the Host header" in said


def test_another_name_without_a_login_is_told_of_auth(client):
    assert "start it with --auth" in client.get("/", headers={"Host": "pictures.example"}).text


def test_the_page_looks_where_it_is_before_gradio_starts(client):
    html = client.get("/", headers={"Accept-Encoding": "br"}).text
    script = html.index("location.href).href")
    assert html.index("window.gradio_config = ") < script < html.index('<script type="module"')


@pytest.mark.parametrize("prefix", ["/palimpsest", ""])
def test_below_a_path_everything_answers_whether_or_not_the_proxy_takes_the_path_off(backend, prefix):
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Image("assets/samples/desert.png", type="filepath")
        box.change(lambda file: "assets/samples/desert.png", box, box, api_name="same")
    client = TestClient(build_app(page, LOGIN, backend=backend, subpath="/palimpsest"), base_url=LOCAL)
    asked = {"headers": basic(*LOGIN)}
    html = client.get(f"{prefix}/", **asked).text
    assert f'"root":"{LOCAL}/palimpsest"' in re.sub(r'": ?"', '":"', html)
    url = client.post(f"{prefix}/gradio_api/run/same", json={"data": [None]}, **asked).json()["data"][0]["url"]
    assert url.startswith(f"{LOCAL}/palimpsest/gradio_api/file=") and client.get(url, **asked).status_code == 200
    assert client.get(f"{prefix}/sdapi/v1/options/", **asked).json()
    assert client.get(f"{prefix}/openapi.json", **asked).json()["servers"] == [{"url": "/palimpsest"}]
    for path in ("/", "/sdapi/v1/options", "/gradio_api/file=http://192.0.2.1/"):
        assert client.get(f"{prefix}{path}").status_code == 401, path
    assert client.get(f"{prefix}/gradio_api/file=http://192.0.2.1/", **asked).text == "Files are not fetched from other servers."
    event = {"data": [{"path": "http://192.0.2.1/", "meta": {"_type": "gradio.FileData"}}]}
    assert client.post(f"{prefix}/gradio_api/run/same", json=event, **asked).status_code == 403


def test_the_path_without_its_slash_leads_to_the_page():
    answer = visit(subpath="/palimpsest").get("/palimpsest", follow_redirects=False)
    assert answer.status_code == 307 and answer.headers["Location"] == "/palimpsest/"


@pytest.mark.parametrize("given, subpath", [("palimpsest", "/palimpsest"), ("/a/b/", "/a/b"), ("/", ""), ("", "")])
def test_a_subpath_may_be_written_with_or_without_slashes(given, subpath):
    assert parse_flags(["--subpath", given]).subpath == subpath


@pytest.mark.parametrize("flags, sentence", [
    (["--subpath", "/a b"], "--subpath must be a path such as /palimpsest"), (["--subpath", "//evil/../x?"], "--subpath must be"),
    (["--tls-keyfile", "x"], "need each other"), (["--tls-certfile", "x"], "need each other"),
    (["--tls-keyfile", "no.pem", "--tls-certfile", "no.pem"], "cannot be used"),
    (["--tls-keyfile", "README.md", "--tls-certfile", "README.md"], "cannot be used"),
    (["--share", "--tls-keyfile", "x", "--tls-certfile", "x"], "--share has its own certificate"),
])
def test_flags_that_cannot_be_are_refused_at_the_start(flags, sentence, capsys):
    with pytest.raises(SystemExit):
        parse_flags(flags)
    assert sentence in capsys.readouterr().err


def test_answers_carry_no_leave_for_other_sites_to_read_them():
    client = visit(LOGIN)
    for path in ("/", "/config", "/gradio_api/info", "/theme.css"):
        headers = {"Host": "pictures.example", "Origin": "https://evil.example"} | basic(*LOGIN)
        answer = client.get(path, headers=headers)
        assert answer.status_code == 200, path
        assert not [name for name in answer.headers if name.startswith("access-control")], path

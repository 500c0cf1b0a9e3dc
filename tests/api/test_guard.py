"""What stands before every route."""

import base64
import socket
import threading
import time
import urllib.request

import gradio as gr
import pytest
import uvicorn
from fastapi.testclient import TestClient

from api import build_app
from api.logins import GUESSES, NETWORKS, Guesses
from tests.api.conftest import wait_until

LOGIN = ("me", "sécret")


def client(login):
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Textbox()
        box.change(lambda text: text, box, box)
    return TestClient(build_app(page, login, allowed_paths=[]), base_url="http://127.0.0.1:7860")


@pytest.fixture(scope="module")
def locked():
    return client(LOGIN)


@pytest.fixture(scope="module")
def open_client():
    return client(None)


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def every_route(app):
    """(method, path) of all routes, mounted applications included."""
    def walk(routes, prefix):
        for route in routes:
            path = prefix + getattr(route, "path", "")
            inner = getattr(getattr(route, "app", None), "routes", None)
            if inner is not None:
                yield from walk(inner, path.rstrip("/"))
            else:
                for method in getattr(route, "methods", None) or ["GET"]:
                    yield method, path.replace("{path:path}", "x")
    return sorted(set(walk(app.routes, "")))


def test_every_route_asks_for_the_login(locked):
    routes = every_route(locked.app)
    assert len(routes) > 20
    for method, path in routes:
        assert locked.request(method, path).status_code == 401, (method, path)


@pytest.mark.parametrize("headers", [basic("me", "wrong"), basic("you", "sécret"), {"Authorization": "Basic ???"},
                                     {"Authorization": "Bearer x"}])
def test_a_wrong_login_is_refused_and_the_browser_told_to_ask(locked, headers):
    answer = locked.get("/", headers=headers)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")


def test_the_right_login_opens_the_page(locked):
    assert locked.get("/", headers=basic(*LOGIN)).status_code == 200


def test_without_a_login_no_other_name_than_this_machines_is_answered(open_client, locked):
    assert open_client.get("/", headers={"Host": "evil.example:7860"}).status_code == 403
    assert open_client.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    assert open_client.get("/", headers={"Host": "[::1]:7860"}).status_code == 200
    assert locked.get("/", headers={"Host": "mine.example"} | basic(*LOGIN)).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                                     {"Sec-Fetch-Site": "same-site"}])
def test_a_post_that_another_sites_page_makes_is_refused(open_client, headers):
    assert open_client.post("/gradio_api/queue/join", json={}, headers=headers).status_code == 403


def test_what_another_sites_page_reads_is_refused_but_a_link_to_here_works(open_client):
    assert open_client.get("/config", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status_code == 403
    assert open_client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/gradio_api/file/"])
def test_gradio_fetches_nothing_from_elsewhere(open_client, route):
    for address in ("http://192.0.2.1/x.png", "https%3A//192.0.2.1/x.png"):
        answer = open_client.get(route + address)
        assert answer.status_code == 403 and answer.text == "Files are not fetched from other servers."


@pytest.fixture
def port():
    """A live server with a page, for whoever speaks to it by hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(client(None).app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield port
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize("path", ["upload", "upload?upload_id=x", "component_server", "queue/join"])
def test_a_page_that_is_gone_amid_an_upload_is_no_error(port, path, caplog):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port)) as upload:
        upload.sendall(f"POST /gradio_api/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100000\r\n"
                       "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + part + bytes(5000))
    time.sleep(0.2)
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/startup-events").status == 200
    assert not caplog.records


@pytest.mark.parametrize("headers", [{"Host": "[evil"}, {"Host": ""}])
def test_a_malformed_host_is_refused(open_client, headers):
    assert open_client.get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://127.0.0.1:7860"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_post_of_our_own_page_or_of_a_script_passes(open_client, headers):
    assert open_client.post("/gradio_api/queue/join", json={}, headers=headers).status_code != 403


def test_the_page_may_only_ask_its_own_server(open_client):
    assert "default-src 'self'" in open_client.get("/").headers["Content-Security-Policy"]


def test_after_too_many_wrong_logins_from_one_network_even_the_right_one_waits():
    guarded = client(LOGIN)
    for number in range(GUESSES):
        assert guarded.get("/", headers=basic("me", str(number))).status_code == 401
    for headers in (basic("me", "again"), basic(*LOGIN)):
        answer = guarded.get("/", headers=headers)
        assert answer.status_code == 429 and "Too many wrong logins; try again in" in answer.text
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert guarded.get("/").status_code == 401  # no guess, so the browser may ask
    elsewhere = TestClient(guarded.app, base_url="http://127.0.0.1:7860", client=("10.0.0.7", 1))
    assert elsewhere.get("/", headers=basic(*LOGIN)).status_code == 200


def test_a_browser_that_had_logged_in_goes_on_while_others_guess():
    guarded = client(LOGIN)
    known = TestClient(guarded.app, base_url="http://127.0.0.1:7860", headers=basic(*LOGIN))
    cookie = known.get("/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    for number in range(GUESSES):
        guarded.get("/", headers=basic("me", str(number)))
    assert known.get("/").status_code == 200
    assert guarded.get("/", headers=basic(*LOGIN) | {"Cookie": "palimpsest-known=x"}).status_code == 429


def test_guesses_are_forgotten_after_a_minute_and_networks_when_there_are_many():
    now = [0.0]
    guesses = Guesses(lambda: now[0])
    for _ in range(GUESSES):
        guesses.wrong("a")
    assert guesses.wait("a") == 60 and guesses.wait("b") == 0
    now[0] = 60.0
    assert guesses.wait("a") == 0
    for number in range(NETWORKS + 5):
        guesses.wrong(str(number))
    assert len(guesses._wrong) == NETWORKS


def test_the_login_of_the_owner_is_guessed_no_faster_by_who_has_the_visitors():
    guarded = TestClient(build_app(None, LOGIN, api_logins=[("owner", "secret")], shared=True), base_url="http://my.server")
    for number in range(GUESSES):
        assert guarded.get("/sdapi/v1/options", headers=basic("owner", str(number))).status_code == 401
    assert guarded.get("/sdapi/v1/options", headers=basic("owner", "secret")).status_code == 429

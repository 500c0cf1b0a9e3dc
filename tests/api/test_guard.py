"""What stands before every route."""

import base64

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from api import build_app

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


@pytest.mark.parametrize("headers", [{"Host": "[evil"}, {"Host": ""}])
def test_a_malformed_host_is_refused(open_client, headers):
    assert open_client.get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://127.0.0.1:7860"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_post_of_our_own_page_or_of_a_script_passes(open_client, headers):
    assert open_client.post("/gradio_api/queue/join", json={}, headers=headers).status_code != 403


def test_the_page_may_only_ask_its_own_server(open_client):
    assert "default-src 'self'" in open_client.get("/").headers["Content-Security-Policy"]

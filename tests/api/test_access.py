"""Who may use the API: logins of its own, other sites, large bodies."""

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from api import SESSIONS, build_app
from app import parse_flags
from tests.api.conftest import LOCAL
from tests.api.test_guard import LOGIN, basic, every_route

API_LOGIN = ("bot", "pass:word")
OPTIONS = "/sdapi/v1/options"


@pytest.fixture
def visit(backend):
    """A client of an application that is guarded as the arguments say."""
    def visit(login=None, **how):
        return TestClient(build_app(None, login, backend=backend, **how), base_url=LOCAL)
    return visit


def test_every_route_of_the_api_asks_for_a_login(visit):
    for client in (visit(LOGIN), visit(None, api_logins=[API_LOGIN]), visit(LOGIN, api_logins=[API_LOGIN])):
        documented = [(method, path) for path, item in client.app.openapi()["paths"].items() for method in item]
        assert len(documented) > 35
        for method, path in (*documented, *every_route(client.app)):
            assert client.request(method, path or "/sdapi/").status_code == 401, (method, path)


@pytest.mark.parametrize("headers, detail", [({}, "Not authenticated"),
                                             (basic("bot", "wrong"), "Incorrect username or password"),
                                             ({"Authorization": "Basic ???"}, "Incorrect username or password")])
def test_the_refusal_has_a1111s_shape(visit, headers, detail):
    answer = visit(None, api_logins=[API_LOGIN]).get(OPTIONS, headers=headers)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.json() == {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}


def test_each_login_opens_the_api(visit):
    client = visit(LOGIN, api_logins=[API_LOGIN, ("second", "one")])
    for login in (LOGIN, API_LOGIN, ("second", "one")):
        assert client.get(OPTIONS, headers=basic(*login)).status_code == 200


def test_with_a_login_the_api_answers_by_any_name(visit):
    assert visit(None, api_logins=[API_LOGIN]).get(OPTIONS,
                                                   headers={"Host": "my.server"} | basic(*API_LOGIN)).status_code == 200
    answer = visit().get(OPTIONS, headers={"Host": "my.server"})
    assert answer.status_code == 403 and "127.0.0.1 and localhost only" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/sdapi/v1/interrupt", "/sdapi/v1/options", "/internal/progress"])
def test_other_sites_pages_are_refused_unless_they_are_allowed(visit, path):
    elsewhere = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert visit().post(path, json={}, headers=elsewhere).status_code == 403
    allowed = visit(origins=["https://friend.example"])
    answer = allowed.post(path, json={}, headers=elsewhere)
    assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
    assert allowed.post(path, json={}, headers=elsewhere | {"Origin": "https://evil.example"}).status_code == 403


def test_an_allowed_site_may_ask_beforehand_without_a_login(visit):
    client = visit(LOGIN, origins=["https://friend.example"])
    answer = client.options(OPTIONS, headers={"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"


def test_a_body_that_is_too_large_is_refused_in_a_sentence(visit):
    client = visit(max_body=1)
    for content in (b"x" * (1 << 20 | 1), (b"x" * 1000 for _ in range(2000))):
        answer = client.post("/sdapi/v1/img2img", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413 and "larger than 1 MiB" in answer.json()["detail"]
    assert client.post("/sdapi/v1/img2img", content=b"{}" + b" " * 1000,
                       headers={"Content-Type": "application/json"}).status_code == 404


def test_what_is_no_path_of_the_api_is_told_so(visit):
    client = visit()
    nobody = client.get("/sdapi/v1/nobody")
    assert nobody.status_code == 404 and nobody.json() == {"detail": "Not Found"}
    assert client.get("/sdapi/v1/img2img").json() == {"detail": "Method Not Allowed"}
    assert client.post("/internal/ping").status_code == 405


def test_a_slash_at_the_end_leads_to_the_path_without(visit):
    assert visit().post("/sdapi/v1/interrupt/").json() == {} and visit().get("/internal/ping/").json() == {}
    assert visit().get("/sdapi/v1/nobody/").status_code == 404


def test_the_page_and_the_api_share_a_port(backend):
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Textbox()
    client = TestClient(build_app(page, None, backend=backend), base_url=LOCAL)
    assert "gradio" in client.get("/").text and client.get("/docs").status_code == 200
    assert client.get(OPTIONS).status_code == 200 and client.get("/sdapi/v1/nobody").json() == {"detail": "Not Found"}
    client = TestClient(build_app(page, LOGIN, backend=backend), base_url=LOCAL)
    assert client.get("/").status_code == client.get(OPTIONS).status_code == 401


def test_what_gradio_remembers_of_pages_that_were_opened_is_bounded():
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Textbox()
        box.change(lambda text: text, box, box, api_name="say")
    client = TestClient(build_app(page, None), base_url=LOCAL)
    for number in range(SESSIONS + 5):
        answer = client.post("/gradio_api/run/say", json={"data": ["x"], "session_hash": str(number)})
        assert answer.status_code == 200
    assert len(page.state_holder.session_data) == SESSIONS


@pytest.mark.parametrize("flags", [["--api-auth", "me"], ["--api-auth", "me:x,you"], ["--api-auth", ":x"]])
def test_half_a_login_is_refused_at_the_start(flags, capsys):
    with pytest.raises(SystemExit):
        parse_flags(flags)
    assert "--api-auth must be USER:PASSWORD" in capsys.readouterr().err


@pytest.mark.parametrize("origins", ["*", "https://friend.example/", "friend.example", "https://friend.example,", ""])
def test_what_is_no_site_is_refused_at_the_start(origins, capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--cors-allow-origins", origins])
    assert "--cors-allow-origins must be sites such as https://example.org" in capsys.readouterr().err


def test_sites_are_listed_with_commas():
    assert parse_flags(["--cors-allow-origins", "https://a.example, http://127.0.0.1:3456"]).cors_allow_origins

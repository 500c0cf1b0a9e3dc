"""A shared page: what its login may do with the API, and what is the owner's."""

from contextlib import contextmanager

import gradio as gr
import pytest
from fastapi.testclient import TestClient

from api import build_app
from api.visitors import OPEN
from app import is_shared, parse_flags
from pipeline.fonts import FONT
from pipeline.limits import Client, Limits
from tests.api.test_access import API_LOGIN
from tests.api.test_guard import LOGIN, basic
from tests.pipeline.test_engine import request

V1 = "/sdapi/v1"
FROM = ("10.0.0.7", 50000)


@pytest.fixture
def visit(backend):
    """A client of the shared page's API, with a login and an address."""
    app = build_app(None, LOGIN, backend=backend, api_logins=[API_LOGIN], shared=True)

    def visit(login=LOGIN, address=FROM):
        return TestClient(app, base_url="http://my.server", headers=basic(*login), client=address,
                          raise_server_exceptions=False)
    return visit


@contextmanager
def waiting_job(backend, gate, picture, client):
    """A job of that client which runs and does not end, until the block does."""
    gate.opened.clear()
    job = backend.engine.submit([request(picture)], client=client)
    assert gate.reached.wait(30)
    yield job
    gate.opened.set()


def test_what_is_not_open_to_visitors_is_refused_in_a_sentence_on_every_path(visit):
    visitor, owner = visit(), visit(API_LOGIN)
    documented = {(method.upper(), path) for path, item in visitor.app.openapi()["paths"].items() for method in item}
    assert OPEN - documented == {("GET", "/docs"), ("GET", "/openapi.json")}
    closed = documented - OPEN
    assert {("POST", f"{V1}/options"), ("GET", f"{V1}/cmd-flags"), ("POST", f"{V1}/refresh-checkpoints"),
            ("POST", f"{V1}/unload-checkpoint"), ("GET", "/internal/pending-tasks"), ("GET", f"{V1}/memory")} < closed
    for method, path in closed:
        answer = visitor.request(method, path)
        assert answer.status_code == 403, path
        assert answer.json()["detail"] == f"{path} is for logins of --api-auth on a shared page."
        assert owner.request(method, path).status_code != 403, path


@pytest.mark.parametrize("path", [f"{V1}/options/", f"{V1}//options", f"{V1}/nobody", "/internal/nobody"])
def test_paths_that_only_look_like_open_ones_are_refused(visit, path):
    assert visit().post(path, json={"samples_format": "jpg"}).status_code == 403


def test_a_page_that_is_not_shared_opens_all_to_its_login(backend):
    client = TestClient(build_app(None, LOGIN, backend=backend), base_url="http://my.server", headers=basic(*LOGIN))
    assert client.get(f"{V1}/cmd-flags").status_code == 200


def test_visitors_make_pictures_but_change_no_option_with_them(visit, body, backend):
    overridden = body | {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    assert visit().post(f"{V1}/img2img", json=overridden).status_code == 200
    lasting = overridden | {"override_settings_restore_afterwards": False}
    answer = visit().post(f"{V1}/img2img", json=lasting)
    assert answer.status_code == 403 and "override_settings_restore_afterwards: false is for logins" in answer.json()["detail"]
    assert backend.engine.options.CLIP_stop_at_last_layers == 1
    assert visit(API_LOGIN).post(f"{V1}/img2img", json=lasting).status_code == 200
    assert backend.engine.options.CLIP_stop_at_last_layers == 2


def test_visitors_read_lists_without_places_of_files(visit, backend):
    backend.settings.change({"outdir_samples": "/home/me/pictures", "font": str(FONT), "CLIP_stop_at_last_layers": 2})
    folder = str(backend.models.default.path.parent)
    for _, path in OPEN - {("POST", path) for _, path in OPEN}:
        answer = visit().get(path)
        assert answer.status_code == 200, path
        assert folder not in answer.text and "/home/me" not in answer.text and FONT.name not in answer.text, path
    assert visit().get(f"{V1}/options").json()["CLIP_stop_at_last_layers"] == 2
    assert visit().get(f"{V1}/sd-models").json()[0]["filename"] == backend.models.default.path.name
    owner = visit(API_LOGIN)
    assert folder in owner.get(f"{V1}/sd-models").text and "/home/me" in owner.get(f"{V1}/options").text


OTHERS = {"another visitor": Client(f"api {LOGIN[0]} 10.0.0.8"), "a browser": Client("0" * 32),
          "the owner": Client(f"api {API_LOGIN[0]} {FROM[0]}")}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_visitors_neither_see_nor_stop_jobs_of_others(visit, backend, gate, picture, other):
    with waiting_job(backend, gate, picture, other) as job:
        for query in ("", f"?id_task={job.id}"):
            assert visit().get(f"{V1}/progress{query}").json()["state"]["job"] == ""
            assert visit().post(f"{V1}/interrupt{query}").status_code == visit().post(f"{V1}/skip{query}").status_code == 200
        told = visit().post("/internal/progress", json={"id_task": job.id}).json()
        assert not (told["active"] or told["queued"] or told["live_preview"]) and not (job.stopped or job.skipped)
        assert visit(API_LOGIN).get(f"{V1}/progress").json()["state"]["job"] == job.id
        visit(API_LOGIN).post(f"{V1}/interrupt")
        assert job.stopped


def test_visitors_see_and_stop_their_own_jobs(visit, backend, gate, picture):
    with waiting_job(backend, gate, picture, Client(f"api {LOGIN[0]} {FROM[0]}")) as job:
        assert visit().get(f"{V1}/progress").json()["state"]["job"] == job.id
        visit().post(f"{V1}/interrupt")
        assert job.stopped


def test_visitors_of_a_tunnel_must_name_their_job(visit, backend, gate, picture):
    here = ("127.0.0.1", 50000)
    with waiting_job(backend, gate, picture, Client(f"api {LOGIN[0]} {here[0]}")) as job:
        visitor = visit(address=here)
        assert visitor.get(f"{V1}/progress").json()["state"]["job"] == ""
        assert visitor.get(f"{V1}/progress?id_task={job.id}").json()["state"]["job"] == job.id


def limited(backend, **limits):
    backend.engine.limits = Limits(**limits)


def test_too_many_waiting_jobs_are_429(visit, backend, gate, picture, body):
    limited(backend, waiting_of_program=0)
    answer = visit().post(f"{V1}/img2img", json=body)
    assert answer.status_code == 429 and answer.json()["error"] == "TooMany"
    assert answer.json()["detail"] == "You have 0 jobs waiting already; wait for one to end or interrupt one."


def test_a_quota_is_429_for_visitors_and_nothing_to_the_owner(demo, visit, backend, body, monkeypatch):
    monkeypatch.setattr(backend.engine._quota, "pictures", 3)
    asked = body | {"batch_size": 2, "steps": 1}
    assert visit().post(f"{V1}/img2img", json=asked).status_code == 200
    answer = visit().post(f"{V1}/img2img", json=asked)
    assert answer.status_code == 429 and "there is room for 2 more in 60 minutes" in answer.json()["detail"]
    assert visit(address=("10.0.0.8", 1)).post(f"{V1}/img2img", json=asked).status_code == 200
    assert visit().post(f"{V1}/img2img", json=asked, headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 429
    for _ in range(2):
        assert visit(API_LOGIN).post(f"{V1}/img2img", json=asked).status_code == 200


@pytest.mark.parametrize("flags, shared", [([], False), (["--host", "localhost"], False), (["--auth", "me:x"], False),
                                           (["--share"], True), (["--listen"], True), (["--host", "192.168.1.2"], True)])
def test_a_page_is_shared_where_others_can_come_in(flags, shared):
    assert is_shared(parse_flags(flags)) == shared


def test_a_quota_below_nothing_is_refused_at_the_start(capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--visitor-quota", "-1"])
    assert "--visitor-quota must be 0 or more, got -1" in capsys.readouterr().err


def test_the_document_and_the_page_are_open_to_visitors_and_gradio_gives_no_files(backend, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with gr.Blocks(analytics_enabled=False) as page:
        box = gr.Image(type="filepath")
        box.change(lambda file: file, box, box)
    client = TestClient(build_app(page, LOGIN, backend=backend, shared=True), base_url="http://my.server",
                        headers=basic(*LOGIN), raise_server_exceptions=False)
    assert client.get("/").status_code == 200
    for path in (secret, backend.models.default.path / "model_index.json", "config.json"):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy="):
            assert client.get(f"{route}{path}").status_code in (400, 403, 404), path
    asked = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "x"}
    assert "was not uploaded by a user" in client.post("/gradio_api/run/predict", json=asked).json()["error"]

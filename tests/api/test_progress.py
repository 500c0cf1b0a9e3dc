"""Watching and stopping jobs, one or whichever runs; who waits and who hangs up; the stream."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests

from pipeline.limits import Client
from tests.api.conftest import image_of, wait_until

V1 = "/sdapi/v1"


@pytest.fixture
def backend(live):
    return live.backend


@pytest.fixture
def gate(live):
    return live.gate


@pytest.fixture
def post(server):
    """Post in a thread: (path, body) → future of the response."""
    with ThreadPoolExecutor(8) as pool:
        yield lambda path, body: pool.submit(requests.post, server + path, json=body, timeout=60)


@pytest.fixture
def ask(server):
    """GET or POST something small and decode it."""
    def ask(path, method="get", **kwargs):
        response = requests.request(method, server + path, timeout=60, **kwargs)
        assert response.status_code == 200, response.text
        return response.json()
    return ask


def test_nothing_runs(ask):
    assert ask(V1 + "/progress") == {
        "progress": 0.0, "eta_relative": 0.0, "current_image": None, "textinfo": None,
        "state": {"skipped": False, "interrupted": False, "stopping_generation": False, "job": "", "job_count": 0,
                  "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0}}
    assert ask("/internal/ping") == {} and ask("/internal/pending-tasks") == {"size": 0, "tasks": []}


def test_progress_of_what_runs_and_of_one_job(gate, post, ask, body):
    gate.opened.clear()
    first = post(V1 + "/img2img", body | {"force_task_id": "first"})
    assert gate.reached.wait(30)
    second = post(V1 + "/img2img", body | {"force_task_id": "second"})
    wait_until(lambda: ask("/internal/pending-tasks")["tasks"] == ["second"])
    running = ask(V1 + "/progress")
    assert running["progress"] == 0.01 and running["state"]["job"] == "first" and running["state"]["job_count"] == 1
    assert ask(V1 + "/progress?id_task=first")["state"]["job"] == "first"
    waiting = ask(V1 + "/progress?id_task=second")
    assert waiting["progress"] == 0 and waiting["textinfo"] == "In queue: 1/1" and waiting["state"]["job_count"] == -1
    gate.opened.set()
    assert first.result().status_code == second.result().status_code == 200
    assert wait_until(lambda: ask(V1 + "/progress?id_task=second")["progress"] == 1.0)
    assert ask(V1 + "/progress?id_task=never-heard-of")["progress"] == 0.0


def test_the_live_preview_is_a_picture(post, ask, body, backend):
    answer = post(V1 + "/img2img", body | {"steps": 1000, "denoising_strength": 1})
    seen = wait_until(lambda: ask(V1 + "/progress")["current_image"])
    assert image_of(seen).size == (8, 8)
    assert ask(V1 + "/progress?skip_current_image=true")["current_image"] is None
    page = ask("/internal/progress", "post", json={"id_task": backend.engine.find().id})
    assert page["active"] and page["live_preview"].startswith("data:image/png;base64,") and page["id_live_preview"] > 0
    ask(V1 + "/interrupt", "post")
    assert answer.result().status_code == 200


def test_the_page_of_a1111_is_told_of_one_job(gate, post, ask, body, backend):
    gate.opened.clear()
    first = post(V1 + "/img2img", body | {"force_task_id": "first"})
    assert gate.reached.wait(30)
    second = post(V1 + "/img2img", body | {"force_task_id": "second"})
    wait_until(lambda: ask("/internal/pending-tasks")["size"] == 1)

    def page(job):
        told = ask("/internal/progress", "post", json={"id_task": job, "live_preview": False})
        return told["active"], told["queued"], told["completed"], told["textinfo"]

    backend.engine.finished.append("second")  # a client may use an id again
    assert page("first") == (True, False, False, None) and page("second") == (False, True, False, "In queue: 1/1")
    assert page("third") == (False, False, False, "Waiting...")
    gate.opened.set()
    assert first.result() and second.result()
    wait_until(lambda: page("first") == (False, False, True, "Waiting..."))


def test_interrupt_keeps_the_picture_so_far(post, ask, body):
    answer = post(V1 + "/img2img", body | {"steps": 1000, "denoising_strength": 1})
    wait_until(lambda: ask(V1 + "/progress")["state"]["sampling_step"] > 0)
    assert ask(V1 + "/interrupt", "post") == {}
    assert answer.result().status_code == 200 and len(answer.result().json()["images"]) == 1


def test_skip_ends_one_batch(post, ask, body):
    answer = post(V1 + "/img2img", body | {"steps": 300, "n_iter": 2, "denoising_strength": 1})
    wait_until(lambda: ask(V1 + "/progress")["state"]["sampling_step"] > 0)
    assert ask(V1 + "/skip", "post") is None
    wait_until(lambda: ask(V1 + "/progress")["state"]["job_no"] == 1)
    ask(V1 + "/interrupt", "post")
    assert len(answer.result().json()["images"]) == 2


def test_two_clients_do_not_stop_each_other(gate, post, ask, body):
    gate.opened.clear()
    first = post(V1 + "/img2img", body | {"force_task_id": "first"})
    assert gate.reached.wait(30)
    second = post(V1 + "/img2img", body | {"force_task_id": "second"})
    wait_until(lambda: ask("/internal/pending-tasks")["size"] == 1)
    ask(V1 + "/interrupt?id_task=second", "post")
    assert second.result().status_code == 409 and second.result().json()["error"] == "Cancelled"
    ask(V1 + "/interrupt?id_task=somebody-elses", "post")
    assert ask(V1 + "/progress?id_task=first")["state"]["interrupted"] is False
    gate.opened.set()
    assert first.result().status_code == 200


def send(server, body):
    """A connection on which an img2img request was sent and not answered yet."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc)
    connection.request("POST", V1 + "/img2img", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_who_hangs_up_while_waiting_wastes_no_run(gate, post, ask, body, server, backend):
    gate.opened.clear()
    first = post(V1 + "/img2img", body)
    assert gate.reached.wait(30)
    gone = send(server, body | {"force_task_id": "gone"})
    wait_until(lambda: "gone" in ask("/internal/pending-tasks")["tasks"])
    gone.close()
    wait_until(lambda: "gone" not in ask("/internal/pending-tasks")["tasks"])
    gate.opened.set()
    assert first.result().status_code == 200


def test_who_hangs_up_while_it_runs_ends_it_unless_it_is_saved(gate, ask, body, server, backend):
    for save, kept in ((False, 0), (True, 1)):
        gate.opened.clear()
        gate.reached.clear()
        gone = send(server, body | {"save_images": save})
        assert gate.reached.wait(30)
        job = backend.engine.find()
        gone.close()
        ask("/internal/ping")
        wait_until(lambda: job.cancelled or save)
        gate.opened.set()
        wait_until(lambda: not backend.engine.jobs())
        assert len(list(backend.outputs.rglob("*.png"))) == kept


def test_getters_answer_while_a_picture_is_made_and_others_wait(gate, post, ask, body):
    gate.opened.clear()
    answers = [post(V1 + "/img2img", body) for _ in range(3)]
    assert gate.reached.wait(30)
    for path in ("progress", "options", "samplers", "sd-models", "memory"):
        ask(f"{V1}/{path}")
    ask(V1 + "/interrupt", "post")
    gate.opened.set()
    assert all(answer.result().status_code == 200 for answer in answers)


def stream(server, body, path=V1 + "/img2img/stream"):
    """(event, data) pairs of a stream."""
    with requests.post(server + path, json=body, stream=True, timeout=60) as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        name = None
        for line in response.iter_lines(decode_unicode=True):
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def test_the_stream_tells_steps_and_ends_with_the_ordinary_answer(server, body):
    told = list(stream(server, body | {"steps": 8, "denoising_strength": 1}))
    assert {name for name, _ in told[:-1]} == {"progress"} and told[-1][0] == "result"
    steps = [data["state"]["sampling_step"] for _, data in told[:-1]]
    assert steps == sorted(steps) and max(steps) > 0
    assert any(data["current_image"] for _, data in told[:-1])
    ordinary = requests.post(server + V1 + "/img2img", json=body | {"steps": 8, "denoising_strength": 1}, timeout=60).json()
    assert told[-1][1]["images"] == ordinary["images"]


def test_the_stream_refuses_like_the_ordinary_request_and_tells_failures_as_events(server, body, gate, backend):
    assert requests.post(server + V1 + "/img2img/stream", json=body | {"steps": 0}, timeout=60).status_code == 422
    gate.opened.clear()
    events = stream(server, body | {"force_task_id": "mine"})
    next(events)
    assert gate.reached.wait(30)
    backend.engine.find("mine").cancel()
    gate.opened.set()
    told = [(name, data["status"], data["error"]) for name, data in events if name != "progress"]
    assert told == [("error", 409, "Cancelled")]


def test_hanging_up_a_stream_cancels_it(server, body, gate, backend):
    gate.opened.clear()
    events = stream(server, body)
    next(events)
    assert gate.reached.wait(30)
    job = backend.engine.find()
    events.close()
    wait_until(lambda: job.cancelled)
    gate.opened.set()


def test_a_busy_client_does_not_keep_another_waiting_for_all_its_jobs(gate, backend, picture):
    from tests.pipeline.test_engine import request

    gate.opened.clear()
    order = []
    jobs = [backend.engine.submit([request(picture, steps=1)], name, client=Client(name[0])) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
    assert gate.reached.wait(30)
    for job in jobs:
        job.listen(lambda job=job: order.append(job.id) if job.state == "done" else None)
    assert [job.id for job in backend.engine.jobs()] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    gate.opened.set()
    for job in jobs:
        job.result()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_listener_is_told_of_each_event_on_the_engines_thread(engine, picture):
    from tests.pipeline.test_engine import request

    told = []
    job = engine.submit([request(picture)])
    job.listen(lambda: told.append(threading.current_thread().name))
    job.result()
    assert told and set(told) == {"engine"}

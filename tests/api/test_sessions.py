"""What Gradio remembers of pages: open ones stay, strangers make room for each other."""

import asyncio
import http.client
import json
import socket
import threading
import time
import urllib.request
from types import SimpleNamespace

import gradio as gr
import pytest
import uvicorn
from starlette.exceptions import HTTPException

from api import SESSIONS, build_app
from api.sessions import OPEN_OF_ONE, Sessions
from tests.api.conftest import in_a_loop, wait_until


@pytest.fixture
def page():
    with gr.Blocks(analytics_enabled=False) as page:
        state, box = gr.State(0), gr.Number()
        box.change(lambda number: (number + 1, number + 1), state, [state, box], api_name="count")
        gr.Button().click(lambda: waited.wait(20), api_name="wait")
        gr.Button().click(lambda: "here", None, gr.Textbox(), api_name="interrupt")
        page.unload(lambda: None)
    waited = page.waited = threading.Event()
    yield page
    waited.set()


@pytest.fixture
def port(page):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_app(page, None), port=port, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield port
    page.waited.set()
    server.should_exit = True
    thread.join(10)


def event(port, name, session):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/gradio_api/run/{name}", method="POST",
                                     data=json.dumps({"data": [], "session_hash": session}).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())["data"]


def open_page(port, session):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/gradio_api/heartbeat/{session}")
    return connection, connection.getresponse()


@pytest.fixture
def counted(port):
    """Counts up what a session remembers."""
    def counted(session):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/gradio_api/run/count", method="POST",
                                         data=json.dumps({"data": [None], "session_hash": session}).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())["data"][1]
    return counted


def test_strangers_wipe_nothing_of_a_page_that_is_open(port, page, counted):
    connection, answer = open_page(port, "mine")
    assert answer.status == 200
    assert counted("mine") == 1
    for number in range(SESSIONS + 6):
        assert counted(f"stranger {number}") == 1
    assert counted("mine") == 2
    assert len(page.state_holder.session_data) == SESSIONS + 1
    connection.close()


def test_a_page_that_was_closed_is_a_stranger(port, page, counted):
    connection, answer = open_page(port, "mine")
    assert counted("mine") == 1
    answer.close()
    connection.close()
    for number in range(SESSIONS + 6):
        counted(f"stranger {number}")
    wait_until(lambda: counted("another") and "mine" not in page.state_holder.session_data)


def test_one_network_opens_only_so_many_pages(page):
    async def run():
        released, statuses = asyncio.Event(), []

        async def app(scope, receive, send):
            await released.wait()

        async def send(message):
            statuses.append(message.get("status"))

        sessions = Sessions(app, page)

        def scope(host, number):
            return {"type": "http", "method": "GET", "path": f"/gradio_api/heartbeat/{number}", "client": (host, 1), "headers": []}

        tasks = [asyncio.create_task(sessions(scope("10.0.0.7", number), None, send)) for number in range(OPEN_OF_ONE)]
        await asyncio.sleep(0)
        await sessions(scope("10.0.0.7", "more"), None, send)
        assert statuses[0] == 429
        tasks.append(asyncio.create_task(sessions(scope("10.0.0.8", "other"), None, send)))
        await asyncio.sleep(0)
        assert len(statuses) == 2  # start and body of the one refusal
        released.set()
        await asyncio.gather(*tasks)
        assert not sessions._open and not sessions._networks

    in_a_loop(run())


@pytest.mark.parametrize("cause", [HTTPException(404), ValueError("a fault")])
def test_a_stream_of_a_session_that_is_gone_just_ends(cause):
    """Gradio has begun to answer when it finds that out, so its 404 cannot be sent any more."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("Caught handled exception, but response already started.") from cause

    async def run():
        async def send(message):
            sent.append(message)

        await Sessions(app, page)({"type": "http", "path": "/gradio_api/queue/data"}, None, send)

    page = SimpleNamespace(state_holder=SimpleNamespace(session_data={}, time_last_used={}))
    if isinstance(cause, HTTPException):
        in_a_loop(run())
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    else:
        with pytest.raises(RuntimeError):
            in_a_loop(run())


def test_pages_that_wait_leave_threads_to_the_others(port):
    waiting = [threading.Thread(target=event, args=(port, "wait", f"page {number}"), daemon=True) for number in range(60)]
    for thread in waiting:
        thread.start()
    time.sleep(2)
    begun = time.monotonic()
    assert event(port, "interrupt", "mine") == ["here"] and time.monotonic() - begun < 5

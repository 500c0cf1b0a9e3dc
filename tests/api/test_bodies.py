"""How large requests may be: all together, how long they may take to come, and what is kept of them."""

import asyncio
import gc
import json
import threading

import pytest
from fastapi.testclient import TestClient

from api import build_app
from api.bodies import BodyLimit
from api.models import Img2ImgRequest
from tests.api.conftest import LOCAL, base64_of, in_a_loop, wait_until


def scope(path="/sdapi/v1/png-info"):
    return {"type": "http", "method": "POST", "path": path, "headers": []}


async def reading(scope, receive, send):
    """An application that keeps a body until it is told the rest: it answers when `scope["go"]` is set."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client is gone")
        body += message["body"]
        if not message.get("more_body"):
            break
    scope["read"].set()
    await scope["go"].wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


class Ask:
    """A request whose body comes in parts."""

    def __init__(self, *parts, path="/sdapi/v1/png-info", ends=True):
        self.scope = scope(path) | {"read": asyncio.Event(), "go": asyncio.Event()}
        self.parts = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        self.ends, self.status, self.text = ends, None, b""
        if ends:
            self.parts[-1]["more_body"] = False

    async def receive(self):
        await asyncio.sleep(0)
        if self.parts:
            return self.parts.pop(0)
        await asyncio.sleep(3600)

    async def send(self, message):
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"")

    def to(self, app):
        return asyncio.create_task(app(self.scope, self.receive, self.send))


async def forgiving(scope, receive, send):
    """`reading` as FastAPI runs it: an error becomes an answer."""
    try:
        await reading(scope, receive, send)
    except ConnectionError:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"the application's own"})


def test_bodies_together_are_bounded_and_there_is_room_again_when_one_is_answered():
    async def run():
        app = BodyLimit(forgiving, 100, 100)
        first, second, third = (Ask(b"x" * 30, b"x" * 30) for _ in range(3))
        held = first.to(app)
        await first.scope["read"].wait()
        await second.to(app)
        assert second.status == 503 and "try again later" in json.loads(second.text)["detail"] and not second.parts
        first.scope["go"].set()
        await held
        assert (first.status, first.text) == (200, b"60")
        third.scope["go"].set()
        await third.to(app)
        assert third.status == 200 and app._in_flight == 0
    in_a_loop(run())


@pytest.mark.parametrize("path", ["/sdapi/v1/png-info", "/gradio_api/queue/join", "/shown-picture", "/shown-mask"])
def test_a_body_that_stops_coming_is_answered_and_lets_go_of_its_room(path):
    async def run():
        app = BodyLimit(forgiving, 100, 100, stall=0.05)
        slow = Ask(b"x" * 80, path=path, ends=False)
        await asyncio.wait_for(slow.to(app), 5)
        said = json.loads(slow.text)
        assert slow.status == 408 and "arrived for 0.05 seconds" in (said.get("error", "") + said.get("detail", ""))
        assert app._in_flight == 0
    in_a_loop(run())


def test_what_a_route_has_let_go_of_is_room_for_others():
    async def letting_go(scope, receive, send):
        await receive()
        scope["state"]["let_go"](50)
        await reading(scope, Ask(b"").receive, send)

    async def run():
        app = BodyLimit(letting_go, 100, 100)
        first, second = Ask(b"x" * 80), Ask(b"x" * 60)
        tasks = [first.to(app), second.to(app)]
        await second.scope["read"].wait()
        assert app._in_flight == 40
        for ask in (first, second):
            ask.scope["go"].set()
        await asyncio.gather(*tasks)
        assert (first.status, second.status, app._in_flight) == (200, 200, 0)
    in_a_loop(run())


def test_a_client_that_is_gone_leaves_its_room():
    async def run():
        app = BodyLimit(forgiving, 100, 100)
        gone = Ask(b"x" * 60, ends=False)
        gone.parts.append({"type": "http.disconnect"})
        await gone.to(app)
        assert app._in_flight == 0
    in_a_loop(run())


def test_requests_that_wait_hold_nothing_of_their_bodies(live, body, picture):
    """Eight times a body of 700 KiB waits where all together may have 1 MiB; the ninth that repeats its picture holds it."""
    noise = picture.resize((440, 440)).effect_spread(200)
    large = body | {"init_images": [base64_of(noise)], "width": 64, "height": 64}
    assert 600_000 < len(large["init_images"][0]) < 800_000
    client = TestClient(build_app(None, None, backend=live.backend, max_body=1, max_bodies=1), base_url=LOCAL)
    live.gate.opened.clear()
    answers = []
    with client:
        def ask(request):
            answers.append(client.post("/sdapi/v1/img2img", json=request).status_code)

        def send(request, waiting):
            thread = threading.Thread(target=ask, args=[request])
            thread.start()
            wait_until(lambda: len(live.backend.engine.jobs()) == waiting)
            return thread

        threads = [send(large, number + 1) for number in range(8)]
        gc.collect()
        held = [one for one in gc.get_objects() if type(one) is Img2ImgRequest]
        assert held and all(one.init_images is None for one in held)
        threads.append(send(large | {"include_init_images": True}, 9))
        assert client.post("/sdapi/v1/img2img", json=large).status_code == 503
        live.gate.opened.set()
        for thread in threads:
            thread.join(60)
    assert answers == [200] * 9

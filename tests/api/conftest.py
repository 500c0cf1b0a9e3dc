"""The whole application with the demo model: in this process, and as a live server."""

import asyncio
import base64
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from api import build_app
from api.backend import Backend
from pipeline.controlnet.store import ControlNets
from pipeline.detectors.store import FOLDER, Detectors
from pipeline.engine import local_engine
from pipeline.families import control_networks, placement
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.settings import Settings
from tests.conftest import DEMO_MODEL
from tests.pipeline.test_engine import Gate

LOCAL = "http://127.0.0.1:7860"


def wait_until(condition, seconds=30):
    """Wait until the condition is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def in_a_loop(work):
    """Run a coroutine in its own thread, as an earlier browser test may have left a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def base64_of(image: Image.Image, form: str = "PNG", **how) -> str:
    stream = io.BytesIO()
    image.save(stream, form, **how)
    return base64.b64encode(stream.getvalue()).decode()


def image_of(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


@pytest.fixture
def gate():
    """Blocks every sampling until opened; open unless a test closes it."""
    gate = Gate()
    gate.opened.set()
    yield gate
    gate.opened.set()


@contextmanager
def running_backend(demo, hooks, folder):
    """An engine with the demo model, an empty models folder, and settings remembered in a file."""
    (folder / "models").mkdir()
    catalog = Catalog(folder / "models", extra=[DEMO_MODEL], cache=folder / "hashes.json")
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.checkpoints()[0], load=lambda *_, **__: demo)
    engine = local_engine(models.load, hooks=hooks, loaded=models.loaded, release=models.release, plan=models.plan, upscalers=catalog,
                          control_networks=ControlNets(catalog.find_control_network, catalog.sha256, control_networks.load),
                          detectors=Detectors(catalog.root / FOLDER))
    yield Backend(engine, models, Settings(folder / "config.json"), folder / "outputs", flags={"port": 7860})
    for hook in hooks:
        hook.opened.set()
    engine.close()


def client_of(backend):
    return TestClient(build_app(None, None, backend=backend), base_url=LOCAL, raise_server_exceptions=False)


@pytest.fixture
def backend(demo, gate, tmp_path):
    """A backend that tests may change."""
    with running_backend(demo, [gate], tmp_path) as backend:
        yield backend


@pytest.fixture
def client(backend):
    with client_of(backend) as client:
        yield client


@pytest.fixture(scope="module")
def shared(demo, tmp_path_factory):
    """A client for tests that change nothing: one application per file."""
    with running_backend(demo, [], tmp_path_factory.mktemp("shared")) as backend, client_of(backend) as client:
        yield client


@dataclass
class Live:
    """A server in a thread of this process."""

    url: str
    backend: Backend
    gate: Gate

    def tidy(self) -> None:
        """Back to the state before a test."""
        self.gate.opened.set()
        for job in self.backend.engine.jobs():
            self.backend.engine.cancel(job)
        wait_until(lambda: not self.backend.engine.jobs())
        self.gate.reached.clear()
        self.backend.settings.change(self.backend.settings.defaults)
        self.backend.engine.options = self.backend.settings.options


@pytest.fixture(scope="module")
def started(demo, tmp_path_factory):
    """A live server for all tests of a file."""
    gate = Gate()
    gate.opened.set()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_backend(demo, [gate], tmp_path_factory.mktemp("live")) as backend:
        server = uvicorn.Server(uvicorn.Config(build_app(None, None, backend=backend), port=port, log_level="warning",
                                               timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield Live(f"http://127.0.0.1:{port}", backend, gate)
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def live(started):
    yield started
    started.tidy()


@pytest.fixture
def server(live):
    """The address of a live server."""
    return live.url


@pytest.fixture
def body(picture):
    """A small request that tests may change."""
    return {"init_images": [base64_of(picture)], "width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler"}

"""An interrupted job is listed, and continued by its id to the picture that it would have given."""

import threading

import pytest

from api.backend import Backend
from pipeline.engine import local_engine
from pipeline.families import placement
from pipeline.journal import Journal
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.settings import Settings
from tests.api.conftest import client_of
from tests.conftest import DEMO_MODEL

V1 = "/sdapi/v1"


@pytest.fixture
def client(demo, gate, tmp_path):
    (tmp_path / "models").mkdir()
    catalog = Catalog(tmp_path / "models", extra=[DEMO_MODEL], cache=tmp_path / "hashes.json")
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.checkpoints()[0], load=lambda *_, **__: demo)
    engine = local_engine(models.load, hooks=[gate], journal=Journal(tmp_path / "outputs"))
    with client_of(Backend(engine, models, Settings(tmp_path / "config.json"), tmp_path / "outputs")) as client:
        yield client
    gate.opened.set()
    engine.close()
    engine.journal.close()


def test_an_interrupted_job_is_listed_and_continued(client, gate, body):
    body |= {"force_task_id": "mine", "save_images": True, "prompt": "a mill", "steps": 6, "n_iter": 2}
    gate.opened.clear()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(client.post(V1 + "/img2img", json=body).json()))
    asking.start()
    assert gate.reached.wait(60)
    assert client.get(V1 + "/continue").json() == []
    client.post(V1 + "/interrupt", params={"id_task": "mine"})
    gate.opened.set()
    asking.join(60)
    listed, = client.get(V1 + "/continue").json()
    assert (listed["id_task"], listed["prompt"], listed["pictures"]) == ("mine", "a mill", 1)
    answer = client.post(V1 + "/continue", json={"id_task": "mine"}).json()
    whole = client.post(V1 + "/img2img", json=body | {"force_task_id": "whole"}).json()
    assert answer["images"] == whole["images"] and len(answer["images"]) == 3 != len(answers[0]["images"])
    assert client.get(V1 + "/continue").json() == []


def test_a_job_that_was_not_interrupted_is_not_continued(client):
    answer = client.post(V1 + "/continue", json={"id_task": "nobody's"})
    assert answer.status_code == 422 and 'the job "nobody\'s" cannot be continued' in answer.json()["detail"]

"""Workers in a Ray cluster: what is lost goes on elsewhere, and what differs from this program is refused."""

import os
import pickle
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.device import DeviceWorker
from pipeline.engine import LocalEngine
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.identity import Identity, hash_of_sources
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.parcels import Unwelcome, pack, unpack
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.ray_workers import Host, Unanswered, answered, place
from pipeline.styles import StyleDatabase
from pipeline.worker import Begun, Placing, Sampled, Saving, Wishes
from tests.conftest import DEMO_MODEL
from tests.pipeline.test_processes import SMALL, die, let_go, reached, wait_until, worker_in
from tests.upscalers import tiny

WORKER = "tests.pipeline.test_processes:worker_in"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture
def request_for(picture, mask):
    return lambda **fields: StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask, **SMALL | fields)


@pytest.fixture(scope="module")
def engine(ray, folder):
    """Of two workers."""
    workers, refused = ray.workers(ray.seats()[:2], WORKER, folder)
    assert len(workers) == 2 and refused == []
    engine = LocalEngine(workers)
    yield engine
    engine.close()
    for worker in workers.values():
        worker.close()


@pytest.fixture
def impatient(ray, folder):
    """An engine of one worker that counts as lost after five seconds."""
    worker = ray.worker(ray.seats()[2], WORKER, folder, patience=5.0)
    engine = LocalEngine(worker)
    yield engine
    engine.close()
    worker.close()


def pixels(processed):
    return [image.tobytes() for image in processed.images]


def test_a_killed_worker_is_replaced_and_its_job_goes_on(engine, folder, request_for):
    die(folder, 0)
    whole = engine.submit([request_for(prompt="die")]).result()[0]
    die(folder, 1)
    again = engine.submit([request_for(prompt="die")]).result()[0]
    assert pixels(again) == pixels(whole) and again.infotexts == whole.infotexts and whole.comments == []
    assert len(again.comments) == 1 and "ended unexpectedly, so another one continued its work" in again.comments[0]


def test_machines_share_a_job_to_the_same_pixels(engine, folder, request_for, tmp_path):
    fields = {"prompt": "hold", "seed": 61, "n_iter": 4, "outpath_samples": str(tmp_path / "out")}
    (folder / "hold 61").touch()
    job = engine.submit([request_for(**fields)], "mine")
    wait_until(lambda: [state.job for state in engine.workers()] == ["mine", "mine"])
    let_go(folder, 61)
    shared = job.result()[0]
    alone = worker_in(folder).run(request_for(**fields | {"outpath_samples": None}), StyleDatabase(), lambda news: None, Wishes())
    assert pixels(shared) == pixels(alone) and shared.infotexts == alone.infotexts and shared.comments == []
    assert [name[:5] for name in sorted(os.listdir(Path(shared.paths[-1]).parent))] == ["00000", "00001", "00002", "00003"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_worker_that_is_away_for_a_while_goes_on_and_one_that_stays_away_is_replaced(impatient, folder, request_for, comes_back):
    (folder / "reached 41").unlink(missing_ok=True)
    (folder / "hold 41").touch()
    job = impatient.submit([request_for(prompt="hold", seed=41)])
    reached(folder, 41)
    process = int((folder / "reached 41").read_text())
    os.kill(process, signal.SIGSTOP)
    let_go(folder, 41)
    if comes_back:
        time.sleep(0.5)
        os.kill(process, signal.SIGCONT)
    processed = job.result()[0]
    assert len(processed.comments) == (0 if comes_back else 1)
    assert pixels(processed) == pixels(impatient.submit([request_for(prompt="hold", seed=41)]).result()[0])
    wait_until(lambda: comes_back or not Path(f"/proc/{process}").exists())  # it does not go on beside the one that took its place


def test_a_worker_of_another_program_is_refused_with_a_sentence(ray, folder):
    ours = Identity.ours()
    for theirs, sentence in ((replace(ours, sources="f" * 64), "have the hash ffffffffff, and"),
                             (replace(ours, program="0.0.1"), "it has Palimpsest 0.0.1, and"),
                             (replace(ours, packages=ours.packages | {"torch": "1.0"}), "it has torch 1.0, and")):
        assert sentence in ours.difference(theirs) and ours.difference(ours) == ""
    other = ray.as_seen_by(replace(ours, sources="f" * 64))
    workers, refused = other.workers(ray.seats()[2:3], WORKER, folder)
    assert workers == {} and refused == [f"The worker on {ray.seats()[2].name} is refused: {replace(ours, sources='f' * 64).difference(ours)}"]


def test_a_seat_that_nobody_can_take_is_left_out_and_the_others_go_on(ray, folder):
    first, second = ray.seats()[2:4]
    workers, refused = ray.workers([replace(first, node="ab" * 28), second], WORKER, folder)
    assert list(workers) == [second.name] and len(refused) == 1 and refused[0].startswith(f"The worker on {first.name} ended unexpectedly")
    workers[second.name].close()


def test_a_worker_has_the_pages_models_and_no_others(ray, demo, request_for, tmp_path):
    tiny.saved(tiny.compact(2), tmp_path / "models" / "ESRGAN" / "double.safetensors")
    lender = ray.lend(tmp_path / "models", [DEMO_MODEL], [])
    worker = ray.worker(ray.seats()[2], "app:far_worker", "demo-model", "float32", lender)
    told = worker.run(request_for(), StyleDatabase(), lambda news: None, Wishes())
    here = DeviceWorker(lambda options: demo).run(request_for(), StyleDatabase(), lambda news: None, Wishes())
    catalog = Catalog(tmp_path / "models", extra=[DEMO_MODEL])
    assert pixels(told) == pixels(here) and told.model.sha256 == catalog.sha256(catalog.find_checkpoint("demo-model"))
    assert not Path(told.model.path).is_relative_to(DEMO_MODEL)
    assert worker.upscale("double", np.zeros((8, 8, 3), np.uint8)).shape == (16, 16, 3)
    with pytest.raises(UnknownName, match='"nobody\'s"; valid: demo-model'):
        worker.plan(Options(sd_model_checkpoint="nobody's"))
    worker.close()


def test_the_hash_of_the_program_knows_every_change_but_line_ends(tmp_path):
    def written(text, name="a.py"):
        for file in tmp_path.glob("*.py"):
            file.unlink()
        (tmp_path / name).write_bytes(text)
        return hash_of_sources.__wrapped__(tmp_path)

    assert written(b"x = 1\n") == written(b"x = 1\r\n") != written(b"x = 2\n") and written(b"x = 1\n") != written(b"x = 1\n", "b.py")


# --- the other end of the line

def test_what_arrives_twice_counts_once_and_what_got_lost_is_told_again():
    host = Host()
    for number, word in ((0, "one"), (0, "one"), (1, "two")):
        host.post(number, pack((7, word, None)))
    assert [host.recv()[1], host.recv()[1]] == ["one", "two"] and host._inbox.empty()
    host.send((7, "news", Begun(1)))
    first = host.receive(0)
    host.send((7, "answer", "done"))
    assert host.receive(0)[:1] == first and list(map(unpack, host.receive(1))) == [(7, "answer", "done")]


def test_of_steps_that_nobody_took_the_newest_is_kept_with_the_newest_preview():
    host = Host()
    for step, preview in ((1, None), (2, b"a picture"), (3, None)):
        host.send((7, "news", Sampled(step, 9, preview=preview)))
    host.send((8, "news", Sampled(1, 9)))
    assert list(map(unpack, host.receive(0))) == [(7, "news", Sampled(3, 9, preview=b"a picture")), (8, "news", Sampled(1, 9))]
    host.send((8, "news", Sampled(2, 9)))  # the one before may be on its way
    assert len(host.receive(0)) == 3


@pytest.mark.parametrize("away, sentence", [(0.2, None), (9.0, "it could not be reached for 0.5 seconds")])
def test_a_call_that_the_network_swallowed_is_made_again_for_a_while(ray, away, sentence):
    from ray import exceptions  # not before a cluster has set what Ray reads when it is imported

    began, calls = time.monotonic(), []

    def get(call, timeout):
        calls.append(call)
        if time.monotonic() < began + away:
            raise exceptions.ActorUnavailableError("no route", None)
        return "an answer"

    network = SimpleNamespace(get=get, exceptions=exceptions)
    if sentence is None:
        assert answered(network, lambda: "call", 0.5) == "an answer" and len(calls) > 1
    else:
        with pytest.raises(Unanswered, match=sentence):
            answered(network, lambda: "call", 0.5)


# --- pictures

def test_a_far_workers_pictures_are_saved_here_and_nothing_there(demo, request_for, tmp_path):
    there, sent = tmp_path / "there", []
    fields = {"outpath_samples": str(there), "samples_filename": "mine"}
    DeviceWorker(lambda options: demo).run(request_for(**fields), StyleDatabase(), sent.append, Wishes())
    local = (there / "mine.png").read_bytes()
    shutil.rmtree(there)
    told = []

    def answer(news):
        sent.append(news)
        return "/here/mine.png" if isinstance(news, Placing) else None

    result = DeviceWorker(lambda options: demo, far=True).run(request_for(**fields), StyleDatabase(), answer, Wishes())
    placing, = [news for news in sent if isinstance(news, Placing)]
    assert result.paths == ["/here/mine.png"] and not there.exists()
    assert place([str(there)], told.append, placing) == str(there / "mine.png") and (there / "mine.png").read_bytes() == local
    assert told == [Saving(str(there / "mine.png"), result.info)]
    assert place([str(there)], told.append, replace(placing, place=str(there / "mine.png"))) == str(there / "mine.png")  # an earlier try's
    assert place([str(there)], told.append, placing) == str(there / "mine-1.png")


@pytest.mark.parametrize("where", [{"folder": "/etc"}, {"name": "../mine"}, {"place": "/etc/passwd"}, {"place": "{folder}/../mine.png"}])
def test_a_worker_saves_only_where_the_request_does(tmp_path, where):
    asked = Placing(b"", str(tmp_path / "out"), "mine", False, None, "")
    with pytest.raises(Unwelcome, match="where the request does not"):
        place([asked.folder], lambda news: None, replace(asked, **{name: text.format(folder=asked.folder) for name, text in where.items()}))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_here_is_told_by_a_far_worker(demo, request_for, tmp_path):
    (tmp_path / "no folder").write_text("")
    far, fields = DeviceWorker(lambda options: demo, far=True), {"outpath_samples": str(tmp_path / "no folder")}
    result = far.run(request_for(**fields), StyleDatabase(), partial(place, list(fields.values()), lambda news: None), Wishes())
    assert result.images and result.comments == ["A picture could not be saved: Not a directory."]


# --- data only

def test_a_message_may_hold_data_and_no_code(request_for):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    for parcel in (pickle.dumps(Evil()), pickle.dumps(LocalEngine), pickle.dumps(exec), b"cpipeline.errors\nget_close_matches\n."):
        with pytest.raises(Unwelcome, match="not data; it was not opened"):
            unpack(parcel)
    request = request_for(prompt="a mill", alwayson_scripts={"Soft Inpainting": {"args": [True]}})
    again = unpack(pack(request))
    assert again.init_images[0].tobytes() == request.init_images[0].tobytes() and again.options == request.options
    assert (again.prompt, again.alwayson_scripts) == (request.prompt, request.alwayson_scripts)
    error = unpack(pack(InvalidRequest("seed", "no")))
    assert isinstance(error, InvalidRequest) and error.field == "seed"

"""What any engine must do, and that all that crosses its line is plain data.

Each test runs with the engine of this process, and with those whose worker is another process or one of Ray, where what is
submitted and told is pickled too.
"""

import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.batch import Batch, find_pictures, series
from pipeline.device import DeviceWorker
from pipeline.embeddings import EmbeddingShelf
from pipeline.engine import LocalEngine
from pipeline.errors import Cancelled, InvalidRequest, PalimpsestError, TooMany, UnknownName, Unforeseen
from pipeline.families import placement
from pipeline.families.sam import Prompt
from pipeline.hooks import Hooks
from pipeline.job import Failed, Finished, Queued, Step, sendable
from pipeline.journal import Journal
from pipeline.limits import Client, Limits
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.previews import unpack
from pipeline.processes import ProcessWorker
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.segmenters import Segmenters
from pipeline.styles import StyleDatabase
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import Missing, Status, read_claim, request_again, verify
from pipeline.worker import Wishes
from tests.conftest import DEMO_MODEL
from tests.families import tiny_sam
from tests.pipeline.far import PickledEngine, crossed
from tests.upscalers import tiny

PATIENCE = 30.0
"""Seconds."""


class Prompted(Hooks):
    """Does to a run what its prompt says."""

    def __init__(self, folder: Path):
        self.folder = folder

    def process(self, p):
        if p.prompt == "too much" and "Low memory" not in p.extra_generation_params:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if p.prompt == "break":
            raise ValueError("no such thing")

    def on_mask_blend(self, p, mba):
        """Holds the first model call until the file "open" is there."""
        if p.prompt == "hold" and p.iteration == 0 and not mba.is_final_blend and not (self.folder / "open").exists():
            (self.folder / "reached").touch()
            wait_for(self.folder / "open")
            time.sleep(0.1)  # what is wished before it was opened is on its way


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def catalog_in(folder: Path) -> Catalog:
    return Catalog(folder / "models", extra=[DEMO_MODEL], cache=folder / "hashes.json")


def worker_in(folder: Path, **how: bool) -> DeviceWorker:
    """A worker with the demo model. Its hook looks into the folder. how: more for DeviceWorker."""
    catalog = catalog_in(folder)
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.checkpoints()[0])
    worker = DeviceWorker(models.load, [Prompted(folder)], loaded=models.loaded, make_room=models.make_room,
                          release=models.release, embeddings=EmbeddingShelf(catalog.embedding_paths),
                          segmenters=Segmenters(folder / "models" / "sam"), upscalers=catalog, **how)
    models.tell = worker.tell_loading
    return worker


def far_worker_in(folder: Path) -> DeviceWorker:
    """One whose pictures are saved by the engine's process."""
    return worker_in(folder, far=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    tiny_sam.save(folder / "models" / "sam" / "tiny", "sam2")
    tiny.saved(tiny.compact(2), folder / "models" / "ESRGAN" / "double.safetensors")
    (folder / "models" / "embeddings").mkdir(parents=True)
    (folder / "models" / "embeddings" / "damaged.safetensors").write_bytes(b"nothing")
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nmisty,{prompt} in mist,sun\n")
    return folder


@pytest.fixture(scope="module", params=["here", "another process", "Ray"])
def around(request, folder):
    """Makes engines around one worker."""
    if request.param == "here":
        worker = worker_in(folder)
        yield lambda **how: LocalEngine(worker, **how)
    else:
        ray = request.getfixturevalue("ray") if request.param == "Ray" else None
        worker = ray.worker(ray.seats()[0], "tests.pipeline.test_engine_contract:far_worker_in", folder) if ray else ProcessWorker("cpu", worker_in, folder)
        yield lambda **how: PickledEngine(LocalEngine(worker, **how))
        worker.close()


@pytest.fixture
def gate(folder):
    """Whether runs that are to hold are let go, and whether one has been reached."""
    for file in (gate := (folder / "reached", folder / "open")):
        file.unlink(missing_ok=True)
    return gate


@pytest.fixture
def engine(around, folder, tmp_path, gate):
    engine = around(journal=Journal(tmp_path / "outputs"), styles=StyleDatabase(folder / "styles.csv"))
    yield engine
    gate[1].touch()
    engine.close()
    engine.journal.close()


SMALL = {"width": 64, "height": 64, "steps": 4, "seed": 1, "sampler_name": "Euler"}


@pytest.fixture
def request_for(picture, mask):
    """A small edit. held: it waits at its first model call."""
    def request_for(*, held=False, **fields):
        held = {"mask": mask, "prompt": "hold", "steps": 8} if held else {}
        return StableDiffusionProcessingImg2Img(**SMALL | {"init_images": [picture]} | held | fields)

    return request_for


def held(engine, gate, requests, **how):
    """The job of requests, whose first one holds."""
    job = engine.submit(requests, **how)
    wait_for(gate[0])
    return job


# --- pictures

KINDS = {
    "img2img": {}, "an inpainting": {"mask": True, "inpaint_full_res": True, "inpaint_full_res_padding": 8},
    "several": {"batch_size": 2, "n_iter": 2}, "a mask each": {"batch_size": 2, "mask": "two"},
    "a style": {"styles": ["misty"], "prompt": "a mill"}, "a random seed's": {"seed": 7, "subseed_strength": 0.3, "subseed": 4},
    "SD upscale": {"script_name": "SD upscale", "script_args": [None, 16, "Lanczos", 1.5]},
    "X/Y/Z plot": {"script_name": "X/Y/Z plot", "script_args": ["Seed", "1,2", None, *["Nothing", "", None] * 2, False, False, False,
                                                                False, False, False, False, 0, True]},
    "soft": {"mask": True, "alwayson_scripts": {"Soft Inpainting": {"args": [True]}}},
}


def whole(kind, picture, mask):
    """The fields of a kind."""
    fields = dict(KINDS[kind])
    if fields.get("mask") == "two":
        return fields | {"init_images": [picture, picture.rotate(90)], "mask": [mask, mask.rotate(90)]}
    return fields | ({"mask": mask} if "mask" in fields else {})


def told(processed):
    """What a result says and shows, but for the places of files."""
    return ([image.tobytes() for image in processed.images], processed.infotexts, processed.all_prompts, processed.all_seeds,
            [image.info.get("palimpsest") for image in processed.images], processed.comments)


@pytest.fixture(scope="module")
def alone(folder):
    """A worker without an engine."""
    return worker_in(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_a_run_without_an_engine(engine, alone, request_for, picture, mask, kind):
    p = request_for(**whole(kind, picture, mask))
    there = engine.submit([p]).result()[0]
    here = alone.run(p, engine.styles, lambda news: None, Wishes())
    assert told(there) == told(here) and there.model == here.model and there.images


def test_a_picture_from_noise(engine):
    assert engine.submit([StableDiffusionProcessingTxt2Img(**SMALL)]).result()[0].images[0].size == (64, 64)


def test_a_request_is_as_it_was_when_its_job_is_done(engine, request_for):
    p = request_for(seed=-1, width=60, override_settings={"sd_noise_schedule": "Zero Terminal SNR"})
    before = pickle.dumps(p)
    first, second = (engine.submit([p]).result()[0] for _ in range(2))
    assert pickle.dumps(p) == before and first.all_seeds != second.all_seeds
    assert first.comments == second.comments == ["The size 60×64 was rounded down to 56×64: sides must be multiples of 8."]


def test_a_result_says_by_which_model_it_was_made(engine, request_for):
    processed = engine.submit([request_for()]).result()[0]
    assert processed.model.name == "demo-model" and len(processed.model.sha256) == 64 and not processed.inpaints


# --- events

def test_events_tell_the_steps_in_order_and_last_the_result(engine, request_for):
    events = list(engine.submit([request_for(steps=20)]).events())
    steps = [event for event in events if isinstance(event, Step)]
    assert isinstance(events[-1], Finished) and not any(isinstance(event, Finished | Failed) for event in events[:-1])
    assert steps[-1].steps == 15 + 1 and [step.step for step in steps] == sorted(step.step for step in steps)


def test_previews_are_files_of_pictures(engine, request_for):
    def last(**options):
        job = engine.submit([request_for(override_settings={"show_progress_every_n_steps": 1} | options, width=256)])
        return [event.preview for event in job.events() if isinstance(event, Step) and event.preview is not None][-1]

    assert unpack(last()).size == (32, 8) and unpack(full := last(show_progress_type="Full")).size == (256, 64) and len(full) < 32_000


def test_jobs_that_wait_are_told_their_places_and_found(engine, gate, request_for):
    running = held(engine, gate, [request_for(held=True)], job_id="first")
    second, third = (engine.submit([request_for()], name).events() for name in ("second", "third"))
    assert next(second) == Queued(1, loading=False) and next(third) == Queued(2, loading=False)
    assert [job.id for job in engine.jobs()] == ["first", "second", "third"]
    assert engine.find().id == "first" and engine.find("third").state == "queued" and engine.find("nobody") is None
    gate[1].touch()
    assert running.result() and isinstance(list(second)[-1], Finished) and isinstance(list(third)[-1], Finished)
    assert list(engine.finished)[-3:-1] == ["first", "second"]


def test_clients_take_turns(engine, gate, request_for):
    held(engine, gate, [request_for(held=True)], client=Client("a"))
    for name, client in (("a2", "a"), ("a3", "a"), ("b1", "b")):
        engine.submit([request_for()], name, Client(client))
    assert [job.id for job in engine.jobs()][1:] == ["b1", "a2", "a3"]


# --- wishes

def test_interrupt_keeps_the_picture_so_far(engine, gate, request_for):
    job = held(engine, gate, [request_for(held=True, n_iter=3)], job_id="mine")
    engine.interrupt("mine")
    gate[1].touch()
    processed = job.result()[0]
    assert processed.interrupted and len(processed.images) == 1 and job.interrupted and engine.submit([request_for()]).result()


def test_skip_ends_one_batch_and_the_next_one_runs_whole(engine, gate, request_for, mask):
    whole = engine.submit([request_for(mask=mask, prompt="hold on", seed=2, steps=8)]).result()[0]
    job = held(engine, gate, [request_for(held=True, prompt="hold", n_iter=2)])
    engine.skip()
    gate[1].touch()
    processed = job.result()[0]
    assert processed.interrupted and not job.skipped and len(processed.images) == 3  # behind their grid
    assert len(whole.images) == 1


def test_stop_after_finishes_the_picture_and_starts_no_other(engine, gate, request_for):
    job = held(engine, gate, [request_for(held=True, n_iter=3)], job_id="mine")
    engine.stop_after("mine")
    gate[1].touch()
    processed = job.result()[0]
    assert processed.interrupted and len(processed.images) == 1
    assert processed.images[0].tobytes() == engine.submit([request_for(held=True)]).result()[0].images[0].tobytes()


def test_a_cancelled_job_gives_nothing_and_one_that_waits_never_starts(engine, gate, request_for):
    running = held(engine, gate, [request_for(held=True)])
    waiting = engine.submit([request_for()], "waiting")
    engine.cancel(running)
    engine.cancel(waiting)
    with pytest.raises(Cancelled, match="before it started"):
        waiting.result()
    gate[1].touch()
    with pytest.raises(Cancelled, match="The job was cancelled"):
        running.result()
    assert engine.submit([request_for()]).result()


def test_closing_the_events_cancels(engine, gate, request_for):
    events = held(engine, gate, [request_for(held=True)], job_id="mine").events()
    job = engine.find("mine")
    next(events)
    events.close()
    gate[1].touch()
    with pytest.raises(Cancelled):
        job.result()


# --- errors

@pytest.mark.parametrize("fields, error, sentence", [
    ({"prompt": ["one", "two"], "seed": [1]}, InvalidRequest, "seed must have one value per picture (2), got 1"),
    ({"override_settings": {"sd_model_checkpoint": "nobody's"}}, UnknownName, 'sd_model_checkpoint: no checkpoint called "nobody\'s"'),
    ({"refiner_checkpoint": "nobody's"}, UnknownName, 'no checkpoint called "nobody\'s"'),
    ({"prompt": "break"}, PalimpsestError, "hook process of Prompted failed (ValueError)"),
])
def test_an_error_is_a_sentence_and_the_next_job_runs(engine, request_for, fields, error, sentence):
    job = engine.submit([request_for(**fields)])
    assert sentence in list(job.events())[-1].message
    with pytest.raises(error) as caught:
        job.result()
    assert caught.value.__cause__ is None
    assert engine.submit([request_for()]).result()


def test_a_job_that_runs_out_of_memory_is_done_once_more_with_less_and_counted_once(around, request_for):
    engine = around(limits=Limits(pictures=2))
    processed = engine.submit([request_for(prompt="too much", n_iter=2)], client=Client("me")).result()[0]
    assert processed.comments[0].startswith("Memory ran out") and "Low memory" in processed.info and len(processed.images) == 3
    engine.close()


def test_the_quota_ends_a_job_whose_script_makes_too_many(around, request_for):
    engine = around(limits=Limits(pictures=2))
    job = engine.submit([request_for(script_name="Loopback", script_args=[3, 0.5, "Linear", "None"])], client=Client("me"))
    with pytest.raises(TooMany, match="Visitors may make 2 pictures an hour"):
        job.result()
    with pytest.raises(TooMany):
        engine.submit([request_for(n_iter=3)], client=Client("you"))
    engine.close()


def test_beyond_its_bound_a_clients_job_is_refused(around, gate, request_for):
    engine = around(limits=Limits(waiting=1))
    held(engine, gate, [request_for(held=True)])
    engine.submit([request_for()], client=Client("me"))
    with pytest.raises(TooMany, match="You have 1 jobs waiting already"):
        engine.submit([request_for()], client=Client("me"))
    gate[1].touch()
    engine.close()


def test_a_closed_engine_takes_no_job(around, request_for):
    engine = around()
    engine.close()
    with pytest.raises(PalimpsestError, match="shut down"):
        engine.submit([request_for()])


# --- series, history, verifying

def test_a_series_makes_each_item_a_request_and_knows_what_is_done(engine, picture, tmp_path):
    (folder := tmp_path / "in").mkdir()
    for number in (1, 2):
        picture.rotate(90 * number).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"nothing")
    settings = SMALL | {"outpath_samples": str(engine.journal.folder)}
    first, again = (list(engine.submit(series(Batch(find_pictures(folder)), settings, resume=True)).events())[-1] for _ in range(2))
    assert (first.results, first.outcome.made, first.outcome.already) == ([], 2, 0)
    assert (again.outcome.made, again.outcome.already) == (0, 2) and again.outcome.pictures == first.outcome.pictures
    assert [name for name, _ in first.outcome.failures] == ["3.png"] and "is not a picture" in first.outcome.failures[0][1]


def test_history_follows_a_job_from_outside(engine, gate, request_for):
    def states():
        return {entry.id: (entry.state, entry.model, len(entry.pictures)) for entry in engine.journal.search()}

    place = {"outpath_samples": str(engine.journal.folder)}
    job = held(engine, gate, [request_for(held=True, **place)], job_id="one")
    engine.submit([request_for(prompt="break", **place)], "two")
    assert states() == {"one": ("running", "demo-model", 0), "two": ("queued", "", 0)}
    gate[1].touch()
    processed = job.result()[0]
    list(engine.submit([request_for()]).events())
    assert states() == {"one": ("done", "demo-model", 1), "two": ("failed", "demo-model", 0)}
    kept, = engine.journal.entry("one").pictures
    assert (str(kept.path), kept.infotext) == (processed.paths[0], processed.info) and kept.path.exists()


def test_an_interrupted_job_is_continued_and_then_nothing_is_kept(engine, gate, request_for):
    place = {"outpath_samples": str(engine.journal.folder)}
    job = held(engine, gate, [request_for(held=True, **place)], job_id="mine")
    assert engine.journal.interrupted() == []
    engine.interrupt("mine")
    gate[1].touch()
    cut, whole = job.result()[0], engine.submit([request_for(held=True)]).result()[0]
    entry, = engine.journal.interrupted()
    again = engine.submit([engine.journal.to_continue(entry.id)], entry.id).result()[0]
    assert cut.interrupted and not again.interrupted and again.images[0].tobytes() == whole.images[0].tobytes()
    assert engine.journal.entry("mine").state == "done" and len(engine.journal.entry("mine").pictures) == 2
    assert engine.journal.interrupted() == [] and not any((engine.journal.folder / "kept").glob("*"))
    with pytest.raises(InvalidRequest, match="cannot be continued; it was not interrupted"):
        engine.journal.to_continue("mine")


@pytest.mark.parametrize("index", [0, -1])
def test_a_saved_picture_is_verified(engine, folder, request_for, index):
    fields = {"script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"], "seed": -1}
    paths = engine.submit([request_for(outpath_samples=str(engine.journal.folder), **fields)]).result()[0].paths
    claim = read_claim(list(filter(None, paths))[index])
    p = request_again(claim.receipt, catalog_in(folder), engine.journal.originals.open, thorough=True)
    *_, verdict = verify(claim, p, engine)
    assert verdict.status is Status.IDENTICAL, verdict.sentence


# --- what only a loaded model knows

def test_tokens_are_counted_once_the_model_is_there(engine):
    engine.release()
    assert engine.count_tokens(["a house"], Options(), 20) is None
    assert engine.preload().result() == []
    assert engine.count_tokens(["a house", "", "[a|a very large] house"], Options(), 20) == [
        2, 0, *engine.count_tokens(["a very large house"], Options(), 20)]
    with pytest.raises(UnknownName):
        engine.count_tokens(["a house"], Options(sd_model_checkpoint="nobody's"), 20)


def test_a_model_that_is_not_there_is_told_to_whoever_asked_for_it(engine, request_for):
    with pytest.raises(UnknownName, match="nobody's"):
        engine.preload(Options(sd_model_checkpoint="nobody's")).result()
    assert engine.submit([request_for()]).result()


def test_loading_is_told(engine, request_for):
    engine.release()
    assert any(isinstance(event, Queued) and event.loading for event in engine.submit([request_for()]).events())


def test_memory_is_that_of_where_it_computes(engine):
    told = engine.memory()
    assert told.keys() == {"ram", "cuda"} and crossed(told) == told


def test_a_worker_tells_what_it_does(engine, gate, request_for):
    running = held(engine, gate, [request_for(held=True)], job_id="mine")
    worker, = engine.workers()
    assert (worker.job, worker.model, worker.loading, worker.in_service) == ("mine", "demo-model", False, True)
    engine.put_in_service(worker.name, False)
    waiting = engine.submit([request_for()], "next")
    gate[1].touch()
    assert running.result() and waiting.state == "queued" and not engine.workers()[0].in_service
    engine.put_in_service(worker.name, True)
    assert waiting.result()


def test_embeddings_are_listed(engine):
    fitting, skipped = engine.embeddings()
    assert fitting == [] and "damaged" in skipped


def test_requests_take_the_engines_options(engine):
    engine.options = Options(tiling=True)
    assert engine.options.tiling


# --- what crosses

def all_errors(kind):
    return [kind, *(each for below in kind.__subclasses__() for each in all_errors(below))]


@pytest.mark.parametrize("kind", all_errors(PalimpsestError), ids=lambda kind: kind.__name__)
def test_every_error_can_be_sent(kind):
    args = {UnknownName: ("field", "kind", "name", ["one", "two"]), InvalidRequest: ("field", "message"), Missing: ("message", "mask")}
    error = kind(*args.get(kind, ("message",)))
    again = crossed(error)
    assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


class Stubborn(Exception):
    def __init__(self, one, two):
        super().__init__(lambda: (one, two))


def test_an_error_that_nobody_foresaw_is_sent_as_what_is_said_of_it():
    try:
        raise Stubborn(1, 2) from ValueError("inner")
    except Stubborn as error:
        sent = sendable(error)
    again = crossed(sent)
    assert isinstance(again, Unforeseen) and again.kind == "Stubborn" and str(again).startswith("Something went wrong in the program (Stubborn)")
    assert sent.__traceback__ is sent.__cause__ is sent.__context__ is None
    assert isinstance(crossed(sendable(torch.OutOfMemoryError("CUDA"))), MemoryError)


def test_a_request_that_brings_its_model_cannot_be_sent(demo, picture):
    with pytest.raises(TypeError, match="cannot be sent"):
        crossed(StableDiffusionProcessingImg2Img(demo, init_images=[picture]))


# --- selecting

def test_a_model_selects_while_a_job_runs_too(engine, gate, request_for):
    picture, click = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8), Prompt(((9.0, 9.0, True),))
    assert engine.segmenters() == ["tiny"]
    first = engine.segment("tiny", picture, "a", click)
    assert first.shape == (40, 60) and first.dtype == np.uint8
    job = held(engine, gate, [request_for(held=True)])
    assert (engine.segment("tiny", picture, "b", click) == first).all()
    gate[1].touch()
    assert job.result()
    with pytest.raises(UnknownName):
        engine.segment("none", picture, "a", click)


# --- enlarging

def test_a_network_enlarges_while_a_job_runs_too(engine, gate, request_for):
    picture = np.random.default_rng(0).integers(0, 255, (10, 12, 3), dtype=np.uint8)
    first = engine.upscale("double", picture)
    assert first.shape == (20, 24, 3) and first.dtype == np.uint8
    job = held(engine, gate, [request_for(held=True)])
    assert (engine.upscale("double", picture) == first).all()
    gate[1].touch()
    assert job.result()
    with pytest.raises(UnknownName):
        engine.upscale("treble", picture)

"""A job is computed by several workers: the pictures, texts, files and journal are those of one worker, to the byte."""

import resource
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.batch import Batch, find_pictures, series
from pipeline.device import DeviceWorker
from pipeline.engine import LocalEngine
from pipeline.errors import WorkerLost
from pipeline.journal import Journal
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.worker import Started
from tests.conftest import DEMO_MODEL

SMALL = {"width": 64, "height": 64, "steps": 3, "seed": 1, "denoising_strength": 1.0, "subseed": 5, "sampler_name": "Euler a"}
PATIENCE = 60.0
"""Seconds."""


class Counted(DeviceWorker):
    """Counts the calls of its own model; at the call of a number it waits to be let go, or is lost."""

    def __init__(self):
        from pipeline.families import describe, load, placement

        model = load(DEMO_MODEL, placement.choose("cpu", "float32"), describe(DEMO_MODEL))
        super().__init__(lambda options: model, keep_every=0.0)
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.start_over()
        ask = model.denoise

        def denoise(*args):
            self.calls += 1
            if self.calls == self.holds_at:
                self.reached.set()
                assert self.go_on.wait(PATIENCE)
            if self.calls == self.dies_at:
                raise WorkerLost("It ended.")
            return ask(*args)

        model.denoise = denoise

    def run(self, request, styles, tell, wishes, kept=b""):
        def told(news):
            return tell(replace(news, where=self.where) if isinstance(news, Started) and self.where else news)

        return super().run(request, styles, told, wishes, kept)

    def start_over(self):
        self.calls, self.holds_at, self.dies_at, self.where = 0, None, None, None
        self.reached.clear()
        self.go_on.clear()


@pytest.fixture(scope="module")
def workers():
    return [Counted() for _ in range(4)]


@pytest.fixture
def engine_of(workers, tmp_path):
    """An engine with that many workers, and a journal of its own."""
    opened = []

    def make(count):
        for worker in workers:
            worker.start_over()
        journal = Journal(tmp_path / f"outputs {len(opened)}")
        opened.append(LocalEngine({f"cpu #{number}": worker for number, worker in enumerate(workers[:count], 1)}, journal=journal))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()
        engine.journal.close()


@pytest.fixture
def request_for(picture):
    def make(**fields):
        kind = StableDiffusionProcessingTxt2Img if "enable_hr" in fields else StableDiffusionProcessingImg2Img
        sources = {} if "enable_hr" in fields else {"init_images": [picture]}
        return kind(**SMALL | sources | fields)

    return make


def told(engine, processed):
    """All that a result says and shows, with the names of its files."""
    names = [path and Path(path).name for path in processed.paths]
    pixels = [image.tobytes() for image in processed.images]
    receipts = [image.info.get("palimpsest") for image in processed.images]
    files = {file.name: file.read_bytes() for file in engine.journal.folder.rglob("*.png")}
    entries = [(entry.state, [(picture.path.name, picture.infotext) for picture in entry.pictures]) for entry in engine.journal.search()]
    return (names, pixels, receipts, processed.infotexts, processed.all_seeds, processed.all_subseeds, processed.all_prompts,
            processed.comments, processed.interrupted, processed.index_of_first_image, files, entries)


PLOT = ["Seed", "1,2", None, "Steps", "2,3", None, "Nothing", "", None, True, True, True, False, False, False, False, 0, True]
KINDS = {
    "batches": {"n_iter": 4, "batch_size": 2},
    "variations": {"n_iter": 4, "subseed": 7, "subseed_strength": 0.4},
    "a mask": {"n_iter": 4, "mask": True, "inpaint_full_res_padding": 8, "inpainting_fill": 2},
    "hires fix": {"n_iter": 3, "enable_hr": True, "hr_scale": 1.25},
    "X/Y/Z plot": {"script_name": "X/Y/Z plot", "script_args": PLOT},
    "Prompt matrix": {"prompt": "a|b|c", "script_name": "Prompt matrix", "script_args": [False, True, "positive", "comma", 0]},
    "lines": {"script_name": "Prompts from file or textbox", "script_args": [True, False, "start", "one\ntwo\n--prompt three --steps 3"]},
    "SD upscale": {"script_name": "SD upscale", "script_args": [None, 16, "Lanczos", 1.5]},
    "soft": {"n_iter": 3, "mask": True, "alwayson_scripts": {"Soft Inpainting": {"args": [True]}}},
}
WHOLE = {
    "Loopback": {"script_name": "Loopback", "script_args": [3, 0.5, "Linear", "None"]},
    "one batch": {"batch_size": 2},
}


def run(engine, request_for, mask, fields):
    place = str(engine.journal.folder)
    fields = fields | ({"mask": mask} if "mask" in fields else {})
    return told(engine, engine.submit([request_for(outpath_samples=place, outpath_grids=place, **fields)], "mine").result()[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_divided_job_is_the_same_to_the_byte(engine_of, workers, request_for, mask, kind):
    whole = run(engine_of(1), request_for, mask, KINDS[kind])
    calls = workers[0].calls
    for count in (2, 4) if kind in ("batches", "X/Y/Z plot") else (2,):
        assert run(engine_of(count), request_for, mask, KINDS[kind]) == whole
        worked = [worker.calls for worker in workers if worker.calls]
        assert sum(worked) == calls and len(worked) > 1


@pytest.mark.parametrize("kind", WHOLE)
def test_what_cannot_be_divided_runs_whole(engine_of, workers, request_for, mask, kind):
    whole = run(engine_of(1), request_for, mask, WHOLE[kind])
    assert run(engine_of(2), request_for, mask, WHOLE[kind]) == whole
    assert sorted(worker.calls for worker in workers)[:3] == [0, 0, 0]


def test_random_seeds_are_the_same_for_all_who_compute(engine_of, workers, request_for, mask):
    lines = "one\ntwo\nthree\nfour"
    for script in (None, "Prompts from file or textbox"):
        fields = {"n_iter": 4} if script is None else {"script_name": script, "script_args": [False, False, "start", lines]}
        seeds = run(engine_of(2), request_for, mask, fields | {"seed": -1})[4]
        assert len(set(seeds)) == 4 and sum(worker.calls for worker in workers) == 4 * SMALL["steps"] and workers[1].calls


@pytest.mark.parametrize("count", [1, 2])
def test_a_folders_items_are_computed_ahead_and_saved_in_order(engine_of, workers, picture, tmp_path, count):
    (folder := tmp_path / "in").mkdir()
    for number in range(4):
        picture.rotate(90 * number).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"nothing")
    engine = engine_of(count)
    settings = SMALL | {"outpath_samples": str(engine.journal.folder)}
    outcome = list(engine.submit(series(Batch(find_pictures(folder)), settings)).events())[-1].outcome
    assert (outcome.made, [name for name, _ in outcome.failures]) == (4, ["4.png"])
    entries = sorted(engine.journal.search(), key=lambda entry: entry.id)
    assert [entry.state for entry in entries] == ["done"] * 4
    assert [picture.path.name for entry in entries for picture in entry.pictures] == [f"0000{number}-1.png" for number in range(4)]
    assert sum(worker.calls for worker in workers) == 4 * SMALL["steps"] and bool(workers[1].calls) == (count == 2)
    alone = engine_of(1)
    sources = [picture.rotate(90 * number) for number in range(4)]
    expected = [alone.submit([StableDiffusionProcessingImg2Img(**SMALL, init_images=[source])]).result()[0] for source in sources]
    assert [(path, text) for path, text in outcome.pictures] == [
        (str(entry.pictures[0].path), one.info) for entry, one in zip(entries, expected)]


# --- stopping

def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def started(engine, request_for, **fields):
    place = str(engine.journal.folder)
    return engine.submit([request_for(outpath_samples=place, outpath_grids=place, **fields)], "mine")


def waits(engine):
    """Whether the job's own run has come to a batch that another worker computes."""
    return engine._running[0].sharing.waits


@pytest.mark.parametrize("how", ["interrupt", "skip", "stop_after"])
def test_what_is_stopped_while_another_worker_computes_it_is_as_on_one(engine_of, workers, request_for, how):
    told_by = []
    for count in (1, 2):
        engine = engine_of(count)
        worker = workers[count - 1]
        worker.holds_at = 2 + SMALL["steps"] * (2 - count)  # in the middle of the second batch
        job = started(engine, request_for, n_iter=3)
        assert worker.reached.wait(PATIENCE)
        wait_until(lambda: count == 1 or waits(engine))
        getattr(engine, how)("mine")
        worker.go_on.set()
        told_by.append(told(engine, job.result()[0]))
    assert told_by[0] == told_by[1]
    assert sum(worker.calls for worker in workers) == {"interrupt": 5, "skip": 8, "stop_after": 6}[how]


def test_an_interrupt_ends_all_workers_within_one_model_call(engine_of, workers, request_for):
    engine = engine_of(3)
    for worker in workers[:3]:
        worker.holds_at = 2
    job = started(engine, request_for, n_iter=3)
    assert all(worker.reached.wait(PATIENCE) for worker in workers[:3])
    assert {state.job for state in engine.workers()} == {"mine"}
    engine.interrupt("mine")
    for worker in workers[:3]:
        worker.go_on.set()
    result = job.result()[0]
    assert result.interrupted and len(result.images) == 1
    wait_until(lambda: all(state.job is None for state in engine.workers()))
    assert [worker.calls for worker in workers[:3]] == [2, 2, 2]
    # what the others had computed is not lost, but for what they told after the job's end
    for worker in workers:
        worker.start_over()
    assert engine.submit([engine.journal.to_continue("mine")], "mine").result()[0].images
    assert sum(worker.calls for worker in workers) <= 3 * SMALL["steps"] - 4


def test_progress_and_previews_are_those_of_all_workers(engine_of, workers, request_for):
    engine = engine_of(2)
    workers[0].holds_at = 2
    job = started(engine, request_for, n_iter=4)
    seen = []
    job.listen(lambda: seen.append(job.newest()[1]))
    assert workers[0].reached.wait(PATIENCE)
    wait_until(lambda: seen and getattr(seen[-1], "fraction", 0) >= 0.75)
    assert len({step.preview for step in seen if getattr(step, "preview", None)}) > 3
    workers[0].go_on.set()
    assert job.result() and workers[0].calls == SMALL["steps"]
    fractions = [step.fraction for step in seen if hasattr(step, "fraction")]
    assert fractions == sorted(fractions)


# --- others, and losses

def test_a_waiting_job_gets_a_helping_worker_within_one_model_call(engine_of, workers, request_for):
    whole = engine_of(1).submit([request_for(n_iter=3)]).result()[0]
    engine = engine_of(2)
    for worker in workers[:2]:
        worker.holds_at = 2
    job = engine.submit([request_for(n_iter=3)])
    assert all(worker.reached.wait(PATIENCE) for worker in workers[:2])
    other = engine.submit([request_for(seed=9)])
    workers[1].go_on.set()
    assert other.result()[0].images and workers[1].calls == 2 + SMALL["steps"] and job.state == "running"
    workers[0].go_on.set()
    assert [image.tobytes() for image in job.result()[0].images] == [image.tobytes() for image in whole.images]
    assert workers[0].calls + workers[1].calls == 4 * SMALL["steps"]


@pytest.mark.parametrize("lost", [0, 1])
def test_of_a_lost_worker_only_its_part_is_computed_again(engine_of, workers, request_for, lost):
    whole = engine_of(1).submit([request_for(n_iter=4)]).result()[0]
    engine = engine_of(2)
    workers[lost].dies_at = 2
    again = engine.submit([request_for(n_iter=4)]).result()[0]
    assert [image.tobytes() for image in again.images] == [image.tobytes() for image in whole.images]
    assert again.infotexts == whole.infotexts
    assert len(again.comments) == 1 and "ended unexpectedly, so another one continued its work" in again.comments[0]
    assert sum(worker.calls for worker in workers) == 4 * SMALL["steps"] + 1


def test_a_worker_on_another_kind_of_device_does_not_help(engine_of, workers, request_for):
    engine = engine_of(2)
    workers[1].where = "another kind of card"
    assert engine.submit([request_for(n_iter=3)]).result()[0].images
    assert [worker.calls for worker in workers[:2]] == [3 * SMALL["steps"], 0]


def test_a_helper_that_stands_still_holds_nobody_up(engine_of, workers, request_for):
    whole = engine_of(1).submit([request_for(n_iter=3)]).result()[0]
    engine = engine_of(2)
    workers[0].holds_at = 2
    workers[1].holds_at = 2
    job = engine.submit([request_for(n_iter=3)])
    assert all(worker.reached.wait(PATIENCE) for worker in workers[:2])
    engine._running[0].sharing.grace = 0.0
    workers[0].go_on.set()
    assert [image.tobytes() for image in job.result()[0].images] == [image.tobytes() for image in whole.images]
    workers[1].go_on.set()


@contextmanager
def full_disk():
    """No file may grow: the system refuses it as it does on a full disk."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.parametrize("count", [1, 2])
def test_on_a_full_disk_a_job_goes_on_and_nothing_else_is_lost(engine_of, request_for, mask, count):
    engine = engine_of(count)
    before = run(engine, request_for, mask, {"n_iter": 2})
    place = str(engine.journal.folder)
    with full_disk():
        result = engine.submit([request_for(n_iter=2, seed=3, outpath_samples=place, outpath_grids=place)], "in need").result()[0]
        assert engine.journal.entry("mine").state == "done"
    assert len(result.images) == 3 and result.paths == [None] * 3 and not result.interrupted
    assert set(result.comments) == {"A picture could not be saved: File too large.", "History could not be written; see the log."}
    files = {file.name: file.read_bytes() for file in engine.journal.folder.rglob("*.png")}
    assert files == before[-2] and not list(engine.journal.folder.rglob("*.tmp"))
    again = engine.submit([request_for(n_iter=2, seed=3, outpath_samples=place, outpath_grids=place)], "later").result()[0]
    assert [image.tobytes() for image in again.images] == [image.tobytes() for image in result.images] and not again.comments
    assert engine.journal.entry("later").state == "done" and len(engine.journal.entry("later").pictures) == 3

"""One thread, one queue: events, interruption, cancelling, and errors that harm nobody else."""

import gc
import threading
import time
import weakref

import pytest
import torch

from pipeline.engine import Engine, Failed, Finished, Queued, Step
from pipeline.errors import Cancelled, HookError, ModelError
from pipeline.hooks import Hooks
from pipeline.processing import StableDiffusionProcessingImg2Img


def request(picture, **fields):
    settings = {"init_images": [picture], "width": 64, "height": 64, "steps": 4, "seed": 1, "sampler_name": "Euler"}
    return StableDiffusionProcessingImg2Img(**settings | fields)


class Gate(Hooks):
    """Holds every sampling until it is opened; remembers the thread and grad mode it was called in."""

    def __init__(self):
        self.reached, self.opened, self.threads = threading.Event(), threading.Event(), set()

    def process_before_every_sampling(self, p, **_):
        self.threads.add((threading.current_thread().name, torch.is_grad_enabled()))
        self.reached.set()
        assert self.opened.wait(30)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def gated(demo, gate):
    """An engine whose jobs wait at the gate."""
    engine = Engine(lambda: demo, hooks=[gate])
    yield engine
    gate.opened.set()
    engine.close()


def test_a_job_narrates_its_steps_and_ends_with_its_result(engine, picture):
    events = list(engine.submit([request(picture)]).events())
    assert isinstance(events[-1], Finished) and events[-1].results[0].images[0].size == (64, 64)
    assert sum(isinstance(event, (Finished, Failed)) for event in events) == 1
    steps = [event for event in events if isinstance(event, Step)]
    assert steps[-1].steps == 4 and [s.step for s in steps] == sorted(s.step for s in steps)


def test_previews_are_small_cpu_pictures(engine, picture):
    job = engine.submit([request(picture, steps=8)])
    previews = [event.preview for event in job.events() if isinstance(event, Step) and event.preview is not None]
    assert previews and all(preview.size == (8, 8) for preview in previews)


def test_full_previews_have_the_pictures_size(engine, picture):
    job = engine.submit([request(picture, override_settings={"show_progress_type": "Full"})])
    previews = [event.preview for event in job.events() if isinstance(event, Step) and event.preview is not None]
    assert previews and previews[0].size == (64, 64)


def test_previews_change_no_pixel(engine, picture):
    shown, hidden = (engine.submit([request(picture, override_settings={"live_previews_enable": live})]).result()[0].images[0]
                     for live in (True, False))
    assert shown.tobytes() == hidden.tobytes()


def test_every_job_runs_on_the_engines_thread_without_gradients(gated, gate, picture):
    gate.opened.set()
    for _ in range(2):
        gated.submit([request(picture)]).result()
    assert gate.threads == {("engine", False)}


def test_a_second_job_waits_and_sees_its_place(gated, gate, picture):
    first = gated.submit([request(picture)])
    assert gate.reached.wait(30)
    second, third = (gated.submit([request(picture)]).events() for _ in range(2))
    assert next(second) == Queued(1, loading=False) and next(third) == Queued(2, loading=False)
    gate.opened.set()
    assert first.result() and isinstance(list(second)[-1], Finished) and isinstance(list(third)[-1], Finished)


def test_interrupt_keeps_the_picture_so_far(engine, picture):
    job = engine.submit([request(picture, steps=150, denoising_strength=1.0)])
    for event in job.events():
        if isinstance(event, Step) and event.step >= 1:
            engine.interrupt(job.id)
    result = event.results[0]
    assert result.interrupted and len(result.images) == 1


def test_skip_ends_one_batch_and_the_next_one_runs_whole(engine, picture):
    whole = engine.submit([request(picture, seed=2, steps=40, denoising_strength=1.0)]).result()[0].images[0]
    job = engine.submit([request(picture, n_iter=2, steps=40, denoising_strength=1.0)])
    skipped = False
    for event in job.events():
        if isinstance(event, Step) and event.step >= 1 and not skipped:
            engine.skip(job.id)
            skipped = True
    _, first, second = event.results[0].images  # behind their grid
    assert second.tobytes() == whole.tobytes() and first.tobytes() != second.tobytes()


def test_closing_the_events_cancels_and_the_next_job_runs(gated, gate, picture):
    events = gated.submit([request(picture)]).events()
    next(events)
    assert gate.reached.wait(30)
    job = gated.find()
    events.close()
    gate.opened.set()
    assert gated.submit([request(picture)]).result()
    with pytest.raises(Cancelled):
        job.result()


def test_interrupting_a_waiting_job_drops_it_at_once(gated, gate, picture):
    running = gated.submit([request(picture)])
    assert gate.reached.wait(30)
    waiting = gated.submit([request(picture)], "mine")
    gated.interrupt("mine")
    with pytest.raises(Cancelled, match="before it started"):
        waiting.result()
    gate.opened.set()
    assert running.result()


def test_interrupting_one_job_leaves_another_alone(gated, gate, picture):
    running = gated.submit([request(picture)], "running")
    assert gate.reached.wait(30)
    gated.interrupt("another")
    gate.opened.set()
    assert not running.result()[0].interrupted


class Careless(Hooks):
    def process_before_every_sampling(self, p, **_):
        if p.prompt == "fail":
            raise ValueError("no such thing")


def test_a_failing_hook_fails_its_job_by_name_and_the_next_job_runs(demo, picture):
    engine = Engine(lambda: demo, hooks=[Careless()])
    with pytest.raises(HookError, match="process_before_every_sampling of Careless failed: ValueError: no such thing"):
        engine.submit([request(picture, prompt="fail")]).result()
    assert engine.submit([request(picture)]).result()
    engine.close()


def test_a_model_that_cannot_be_loaded_fails_each_job_with_its_sentence(picture):
    def load():
        raise ModelError("the file is damaged")

    engine = Engine(load)
    event = list(engine.submit([request(picture)]).events())[-1]
    assert isinstance(event, Failed) and event.message == "the file is damaged"
    engine.close()


def test_jobs_submitted_while_the_model_loads_run_when_it_is_there(demo, picture):
    loading = threading.Event()

    def load():
        assert loading.wait(30)
        return demo

    engine = Engine(load)
    job = engine.submit([request(picture)])
    events = job.events()
    assert next(events) == Queued(0, loading=True)
    loading.set()
    assert isinstance(list(events)[-1], Finished)
    engine.close()


def test_a_silent_job_is_shown_again_after_the_heartbeat(gated, gate, picture):
    events = gated.submit([request(picture)]).events(heartbeat=0.05)
    assert gate.reached.wait(30)
    time.sleep(0.1)
    first = next(events)
    assert next(events) == first
    gate.opened.set()
    events.close()


def test_a_model_given_with_the_request_is_really_used(demo, picture):
    engine = Engine(lambda: None)
    assert engine.submit([request(picture, sd_model=demo)]).result()
    engine.close()


def test_a_finished_job_is_forgotten(engine, picture):
    job = engine.submit([request(picture)])
    job.result()
    forgotten = weakref.ref(job)
    del job
    deadline = time.monotonic() + 10
    while forgotten() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert forgotten() is None


def test_too_little_memory_is_one_sentence():
    assert Failed(torch.OutOfMemoryError("CUDA")).message.startswith("The memory was not enough")


def test_an_unforeseen_error_is_logged_and_told(engine, picture, caplog):
    def work():
        yield request(picture)
        raise LookupError("nobody thought of this")

    event = list(engine.submit(work()).events())[-1]
    assert event.message == "Something went wrong inside: LookupError: nobody thought of this"
    assert "nobody thought of this" in caplog.text


def test_several_processing_objects_are_one_job(engine, picture):
    made = []

    def work():
        for seed in (1, 2):
            made.append(seed)
            yield request(picture, seed=seed)

    results = engine.submit(work()).result()
    assert made == [1, 2] and [result.seed for result in results] == [1, 2]


def test_a_prompt_is_encoded_once_for_many_jobs(engine, demo, picture, monkeypatch):
    texts = []
    encode = demo.encode_prompts
    monkeypatch.setattr(demo, "encode_prompts", lambda prompts, **kwargs: texts.extend(prompts) or encode(prompts, **kwargs))
    for _ in range(2):
        engine.submit([request(picture, prompt="a house nobody asked for yet")]).result()
    assert texts.count("a house nobody asked for yet") == 1

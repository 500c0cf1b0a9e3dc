"""One thread, one queue: events, interruption, cancelling, and errors that harm nobody else."""

import gc
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from PIL import Image

from pipeline.device import DeviceWorker
from pipeline.engine import LocalEngine, local_engine
from pipeline.errors import Cancelled, HookError, ModelError, TooMany
from pipeline.hooks import Hooks
from pipeline.job import Failed, Finished, Queued, Step
from pipeline.journal import Journal
from pipeline.limits import Client, Limits
from pipeline.options import Options
from pipeline.previews import unpack
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.series import Series


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
    engine = local_engine(lambda options: demo, hooks=[gate])
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
    assert previews and all(unpack(preview).size == (8, 8) for preview in previews)


def test_full_previews_have_the_pictures_size(engine, picture):
    job = engine.submit([request(picture, override_settings={"show_progress_type": "Full"})])
    previews = [event.preview for event in job.events() if isinstance(event, Step) and event.preview is not None]
    assert previews and unpack(previews[0]).size == (64, 64)


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


def test_stop_after_finishes_the_picture_and_starts_no_other(engine, picture):
    whole = engine.submit([request(picture, seed=1, steps=40, denoising_strength=1.0)]).result()[0].images[0]
    job = engine.submit([request(picture, seed=1, n_iter=9, steps=40, denoising_strength=1.0)])
    for event in job.events():
        if isinstance(event, Step) and event.step >= 1:
            engine.stop_after(job.id)
    result = event.results[0]
    assert result.interrupted and [image.tobytes() for image in result.images] == [whole.tobytes()]


def test_stopping_after_the_last_picture_interrupts_nothing(engine, picture):
    job = engine.submit([request(picture, steps=40, denoising_strength=1.0)])
    for event in job.events():
        if isinstance(event, Step) and event.step >= 1:
            engine.stop_after(job.id)
    assert not event.results[0].interrupted


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
    engine = local_engine(lambda options: demo, hooks=[Careless()])
    with pytest.raises(HookError, match=r"process_before_every_sampling of Careless failed \(ValueError\); see the program's log"):
        engine.submit([request(picture, prompt="fail")]).result()
    assert engine.submit([request(picture)]).result()
    engine.close()


def test_a_model_that_cannot_be_loaded_fails_each_job_with_its_sentence(picture):
    def load(options):
        raise ModelError("the file is damaged")

    engine = local_engine(load)
    event = list(engine.submit([request(picture)]).events())[-1]
    assert isinstance(event, Failed) and event.message == "the file is damaged"
    engine.close()


def test_jobs_submitted_while_the_model_loads_run_when_it_is_there(demo, picture):
    begun, loading = threading.Event(), threading.Event()

    def load(options):
        begun.set()
        assert loading.wait(30)
        return demo

    engine = local_engine(load)
    engine.preload()
    assert begun.wait(30)
    job = engine.submit([request(picture)])
    events = job.events()
    assert next(events) == Queued(0, loading=True)
    loading.set()
    assert isinstance(list(events)[-1], Finished)
    engine.close()


# --- which model

class Shelf:
    """Two names for one model; remembers what was asked for."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def __call__(self, options):
        self.asked.append(options.sd_model_checkpoint)
        if options.sd_model_checkpoint == "damaged":
            raise ModelError("the file is damaged")
        return self.model


@pytest.fixture
def shelf(demo):
    return Shelf(demo)


@pytest.fixture
def librarian(shelf):
    """An engine that takes its models from the shelf."""
    engine = local_engine(shelf)
    yield engine
    engine.close()


def test_no_model_is_loaded_before_somebody_wants_one(librarian, shelf):
    librarian.close()
    assert shelf.asked == []


def test_the_model_is_the_one_that_each_requests_own_options_name(librarian, shelf, picture):
    librarian.submit([request(picture, override_settings={"sd_model_checkpoint": name}) for name in ("one", "two")]).result()
    assert shelf.asked == ["one", "two"]


def test_new_options_of_the_engine_leave_a_request_that_is_built_alone(librarian, shelf, picture):
    p = request(picture, options=librarian.options)
    librarian.options = Options(sd_model_checkpoint="two")
    librarian.submit([p]).result()
    assert "two" not in shelf.asked


def test_a_model_that_fails_leaves_the_others_to_the_next_job(librarian, picture):
    with pytest.raises(ModelError, match="the file is damaged"):
        librarian.submit([request(picture, override_settings={"sd_model_checkpoint": "damaged"})]).result()
    assert librarian.submit([request(picture)]).result()


def test_a_model_can_be_loaded_ahead_and_whoever_asked_is_told(librarian, shelf):
    assert librarian.preload(Options(sd_model_checkpoint="two")).result() == []
    librarian.options = Options(sd_model_checkpoint="three")
    librarian.preload().result()
    assert shelf.asked == ["two", "three"]
    with pytest.raises(ModelError, match="the file is damaged"):
        librarian.preload(Options(sd_model_checkpoint="damaged")).result()


def test_pictures_come_before_a_model_that_is_loaded_ahead_and_only_the_newest_wish_counts(demo, gate, picture):
    shelf = Shelf(demo)
    engine = local_engine(shelf, hooks=[gate])
    running = engine.submit([request(picture)])
    assert gate.reached.wait(30)
    first, second = (engine.preload(Options(sd_model_checkpoint=name)) for name in ("first", "second"))
    later = engine.submit([request(picture)])
    with pytest.raises(Cancelled, match="Another model was asked for"):
        first.result()
    gate.opened.set()
    assert running.result() and later.result() and second.result() == []
    assert shelf.asked[-1] == "second" and "first" not in shelf.asked
    engine.close()


def test_nobody_waits_for_ever_for_a_model_of_a_closed_engine(gated, gate, picture):
    gated.submit([request(picture)])
    assert gate.reached.wait(30)
    ahead = gated.preload()
    gate.opened.set()
    gated.close()
    with pytest.raises(Cancelled, match="shut down"):
        ahead.result()


def test_loading_is_told_to_the_job_it_is_for_and_to_those_behind(demo, picture):
    told, go_on = threading.Event(), threading.Event()

    def load(options):
        if options.sd_model_checkpoint:
            worker.tell_loading(0.253)
            told.set()
            assert go_on.wait(30)
        return demo

    worker = DeviceWorker(load)
    engine = LocalEngine(worker)
    mine, next_one = (engine.submit([request(picture, override_settings={"sd_model_checkpoint": "large"})]) for _ in range(2))
    assert told.wait(30)
    events, behind = mine.events(), next_one.events()
    assert next(events) == Queued(0, loading=True, fraction=0.25) and next(behind) == Queued(1, loading=True, fraction=0.25)
    go_on.set()
    assert isinstance(list(events)[-1], Finished) and isinstance(list(behind)[-1], Finished)
    engine.close()


# --- too little memory

class Tight:
    """The demo model on a device that holds one row of a batch, if that."""

    def __init__(self, model, rows=1):
        self.model, self.rows, self.tried = model, rows, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def denoise(self, x, t, cond, image_cond):
        self.tried.append(len(x))
        if len(x) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model.denoise(x, t, cond, image_cond)


def test_a_job_that_runs_out_of_memory_is_done_once_more_with_less_and_says_so(demo, engine, picture):
    fields = {"seed": 5, "prompt": "a house", "batch_size": 2, "n_iter": 2}
    plenty = engine.submit([request(picture, **fields)]).result()[0]
    tight, room = Tight(demo), []
    small_engine = local_engine(lambda options: tight, make_room=lambda: room.append(len(tight.tried)))
    small = small_engine.submit([request(picture, **fields)]).result()[0]
    assert room == [1] and tight.tried[0] == 4 and set(tight.tried[1:]) == {1}
    assert small.all_seeds == plenty.all_seeds and len(small.images) == len(plenty.images)
    for ours, theirs in zip(small.images, plenty.images):
        assert max(abs(a - b) for a, b in zip(ours.tobytes(), theirs.tobytes())) <= 1
    assert [comment[:15] for comment in small.comments] == ["Memory ran out,"]
    assert 'Low memory: "one picture at a time' in small.info and "Low memory" not in plenty.info
    small_engine.close()


def test_a_job_that_runs_out_of_memory_twice_fails_and_the_next_one_runs(demo, picture):
    tight = Tight(demo, rows=0)
    engine = local_engine(lambda options: tight)
    event = list(engine.submit([request(picture)]).events())[-1]
    assert isinstance(event, Failed) and event.message.startswith("Out of memory") and tight.tried == [2, 1]
    tight.rows = 2
    assert engine.submit([request(picture)]).result()[0].comments == []
    engine.close()


class OnceTight(Tight):
    """A model that runs out of memory in its call number `at`, from 0."""

    def __init__(self, model, at):
        super().__init__(model)
        self.at = at

    def denoise(self, x, t, cond, image_cond):
        self.tried.append(len(x))
        if len(self.tried) - 1 == self.at:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return self.model.denoise(x, t, cond, image_cond)


class Seeds(Hooks):
    """Remembers the seeds of every run, in order."""

    def __init__(self):
        self.seen = []

    def process(self, p):
        self.seen.append((p.all_seeds, p.all_subseeds if p.subseed_strength else None))


@pytest.mark.parametrize("fields", [{}, {"subseed_strength": 0.5}, {"script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"]}])
def test_the_retry_after_running_out_of_memory_draws_the_seeds_that_were_drawn(demo, picture, fields):
    seeds = Seeds()
    model = OnceTight(demo, 1)
    engine = local_engine(lambda options: model, hooks=[seeds])
    result = engine.submit([request(picture, **{"seed": -1, "subseed": -1} | fields)]).result()[0]
    first, *second = seeds.seen
    assert second[0] == first and result.all_seeds[0] == first[0][0]
    assert "Memory ran out" in result.comments[0]
    engine.close()


def test_a_request_that_is_submitted_again_draws_other_seeds(engine, picture):
    p = request(picture, seed=-1)
    assert engine.submit([p]).result()[0].all_seeds != engine.submit([p]).result()[0].all_seeds


def test_the_retry_counts_once_for_the_quota(demo, picture):
    model = OnceTight(demo, 1)
    engine = local_engine(lambda options: model, limits=Limits(pictures=3))
    engine.submit([request(picture, n_iter=2)], client=Client("me")).result()
    engine.submit([request(picture)], client=Client("me")).result()
    with pytest.raises(TooMany):
        engine.submit([request(picture)], client=Client("me"))
    engine.close()


def folder_and_journal(journal):
    files = sorted(file.name for file in (journal.folder / "made").rglob("*.png"))
    return files, sorted(kept.path.name for kept in journal.search()[0].pictures)


@pytest.mark.parametrize("where", [{}, {"samples_filename": "boat"}])
def test_the_retry_replaces_the_files_of_the_first_try(demo, picture, tmp_path, where):
    """The first of two batches is saved when the second one runs out of memory."""
    calls = RecordingCalls(demo)
    engine = local_engine(lambda options: calls)
    engine.submit([request(picture)]).result()
    engine.close()
    journal = Journal(tmp_path)
    model = OnceTight(demo, len(calls.tried))
    engine = local_engine(lambda options: model, journal=journal)
    fields = {"n_iter": 2, "seed": 7, "outpath_samples": str(tmp_path / "made"), "outpath_grids": str(tmp_path / "made")} | where
    result = engine.submit([request(picture, **fields)]).result()[0]
    numbered = ["00000-7.png", "00001-8.png", "00002-grid.png"]
    expected = numbered if not where else ["00000-grid.png", "boat-1.png", "boat.png"]
    assert folder_and_journal(journal) == (expected, expected)
    for image, path in zip(result.images, result.paths):
        assert image.tobytes() == Image.open(path).tobytes()
    engine.close()
    journal.close()


class RecordingCalls(Tight):
    def denoise(self, x, t, cond, image_cond):
        self.tried.append(len(x))
        return self.model.denoise(x, t, cond, image_cond)


def test_what_a_first_try_has_saved_stays_where_the_retry_fails_too(demo, picture, tmp_path):
    class Breaking(OnceTight):
        def denoise(self, x, t, cond, image_cond):
            if len(self.tried) > self.at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().denoise(x, t, cond, image_cond)

    calls = RecordingCalls(demo)
    engine = local_engine(lambda options: calls)
    engine.submit([request(picture)]).result()
    engine.close()
    journal = Journal(tmp_path)
    model = Breaking(demo, len(calls.tried))
    engine = local_engine(lambda options: model, journal=journal)
    job = engine.submit([request(picture, n_iter=2, seed=7, outpath_samples=str(tmp_path / "made"))])
    assert isinstance(list(job.events())[-1], Failed)
    assert folder_and_journal(journal) == (["00000-7.png"], ["00000-7.png"])
    engine.close()
    journal.close()


def test_history_that_is_deleted_while_a_job_runs_is_said_in_its_comments(demo, picture, tmp_path):
    class Deletes(Hooks):
        def process(self, p):
            shutil.rmtree(tmp_path / "outputs")

    journal = Journal(tmp_path / "outputs")
    engine = local_engine(lambda options: demo, hooks=[Deletes()], journal=journal)
    result = engine.submit([request(picture, outpath_samples=str(tmp_path / "outputs" / "made"))], job_id="one").result()[0]
    assert "History was deleted" in " ".join(result.comments)
    assert [kept.path.exists() for kept in journal.entry("one").pictures] == [True] and journal.entry("one").state == "done"
    engine.close()
    journal.close()


def test_a_reader_with_a_pace_is_told_no_sooner_but_of_the_end_at_once(gated, gate, picture):
    events = gated.submit([request(picture)]).events(pace=60)
    assert gate.reached.wait(30)
    first = next(events)
    gate.opened.set()
    began = time.monotonic()
    last = next(events)
    assert not isinstance(first, Finished) and isinstance(last, Finished) and time.monotonic() - began < 30


def test_a_silent_job_is_shown_again_after_the_heartbeat(gated, gate, picture):
    events = gated.submit([request(picture)]).events(heartbeat=0.05)
    assert gate.reached.wait(30)
    time.sleep(0.1)
    first = next(events)
    assert next(events) == first
    gate.opened.set()
    events.close()


def test_a_model_given_with_the_request_is_really_used(demo, picture):
    engine = local_engine(lambda options: None)
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
    assert Failed(torch.OutOfMemoryError("CUDA")).message.startswith("Out of memory")


def test_an_unforeseen_error_is_logged_and_told(picture, caplog):
    def load(options):
        raise LookupError("nobody thought of this")

    engine = local_engine(load)
    event = list(engine.submit([request(picture)]).events())[-1]
    assert event.message == "Something went wrong in the program (LookupError); see its log."
    assert "nobody thought of this" in caplog.text and "def load" not in event.message and event.error.kind == "LookupError"
    engine.close()


def test_an_error_of_the_disk_does_not_name_the_place_of_a_file():
    error = OSError(28, "No space left on device", "/home/me/outputs/00001.png")
    assert Failed(error).message == "Something went wrong in the program: OSError: No space left on device"
    assert "/home" not in Failed(OSError("nobody can read /home/me/outputs")).message
    assert "/home" not in Failed(OSError(28, "nobody can write /home/me/outputs")).message


def test_several_requests_are_one_job(engine, picture):
    results = engine.submit([request(picture, seed=seed) for seed in (1, 2)]).result()
    assert [result.seed for result in results] == [1, 2]


def test_what_is_neither_requests_nor_a_series_is_refused_at_once(engine, picture):
    with pytest.raises(TypeError, match="must be a list of requests or a Series, got generator"):
        engine.submit(request(picture) for _ in range(2))


class Seeded(Series):
    """A request for each seed."""

    def __init__(self, picture, seeds, **fields):
        self.picture, self.items, self.fields = picture, seeds, fields

    def make(self, item, here):
        return request(self.picture, seed=item, **self.fields)


def test_a_prompt_is_encoded_once_for_many_jobs(engine, demo, picture, monkeypatch):
    texts = []
    encode = demo.encode_prompts
    monkeypatch.setattr(demo, "encode_prompts", lambda prompts, how: texts.extend(prompts) or encode(prompts, how))
    for _ in range(2):
        engine.submit([request(picture, prompt="a house nobody asked for yet")]).result()
    assert texts.count("a house nobody asked for yet") == 1


@pytest.fixture
def recorded(demo, gate, tmp_path):
    """A gated engine with a journal."""
    engine = local_engine(lambda options: demo, hooks=[gate], journal=Journal(tmp_path))
    yield engine
    gate.opened.set()
    engine.close()


def states(engine) -> dict[str, tuple[str, int]]:
    """Id → state and number of pictures of each entry."""
    return {entry.id: (entry.state, len(entry.pictures)) for entry in engine.journal.search()}


def test_the_journal_follows_a_job(recorded, gate, picture, tmp_path):
    job = recorded.submit([request(picture, outpath_samples=str(tmp_path))], "one", client=Client("me"), mode="inpaint")
    assert gate.reached.wait(30) and states(recorded) == {"one": ("running", 0)}
    waiting = recorded.submit([request(picture, outpath_samples=str(tmp_path))], "two")
    assert states(recorded)["two"] == ("queued", 0)
    gate.opened.set()
    paths = job.result()[0].paths
    assert waiting.result() and states(recorded) == {"one": ("done", 1), "two": ("done", 1)}
    entry = recorded.journal.entry("one")
    assert (entry.client, entry.mode, entry.model) == ("me", "inpaint", "demo-model")
    assert [str(kept.path) for kept in entry.pictures] == paths and entry.pictures[0].infotext.startswith("Steps: 4")


@pytest.mark.parametrize("fields", [{}, {"outpath_samples": "here", "do_not_save_samples": True}])
def test_what_is_not_saved_leaves_no_trace(recorded, gate, picture, fields):
    gate.opened.set()
    recorded.submit([request(picture, **fields)]).result()
    assert states(recorded) == {}


def test_what_became_of_a_job_is_recorded(recorded, gate, picture, tmp_path):
    jobs = [recorded.submit([request(picture, outpath_samples=str(tmp_path))], name) for name in ("stopped", "dropped")]
    bad = recorded.submit([request(picture, outpath_samples=str(tmp_path), prompt=["one", "two"], seed=[1])], "bad")
    assert gate.reached.wait(30)
    recorded.interrupt("stopped")
    recorded.interrupt("dropped")
    gate.opened.set()
    list(jobs[0].events()), list(bad.events())
    assert states(recorded) == {"stopped": ("interrupted", 1), "dropped": ("interrupted", 0), "bad": ("failed", 0)}
    assert "seed must have one value per picture (2), got 1" in recorded.journal.entry("bad").message


def test_beyond_its_bound_a_clients_job_is_refused_and_nothing_else_changes(recorded, gate, picture, tmp_path):
    def submit(name, client):
        return recorded.submit([request(picture, outpath_samples=str(tmp_path))], name, client=Client(client))

    recorded.limits = Limits(waiting=2)
    running = submit("running", "me")
    assert gate.reached.wait(30)
    waiting = [submit(f"waiting {number}", "me") for number in range(2)]
    with pytest.raises(TooMany, match="You have 2 jobs waiting already; wait for one to end or interrupt one."):
        submit("refused", "me")
    waiting.append(submit("another's", "you"))
    recorded.interrupt("waiting 0")
    waiting.append(submit("after that", "me"))
    gate.opened.set()
    assert running.result() and [job.result() for job in waiting[1:]]
    assert states(recorded).keys() == {"running", "waiting 0", "waiting 1", "another's", "after that"}


def test_jobs_that_come_at_once_keep_the_bound(gated, gate, picture):
    gated.limits = Limits(waiting=3)
    running = gated.submit([request(picture)])
    assert gate.reached.wait(30)

    def submit(_):
        with suppress(TooMany):
            gated.submit([request(picture)], client=Client("me"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(submit, range(16)))
    assert len(gated.jobs()) == 1 + 3
    gate.opened.set()
    assert running.result()


@pytest.mark.parametrize("fields, pictures", [
    ({"batch_size": 2, "n_iter": 3}, 6),
    ({"script_name": "Loopback", "script_args": [3, 0.5, "Linear", "None"]}, 3),
], ids=["batches", "a script's passes"])
def test_the_quota_counts_every_picture_that_is_made(demo, picture, fields, pictures):
    for quota, made in ((pictures, True), (pictures - 1, False)):
        engine = local_engine(lambda options: demo, limits=Limits(pictures=quota))
        try:
            engine.submit([request(picture, steps=1, **fields)]).result()
            assert made
        except TooMany:
            assert not made
        engine.close()


def test_of_requests_that_are_made_as_they_run_each_counts_as_it_begins(demo, picture):
    engine = local_engine(lambda options: demo, limits=Limits(pictures=2))
    job = engine.submit(Seeded(picture, range(3), steps=1))
    with pytest.raises(TooMany, match="there is room for 1 more in 60 minutes"):
        job.result()
    engine.close()


def test_requests_that_are_made_as_they_run_are_recorded_one_by_one(recorded, gate, picture, tmp_path):
    gate.opened.set()
    recorded.submit(Seeded(picture, (1, 2), outpath_samples=str(tmp_path)), "all").result()
    assert states(recorded) == {"all-0": ("done", 1), "all-1": ("done", 1)}


def test_a_journal_that_cannot_be_written_costs_no_picture(recorded, gate, picture, tmp_path):
    recorded.journal.close()
    gate.opened.set()
    assert recorded.submit([request(picture, outpath_samples=str(tmp_path))]).result()[0].paths[0]


def test_memory_kept_for_the_next_job_is_given_back_once_nothing_was_asked_for_a_while(demo, picture, monkeypatch):
    given_back = threading.Semaphore(0)
    monkeypatch.setattr("pipeline.engine.PAUSE", 0.01)
    monkeypatch.setattr("pipeline.allocator.give_back", given_back.release)
    engine = local_engine(lambda options: demo)
    try:
        assert given_back.acquire(timeout=30)
        assert not given_back.acquire(timeout=0.2)  # only once
        engine.submit([request(picture)]).result()
        assert given_back.acquire(timeout=30)
    finally:
        engine.close()

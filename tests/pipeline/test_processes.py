"""Workers in processes of their own: one that is killed is replaced, and its job goes on; several share one queue."""

import os
import signal
import time
from threading import Event

import pytest

from pipeline.device import DeviceWorker
from pipeline.engine import LocalEngine
from pipeline.errors import InvalidRequest, WorkerGone, WorkerLost
from pipeline.hooks import Hooks
from pipeline.limits import Client, Limits
from pipeline.processes import SILENCE, ProcessWorker
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.styles import StyleDatabase
from pipeline.worker import Sampled, Wishes
from tests.conftest import DEMO_MODEL

SMALL = {"width": 64, "height": 64, "steps": 6, "seed": 1, "sampler_name": "Euler a"}
PATIENCE = 120.0
"""Seconds."""


class Deadly(Hooks):
    """Kills its process at the model calls that a file counts down to, or waits while a file is there."""

    def __init__(self, folder):
        self.folder = folder

    def on_mask_blend(self, p, mba):
        if p.prompt == "die" and not mba.is_final_blend and (lives := self.folder / "deaths").exists():
            deaths = int(lives.read_text())
            if mba.denoiser.call == 3 and deaths:
                lives.write_text(str(deaths - 1))
                os.kill(os.getpid(), signal.SIGKILL)
        if p.prompt == "stop" and not mba.is_final_blend and mba.denoiser.call == 3 and (file := self.folder / "stops").exists():
            file.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        while p.prompt == "hold" and (self.folder / f"hold {p.seed}").exists():
            (self.folder / f"reached {p.seed}").write_text(str(os.getpid()))
            time.sleep(0.01)


def worker_in(folder):
    from pipeline.families import describe, load, placement

    model = load(DEMO_MODEL, placement.choose("cpu", "float32"), describe(DEMO_MODEL))
    return DeviceWorker(lambda options: model, [Deadly(folder)], keep_every=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def workers(folder):
    workers = {name: ProcessWorker(name, worker_in, folder) for name in ("cpu #1", "cpu #2")}
    yield workers
    for worker in workers.values():
        worker.close()


@pytest.fixture
def engine(workers):
    engine = LocalEngine(workers)
    yield engine
    engine.close()


@pytest.fixture
def request_for(picture, mask):
    return lambda **fields: StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask, **SMALL | fields)


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def held(folder, request_for):
    """Makes a request that holds until it is let go, by its seed."""
    def make(seed):
        (folder / f"reached {seed}").unlink(missing_ok=True)
        (folder / f"hold {seed}").touch()
        return request_for(prompt="hold", seed=seed)

    yield make
    for file in folder.glob("hold *"):
        file.unlink()


def reached(folder, *seeds):
    wait_until(lambda: all((folder / f"reached {seed}").exists() for seed in seeds))


def let_go(folder, seed):
    (folder / f"hold {seed}").unlink()


def die(folder, times):
    (folder / "deaths").write_text(str(times))


def test_a_killed_worker_is_replaced_and_its_job_goes_on(engine, folder, request_for):
    die(folder, 0)
    whole = engine.submit([request_for(prompt="die")]).result()[0]
    die(folder, 1)
    again = engine.submit([request_for(prompt="die")]).result()[0]
    assert [image.tobytes() for image in again.images] == [image.tobytes() for image in whole.images]
    assert again.infotexts == whole.infotexts and whole.comments == []
    assert len(again.comments) == 1 and "ended unexpectedly, so another one continued its work" in again.comments[0]


def test_a_worker_that_hangs_is_replaced_and_its_job_goes_on(engine, workers, folder, request_for):
    whole = engine.submit([request_for(prompt="stop")]).result()[0]
    (folder / "stops").touch()
    job = engine.submit([request_for(prompt="stop")])
    wait_until(lambda: not (folder / "stops").exists())
    for worker in workers.values():
        worker._line.silence = 2.0
    again = job.result()[0]
    assert [image.tobytes() for image in again.images] == [image.tobytes() for image in whole.images]
    assert len(again.comments) == 1 and "ended unexpectedly, so another one continued its work" in again.comments[0]
    for worker in workers.values():
        worker._line.silence = SILENCE


def test_a_divided_job_survives_a_killed_helper(workers, folder, request_for):
    die(folder, 0)
    one = LocalEngine(dict(list(workers.items())[:1]))
    whole = one.submit([request_for(prompt="die", n_iter=3)]).result()[0]
    one.close()
    die(folder, 1)
    both = LocalEngine(workers)
    again = both.submit([request_for(prompt="die", n_iter=3)]).result()[0]
    both.close()
    assert [image.tobytes() for image in again.images] == [image.tobytes() for image in whole.images]
    assert again.infotexts == whole.infotexts
    assert len(again.comments) == 1 and "ended unexpectedly, so another one continued its work" in again.comments[0]


class Mortal(DeviceWorker):
    """Is lost in the middle of its first runs."""

    def __init__(self, demo, deaths):
        super().__init__(lambda options: demo, keep_every=0.0)
        self.deaths, self.given = deaths, []

    def run(self, request, styles, tell, wishes, kept=b""):
        self.given.append(len(kept))

        def told(news):
            tell(news)
            if isinstance(news, Sampled) and news.step == 1 + len(self.given) and self.deaths:
                self.deaths -= 1
                raise WorkerLost("It ended.")

        return super().run(request, styles, told, wishes, kept)


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_a_job_survives_two_deaths_and_no_third(demo, request_for, deaths):
    worker = Mortal(demo, deaths)
    engine = LocalEngine(worker, limits=Limits(pictures=1))
    job = engine.submit([request_for()], client=Client("me"))
    if deaths == 3:
        with pytest.raises(WorkerLost):
            job.result()
    else:
        processed = job.result()[0]
        assert processed.images and len(processed.comments) == 1
    assert len(worker.given) == min(deaths, 2) + 1
    assert worker.given[0] == 0 and all(later > before for before, later in zip(worker.given, worker.given[1:]))
    engine.close()


class Gone(DeviceWorker):
    """Works until its machine is gone."""

    def __init__(self, demo):
        super().__init__(lambda options: demo, keep_every=0.0)
        self.runs = 0

    def run(self, request, styles, tell, wishes, kept=b""):
        self.runs += 1
        if self.runs > 1:
            raise WorkerGone("It cannot be started again.")

        def told(news):
            tell(news)
            if isinstance(news, Sampled) and news.step == 3:
                raise WorkerLost("It ended.")

        return super().run(request, styles, told, wishes, kept)


def test_a_job_whose_workers_machine_is_gone_goes_on_once_another_worker_is_idle(demo, request_for, folder, held):
    gone, other = Gone(demo), DeviceWorker(lambda options: demo, [Deadly(folder)])
    engine = LocalEngine({"other": other, "gone": gone})
    busy = engine.submit([held(51)])
    reached(folder, 51)
    assert engine.workers()[0].job == busy.id
    job = engine.submit([request_for()])
    wait_until(lambda: gone.runs == 2)
    assert job.state == "running"
    let_go(folder, 51)
    processed, alone = job.result()[0], LocalEngine(other)
    assert processed.images[0].tobytes() == alone.submit([request_for()]).result()[0].images[0].tobytes() and len(processed.comments) == 1
    assert [(state.name, state.job, state.in_service) for state in engine.workers()] == [("other", None, True), ("gone", None, False)]
    assert engine.submit([request_for()]).result() and gone.runs == 2
    alone.close()
    engine.close()


def test_a_job_of_the_only_worker_fails_if_that_is_gone_and_the_next_one_may_find_it_again(demo, request_for):
    engine = LocalEngine(Gone(demo))
    with pytest.raises(WorkerGone):
        engine.submit([request_for()]).result()
    assert engine.workers()[0].in_service
    engine.close()


def test_a_worker_that_still_loads_a_model_keeps_no_job_waiting(demo, request_for):
    go_on, free = Event(), DeviceWorker(lambda options: demo)
    engine = LocalEngine({"slow": DeviceWorker(lambda options: go_on.wait(PATIENCE) and demo), "free": free})
    assert engine.preload().result() == []
    wait_until(lambda: [state.loading for state in engine.workers()] == [True, False])
    assert engine.submit([request_for()]).result()
    go_on.set()
    engine.close()


def test_a_users_error_is_not_tried_again(engine, request_for):
    with pytest.raises(InvalidRequest, match="seed must have one value per picture"):
        engine.submit([request_for(prompt=["one", "two"], seed=[1])]).result()


def test_two_jobs_run_at_once_and_each_is_interrupted_on_its_own(engine, folder, held):
    one, two, third = (engine.submit([held(seed)], f"job {seed}", Client(str(seed))) for seed in (11, 12, 13))
    reached(folder, 11, 12)
    assert [job.state for job in (one, two, third)] == ["running", "running", "queued"]
    assert engine.find().id == "job 11" and third.newest()[1].place == 2
    assert {state.job for state in engine.workers()} == {"job 11", "job 12"}
    engine.interrupt("job 12")
    let_go(folder, 12)
    assert two.result()[0].interrupted
    reached(folder, 13)
    for seed in (11, 13):
        let_go(folder, seed)
    assert not one.result()[0].interrupted and not third.result()[0].interrupted


def test_a_worker_out_of_service_takes_no_job(engine, folder, held, request_for):
    engine.put_in_service("cpu #2", False)
    one, two = (engine.submit([held(seed)], f"job {seed}") for seed in (21, 22))
    reached(folder, 21)
    first, second = engine.workers()
    assert (first.job, second.job, second.in_service, two.state) == ("job 21", None, False, "queued")
    engine.put_in_service("cpu #2", True)
    reached(folder, 22)
    for seed in (21, 22):
        let_go(folder, seed)
    assert one.result() and two.result()
    wait_until(lambda: all(state.job is None for state in engine.workers()))
    assert all(state.model == "demo-model" and state.pictures_per_minute > 0 for state in engine.workers())
    with pytest.raises(InvalidRequest, match='no worker called "cuda:7"'):
        engine.put_in_service("cuda:7", False)


def test_closing_ends_all_jobs(workers, folder, held):
    engine = LocalEngine(workers)
    jobs = [engine.submit([held(seed)]) for seed in (31, 32, 33)]
    reached(folder, 31, 32)
    engine.close(timeout=0)
    for seed in (31, 32):
        let_go(folder, seed)
    wait_until(lambda: all(job.state == "done" for job in jobs))
    engine.close()


def test_a_preloaded_model_is_in_all_workers(engine):
    assert engine.preload().result() == []
    wait_until(lambda: all(state.model == "demo-model" and not state.loading for state in engine.workers()))


def test_a_reader_that_is_slow_gets_the_newest_step_only(workers, request_for):
    said = []

    def slow(news):
        if isinstance(news, Sampled):
            said.append(news)
            time.sleep(0.5)

    result = workers["cpu #1"].run(request_for(steps=30), StyleDatabase(), slow, Wishes())
    assert result.images and len(said) < 20 and [news.step for news in said] == sorted(news.step for news in said)


def test_a_worker_that_cannot_start_fails_its_job_with_a_sentence(request_for):
    worker = ProcessWorker("cpu", int, "this is no worker")
    with pytest.raises(WorkerLost, match="The worker on cpu ended unexpectedly; see the log"):
        worker.run(request_for(), StyleDatabase(), lambda news: None, Wishes())
    worker.close()

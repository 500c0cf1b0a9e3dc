"""A run that was interrupted, by its user or by a crash, continues to the pixels that it would have given."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app import resume
from pipeline.device import DeviceWorker
from pipeline.journal import Journal
from pipeline.kept import Kept, KeptFiles, piece, pieces
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.samplers import SAMPLERS
from pipeline.styles import StyleDatabase
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.worker import Keep, Wishes

SMALL = {"width": 64, "height": 64, "steps": 6, "seed": 1, "sampler_name": "Euler a", "denoising_strength": 0.9}


ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Ends a run as if its process had ended."""


class Bench:
    """Runs requests with the demo model, and counts its calls."""

    def __init__(self, demo, monkeypatch):
        self.calls, self.dies_at = 0, None
        ask = demo.denoise

        def counted(*args):
            self.calls += 1
            if self.calls == self.dies_at:
                raise Killed
            return ask(*args)

        monkeypatch.setattr(demo, "denoise", counted)
        self.load = lambda options: demo

    def run(self, p, kept=b"", *, wishes=None, keep_every=0.0, tell=lambda news: None, dies_at=None):
        """(the result, None if it died; what it kept; its calls of the model)"""
        self.calls, self.dies_at, said = 0, dies_at, [kept]

        def take(news):
            if isinstance(news, Keep):
                said.append(news.data)
            tell(news)

        try:
            result = DeviceWorker(self.load, keep_every=keep_every).run(p, StyleDatabase(), take, wishes or Wishes(), kept)
        except Killed:
            result = None
        return result, b"".join(said), self.calls


@pytest.fixture
def bench(demo, monkeypatch):
    return Bench(demo, monkeypatch)


def told(processed):
    return ([image.tobytes() for image in processed.images], processed.infotexts, processed.all_seeds,
            [image.info.get("palimpsest") for image in processed.images], processed.comments, processed.interrupted)


def check_continues(bench, p, dies_at=None):
    """It dies at a call, and goes on from there."""
    whole, _, calls = bench.run(p)
    dies_at = dies_at or max(calls * 2 // 3, 1)
    died, kept, _ = bench.run(p, dies_at=dies_at)
    assert died is None
    again, _, more = bench.run(p, kept)
    assert told(again) == told(whole)
    assert more == calls - (dies_at - 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_continues_in_the_middle(bench, picture, mask, name):
    check_continues(bench, StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask, **SMALL | {"sampler_name": name}))


KINDS = {
    "eta and churn": {"eta": 0.6, "s_churn": 0.5, "s_noise": 1.02, "sampler_name": "Euler"},
    "batches": {"batch_size": 2, "n_iter": 3, "sampler_name": "DPM++ SDE"},
    "soft inpainting": {"alwayson_scripts": {"Soft Inpainting": {"args": [True]}}},
    "a variation": {"subseed": 4, "subseed_strength": 0.4},
    "an upscale in tiles": {"script_name": "SD upscale", "script_args": [None, 16, "Lanczos", 1.5]},
    "passes on one another": {"script_name": "Loopback", "script_args": [3, 0.5, "Linear", "None"]},
    "prompts of one seed": {"prompt": "mill", "script_name": "X/Y/Z plot", "script_args": [
        "Prompt S/R", "mill,sea", None, *["Nothing", "", None] * 2, *[False] * 7, 0, True]},
    "noise found in the source": {"script_name": "img2img alternative test", "script_args": [
        None, True, True, "", "", True, 4, True, 1.0, 0.0, False]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_continues(bench, picture, mask, kind):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], mask=mask, **SMALL | KINDS[kind])
    whole, _, calls = bench.run(p)
    for dies_at in (1, calls // 2, calls):
        died, kept, _ = bench.run(p, dies_at=dies_at)
        again, _, more = bench.run(p, kept)
        assert died is None and told(again) == told(whole)
        assert more <= calls - (dies_at - 1) + (4 if kind == "noise found in the source" else 0)


def test_a_picture_from_noise_continues(bench):
    check_continues(bench, StableDiffusionProcessingTxt2Img(**SMALL | {"n_iter": 2}), dies_at=9)


def test_random_seeds_are_drawn_again(bench, picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL | {"seed": -1, "subseed_strength": 0.2})
    died, kept, _ = bench.run(p, dies_at=4)
    one, two = (told(bench.run(p, kept)[0]) for _ in range(2))
    assert died is None and one == two and told(bench.run(p)[0]) != one


def test_an_interrupted_run_continues_more_than_once(bench, picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL | {"n_iter": 2})
    whole, _, calls = bench.run(p)
    kept = b""
    for turn in range(3):
        _, kept, made = bench.run(p, kept, dies_at=4)
        assert made == 4
    again, _, more = bench.run(p, kept)
    assert told(again) == told(whole) and more == calls - 9


def test_what_the_user_interrupted_is_kept_to_the_last_call(bench, picture):
    p, wishes = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL), Wishes()
    whole, _, calls = bench.run(p)
    cut, kept, made = bench.run(p, wishes=wishes, keep_every=100,
                                tell=lambda news: getattr(news, "step", 0) == 3 and wishes.wish(interrupted=True))
    again, _, more = bench.run(p, kept)
    assert cut.interrupted and told(again) == told(whole) and made + more == calls


def test_a_skipped_batch_does_not_spoil_the_next(bench, picture):
    p, wishes = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL | {"n_iter": 2}), Wishes()
    whole, _, calls = bench.run(p)
    skip = [lambda: wishes.skip()]
    _, kept, _ = bench.run(p, wishes=wishes, dies_at=5, tell=lambda news: getattr(news, "step", 0) == 2 and skip and skip.pop()())
    again, _, more = bench.run(p, kept)
    assert told(again) == told(whole) and more == calls - 4


def test_files_are_replaced_and_not_made_twice(bench, picture, tmp_path):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], outpath_samples=str(tmp_path), **SMALL | {"n_iter": 3, "seed": 5})
    _, kept, _ = bench.run(p, dies_at=13)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.png")}
    again, kept, _ = bench.run(p, kept)
    assert len(before) == 2 and len(list(tmp_path.rglob("*.png"))) == 3
    assert all(file.read_bytes() == data for file, data in before.items()) and list(map(str, before)) != again.paths
    bench.run(p, kept)
    assert len(list(tmp_path.rglob("*.png"))) == 3


def test_other_circumstances_are_noticed(bench, picture, monkeypatch):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL)
    _, _, calls = bench.run(p)
    _, kept, _ = bench.run(p, dies_at=4)
    monkeypatch.setattr("pipeline.receipt.__version__", "another")
    assert bench.run(p, kept)[2] == calls


def test_a_network_that_remembers_its_calls_gets_them_all(bench, picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], **SMALL, override_settings={"step_cache_interval": 3})
    whole, _, calls = bench.run(p)
    _, kept, _ = bench.run(p, dies_at=4)
    again, _, more = bench.run(p, kept)
    assert told(again) == told(whole) and more == calls


def test_what_is_kept_is_bounded(picture):
    def answers(kept):
        return [len(header["answers"]) for header, *_ in pieces(kept)]

    said = []
    kept = Kept(keep=said.append, pause=0.0, limit=100)
    for _ in range(5):
        kept.answer(lambda x, t: x, torch.zeros(10), torch.zeros(1))
    kept.flush()
    assert sum(answers(b"".join(said))) == 3
    assert torch.equal(Kept(b"".join(said), keep=said.append).answer(lambda x, t: 1 / 0, torch.zeros(10), torch.zeros(1)), torch.zeros(10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_answer_comes_back_with_its_type_and_layout(dtype):
    given = torch.randn(2, 4, 8, 8).to(dtype).to(memory_format=torch.channels_last)
    said = []
    Kept(keep=said.append, pause=0.0).answer(lambda x, t: given, torch.zeros(1), torch.zeros(1))
    back = Kept(said[0], keep=said.append).answer(lambda x, t: 1 / 0, torch.zeros(1), torch.zeros(1))
    assert back.dtype == dtype and back.stride() == given.stride() and torch.equal(back, given)


def test_a_damaged_end_is_left_out(tmp_path):
    files, sound = KeptFiles(tmp_path), piece({"facts": {}, "answers": []}, b"one")
    for damaged in (sound[:-1], sound[:10], sound[:-1] + b"?"):
        files.append("a", sound + damaged)
        assert files.read("a") == sound
        files.append("a", sound)
        assert files.read("a") == 2 * sound
        files.drop("a")
    assert not files.has("a") and files.read("a") == b""


def test_the_oldest_go_first(tmp_path):
    files = KeptFiles(tmp_path, limit=250)
    for number, name in enumerate(("new", "old", "../older")):
        files.append(name, bytes(100))
        os.utime(max(tmp_path.iterdir(), key=lambda file: file.stat().st_ctime_ns), (100 - number, 100 - number))
    files.prune()
    assert [files.has(name) for name in ("new", "old", "../older")] == [True, True, False]


KILLED = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from pipeline.processing import StableDiffusionProcessingImg2Img
from tests.pipeline.test_kept import SMALL, engine_in

def dies(x, t, cond, image_cond, calls=[]):
    calls.append(1)
    if len(calls) == 16:
        os.kill(os.getpid(), signal.SIGKILL)
    return ask(x, t, cond, image_cond)

engine, model = engine_in(Path(sys.argv[1]))
ask, model.denoise = model.denoise, dies
p = StableDiffusionProcessingImg2Img(init_images=[Image.new("RGB", (64, 64), "red")], outpath_samples=sys.argv[1],
                                     **SMALL | {"n_iter": 4, "seed": -1})
engine.submit([p], "mine").result()
"""
"""An engine that keeps at once, in a program that is killed in the third of four batches."""


def engine_in(folder):
    from pipeline.engine import LocalEngine
    from pipeline.families import describe, load, placement
    from pipeline.journal import Journal
    from tests.conftest import DEMO_MODEL

    model = load(DEMO_MODEL, placement.choose("cpu", "float32"), describe(DEMO_MODEL))
    return LocalEngine(DeviceWorker(lambda options: model, keep_every=0.0), journal=Journal(folder)), model


def test_a_job_of_a_killed_program_is_continued(tmp_path, monkeypatch):
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT).returncode == -signal.SIGKILL
    engine, model = engine_in(tmp_path)
    calls, ask = [], model.denoise
    monkeypatch.setattr(model, "denoise", lambda *args: calls.append(1) or ask(*args))
    entry, = engine.journal.to_resume()
    before = {picture.path: picture.path.read_bytes() for picture in entry.pictures}
    resume(engine)
    result = engine.find("mine").result()[0]
    assert len(before) == 2 and len(calls) == 4 * 6 - 15
    assert all(str(path) in result.paths and path.read_bytes() == data for path, data in before.items())
    assert len(engine.journal.entry("mine").pictures) == 4 and engine.journal.entry("mine").state == "done"
    assert not engine.journal.interrupted()
    engine.close()
    engine.journal.close()


def test_a_job_that_ends_its_program_each_time_is_not_resumed_for_ever(tmp_path, picture):
    p = StableDiffusionProcessingImg2Img(init_images=[picture], outpath_samples=str(tmp_path), **SMALL)
    journal = Journal(tmp_path)
    journal.queued("mine", p)
    journal.running("mine", "demo-model")
    journal.kept.append("mine", piece({"facts": {}, "answers": []}, b""))
    for _ in range(2):
        journal.close()
        journal = Journal(tmp_path)
        entry, = journal.to_resume()
        journal.reopened(journal.to_continue(entry.id))
    journal.close()
    journal = Journal(tmp_path)
    assert journal.to_resume() == [] and journal.can_continue(journal.entry("mine"))
    journal.close()

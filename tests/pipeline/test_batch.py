"""Batch: a request per file; what fails is told, what was done is not done again."""

import inspect
import subprocess
import sys
import time

import pytest
from PIL import Image

from pipeline.batch import Batch, find_pictures, run, series
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest
from pipeline.hooks import Hooks
from pipeline.img2img import img2img
from pipeline.infotext import png_info
from pipeline.job import Failed, Finished, Job, Step
from pipeline.journal import Journal
from pipeline.limits import Client, Limits, Quota
from pipeline.metadata import metadata_of
from pipeline.series import SHOWN, Surroundings, Tally
from pipeline.shelf import Shelf
from pipeline.submission import Submission
from pipeline.worker import Sampled
from tests.conftest import ROOT

SMALL = {"width": 64, "height": 64, "steps": 2, "sampler_name": "Euler", "prompt": "a forest"}


@pytest.fixture
def folder(tmp_path, picture):
    """Files 1, 2 and 10, of 64, 64 and 32 pixels."""
    (tmp_path / "in").mkdir()
    for name, size in (("10.png", 32), ("2.jpg", 64), ("1.png", 64)):
        picture.resize((size, size)).save(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture
def recorded(demo, journal):
    """An engine with a journal."""
    engine = local_engine(lambda options: demo, journal=journal)
    yield engine
    engine.close()


def made(batch, **settings):
    """The requests of all files."""
    work = series(batch, SMALL | settings)
    return [work.make(file) for file in work.items]


def done(engine, pictures, **fields):
    """Do a folder with a journal, and give what came of it."""
    settings = SMALL | {"outpath_samples": str(engine.journal.folder / "img2img"), "seed": 1} | fields
    where = {name: settings.pop(name) for name in ("folder", "output_folder", "masks") if name in settings}
    batch = Batch(find_pictures(pictures), **where)
    event = list(run(engine, batch, **settings))[-1]
    assert isinstance(event, Finished), event
    return event.outcome


def counts(outcome):
    return outcome.made, outcome.already, len(outcome.failures)


# --- requests


def test_pictures_are_found_in_natural_order_and_in_folders(folder):
    (folder / "more").mkdir()
    (folder / "1.png").rename(folder / "more" / "1.PNG")
    (folder / "notes.txt").write_text("no picture")
    assert [file.name for file in find_pictures(folder)] == ["2.jpg", "10.png", "1.PNG"]


def test_digits_that_are_no_number_are_sorted_too(tmp_path):
    for name in ("x².png", "x1.png"):
        (tmp_path / name).write_bytes(b"")
    assert len(find_pictures(tmp_path)) == 2


def test_all_files_have_the_same_seed(folder):
    seeds = {(p.seed, p.subseed) for p in made(Batch(find_pictures(folder)), seed=-1)}
    assert len(seeds) == 1 and -1 not in seeds.pop()


def test_a_file_is_read_when_its_turn_comes(folder):
    work = series(Batch(find_pictures(folder)), SMALL)
    work.make(work.items[0])
    work.items[1].write_bytes(b"")
    with pytest.raises(InvalidRequest, match="2.jpg: the file is empty"):
        work.make(work.items[1])
    assert work.make(work.items[2]).init_images[0].size == (32, 32)


def test_each_picture_can_keep_its_own_proportions(folder):
    assert [(p.width, p.height) for p in made(Batch(find_pictures(folder), scale_by=1.5))] == [(96, 96), (96, 96), (48, 48)]


def test_masks_go_by_name_or_one_is_for_all(folder, tmp_path, mask):
    one, other = tmp_path / "2.png", tmp_path / "1.webp"
    mask.save(one)
    mask.save(other)
    assert [p.image_mask.size for p in made(Batch(find_pictures(folder), masks=[one]))] == [(64, 64), (64, 64), (32, 32)]
    work = series(Batch(find_pictures(folder), masks=[one, other]), SMALL)
    assert work.make(work.items[0]).image_mask.size == (64, 64)
    with pytest.raises(InvalidRequest, match="mask: none of the 2 masks has this file's name"):
        work.make(work.items[2])


def test_a_mask_that_is_all_black_is_refused_as_in_inpaint_upload(folder, tmp_path):
    Image.new("L", (64, 64)).save(tmp_path / "1.png")
    with pytest.raises(InvalidRequest, match="mask: it is all black"):
        made(Batch(find_pictures(folder), masks=[tmp_path / "1.png"]))


def test_infotext_is_taken_as_far_as_it_is_wanted(folder, picture):
    text = "an oak\nNegative prompt: snow\nSteps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 77, Model hash: 0123456789"
    picture.save(folder / "1.png", pnginfo=png_info(text))
    files = [folder / "1.png"]
    p, = made(Batch(files, reuse=("Prompt", "Seed", "Steps")), seed=5, negative_prompt="fog")
    assert (p.prompt, p.negative_prompt, p.seed, p.steps, p.cfg_scale) == ("a forest an oak", "fog", 77, 3, 7.0)
    everything = Batch(files, reuse=("Negative prompt", "CFG scale", "Sampler", "Model hash"))
    p = series(everything, SMALL | {"seed": 5}).make(files[0], Surroundings(has_model=lambda name: name == "0123456789"))
    assert (p.negative_prompt, p.cfg_scale, p.sampler_name, p.seed) == ("snow", 4.5, "Euler a", 5)
    assert p.options.sd_model_checkpoint == "0123456789"
    p, = made(everything)
    assert p.options.sd_model_checkpoint == ""


def test_infotext_can_lie_in_another_folder(folder, tmp_path, picture):
    (tmp_path / "info").mkdir()
    picture.save(tmp_path / "info" / "1.png", pnginfo=png_info("an oak\nSteps: 3, Sampler: Euler, Seed: 9"))
    files = [folder / "1.png", folder / "2.jpg"]
    first, second = made(Batch(files, reuse=["Seed"], info_folder=tmp_path / "info"), seed=5)
    assert (first.seed, second.seed) == (9, 5)


@pytest.mark.parametrize("batch, settings, sentence", [
    (Batch([]), {}, "init_images: no files"),
    (Batch([ROOT], reuse=["Size"]), {}, "reuse: Size cannot be reused; valid: Prompt"),
    (Batch([ROOT], scale_by=7), {}, "scale_by must be a number between 0.05 and 4, got 7"),
    (Batch([ROOT]), {"denoising_strength": 2}, "denoising_strength must be a number between 0 and 1, got 2"),
    (Batch([ROOT]), {"script_name": "nobody's"}, 'script_name: no script called "nobody\'s"')])
def test_what_would_fail_for_every_file_is_refused_at_once(batch, settings, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        series(batch, SMALL | settings)


# --- as a job


def test_what_cannot_be_done_is_told_and_the_rest_is_done(recorded, folder, picture):
    (folder / "0.png").write_bytes(b"no picture")
    picture.save(folder / "3.png", pnginfo=png_info("an oak\nSteps: 2000, Sampler: Euler, Seed: 9"))
    batch = Batch([*find_pictures(folder), folder / "gone.png"], reuse=["Steps"])
    event = list(run(recorded, batch, **SMALL, outpath_samples=str(recorded.journal.folder)))[-1]
    assert [name for name, _ in event.outcome.failures] == ["0.png", "3.png", "gone.png"]
    unreadable, out_of_range, gone = [why for _, why in event.outcome.failures]
    assert unreadable.startswith("the file is not a picture") and gone.startswith("the file cannot be opened")
    assert "steps must be a whole number between 1 and 1000" in out_of_range
    assert event.outcome.made == 3 and event.results == []


class Failing(Hooks):
    """Runs out of memory, or stumbles, where the prompt says so."""

    def process(self, p, *_):
        if p.width == 96:
            raise MemoryError
        if p.width == 48:
            raise LookupError("nobody thought of this")


def test_an_error_inside_or_of_memory_ends_its_file_only(demo, folder, picture, journal, caplog):
    picture.resize((32, 32)).save(folder / "10.png")
    picture.resize((48, 48)).save(folder / "3.png")
    engine = local_engine(lambda options: demo, hooks=[Failing()], journal=journal)
    event = list(run(engine, Batch(find_pictures(folder)), selected_scale_tab=1, scale_by=1.5,
                     **SMALL, outpath_samples=str(journal.folder)))[-1]
    engine.close()
    assert isinstance(event, Finished) and counts(event.outcome) == (1, 0, 3)
    assert {entry.state for entry in journal.search()} == {"done", "failed"} and len(journal.search()) == 4


def test_results_are_saved_under_their_files_names(recorded, folder, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        done(recorded, folder, output_folder=out, resume=False)
    assert sorted(file.name for file in out.iterdir()) == ["1-1.png", "1.png", "10-1.png", "10.png", "2-1.png", "2.png"]
    assert Image.open(out / "10.png").size == (64, 64)


def test_events_tell_the_file_the_share_of_the_whole_and_the_pictures_so_far(recorded, folder):
    events = list(run(recorded, Batch(find_pictures(folder)), **SMALL, outpath_samples=str(recorded.journal.folder)))
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.fraction for step in steps] == sorted(step.fraction for step in steps) and steps[-1].fraction <= 1
    assert all(step.fraction >= (step.item - 1) / 3 for step in steps) and {step.item for step in steps} <= {1, 2, 3}
    assert all(step.outcome.items == 3 and step.outcome.made <= step.item for step in steps)
    assert len(events[-1].outcome.pictures) == 3 and events[-1].outcome.pictures[0][1].startswith("a forest\n")


def test_the_time_left_counts_only_files_that_were_done_now(folder):
    submission = Submission(Job(), series(Batch([folder] * 10), SMALL), Surroundings(), quota=Quota(0), shelf=Shelf())
    submission._item, submission._gone_over, submission._started = 8, 8, time.monotonic() - 10
    submission.take(Sampled(step=1, steps=2))
    _, step = submission.job.newest()
    assert step.eta == pytest.approx(30, rel=0.01)  # half a file took 10 s; one and a half are to go


def test_only_the_newest_pictures_are_remembered(recorded, folder, tmp_path):
    outcome = done(recorded, folder, n_iter=15, steps=1)
    assert len(outcome.pictures) == SHOWN == 32 and outcome.made == 3
    assert [entry.id for entry in recorded.journal.search()][0].endswith("-2")


def meanwhile(engine, batch, act, **settings):
    """What a batch ends with where something is done once, while its second file is sampled."""
    for event in run(engine, batch, **SMALL | {"steps": 40}, outpath_samples=str(engine.journal.folder), **settings):
        if act is not None and isinstance(event, Step) and event.item == 2 and 0 < event.step < event.steps:
            act()
            act = None
    assert act is None
    return event


@pytest.mark.parametrize("act, states", [
    ("interrupt", {"all-0": "done", "all-1": "interrupted"}),
    ("skip", {"all-0": "done", "all-1": "interrupted", "all-2": "done"})])
def test_interrupt_ends_the_batch_and_skip_the_file(recorded, folder, act, states):
    event = meanwhile(recorded, Batch(find_pictures(folder)), getattr(recorded, act), job_id="all")
    assert {entry.id: entry.state for entry in recorded.journal.search()} == states
    assert (event.outcome.made, event.outcome.cut) == (len(states) - 1, 1) and len(event.outcome.pictures) == len(states)


def test_a_cancelled_batch_ends(recorded, folder):
    event = meanwhile(recorded, Batch(find_pictures(folder)), lambda: recorded.find().cancel())
    assert isinstance(event, Failed) and len(recorded.journal.search()) == 2


def test_a_quota_that_is_used_up_ends_the_batch(demo, folder, journal):
    engine = local_engine(lambda options: demo, journal=journal, limits=Limits(pictures=2))
    fields = SMALL | {"outpath_samples": str(journal.folder)}
    event = list(run(engine, Batch(find_pictures(folder)), client=Client("me"), **fields))[-1]
    engine.close()
    assert isinstance(event, Failed) and "2 pictures" in event.message


# --- a second start


def test_a_second_start_skips_what_is_done_and_shows_it(recorded, folder, tmp_path):
    first = done(recorded, folder)
    again = done(recorded, folder)
    assert counts(first) == (3, 0, 0) and counts(again) == (0, 3, 0) and again.pictures == first.pictures
    assert counts(done(recorded, folder, resume=False)) == (3, 0, 0)


@pytest.mark.parametrize("change, to_do", [
    ({"steps": 3}, 3), ({"prompt": "a lake"}, 3), ({"seed": 2}, 3), ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, 3),
    ({"override_settings": {"show_progress_type": "Full"}}, 0)])
def test_what_decides_the_picture_decides_whether_it_is_done(recorded, folder, change, to_do):
    done(recorded, folder)
    assert done(recorded, folder, **change).made == to_do


def test_a_random_seed_is_no_difference(recorded, folder):
    done(recorded, folder, seed=-1)
    assert counts(done(recorded, folder, seed=-1)) == (0, 3, 0)
    assert counts(done(recorded, folder, seed=5)) == (3, 0, 0)


def test_another_picture_another_mask_or_a_lost_result_is_done_again(recorded, folder, tmp_path, picture, mask):
    one = tmp_path / "mask.png"
    mask.save(one)
    first = done(recorded, folder, masks=[one])
    assert counts(done(recorded, folder, masks=[one])) == (0, 3, 0)
    picture.rotate(90).save(folder / "1.png")
    recorded.journal.folder.joinpath(first.pictures[1][0]).unlink()
    assert counts(done(recorded, folder, masks=[one])) == (2, 1, 0)
    mask.rotate(10).save(one)
    assert counts(done(recorded, folder, masks=[one])) == (3, 0, 0)


def test_results_count_where_they_would_go_now(recorded, folder, tmp_path):
    out = tmp_path / "out"
    done(recorded, folder)
    assert counts(done(recorded, folder, output_folder=out)) == (3, 0, 0)
    assert counts(done(recorded, folder, output_folder=out)) == (0, 3, 0)
    (out / "2.png").rename(tmp_path / "2.png")
    assert counts(done(recorded, folder, output_folder=out)) == (1, 2, 0)


def test_the_same_picture_under_two_names_is_done_under_both(recorded, folder, tmp_path, picture):
    picture.save(folder / "20.png")
    assert counts(done(recorded, folder, output_folder=tmp_path / "out")) == (4, 0, 0)
    assert (tmp_path / "out" / "20.png").exists()


def test_on_a_shared_page_only_ones_own_jobs_count(recorded, folder):
    done(recorded, folder, client=Client("me"))
    assert done(recorded, folder, client=Client("you"), mine_only=True).already == 0
    assert done(recorded, folder, client=Client("you")).already == 3


KILLED = """
import sys, time
from pathlib import Path
from pipeline.batch import Batch, find_pictures, series
from pipeline.job import Job
from pipeline.journal import Journal
from pipeline.limits import Quota
from pipeline.processed import Processed
from pipeline.saving import save_under
from pipeline.series import Surroundings
from pipeline.shelf import Shelf
from pipeline.submission import Submission
from pipeline.worker import Saving

def process(p, kept):
    if p.samples_filename == "10":
        print("third", flush=True)
        time.sleep(60)
    image = p.init_images[0]
    image.info["parameters"] = "a forest"
    path = save_under(image, p.outpath_samples, stem=p.samples_filename, announce=lambda path: submission.take(Saving(path, "a forest")))
    return Processed([image], ["a forest"], [path], 0, [], [], [], [], [])

inputs, outputs = map(Path, sys.argv[1:])
work = series(Batch(find_pictures(inputs), output_folder=outputs / "out"),
              dict(width=64, height=64, steps=2, sampler_name="Euler", prompt="a forest", seed=-1))
submission = Submission(Job(), work, Surroundings(Journal(outputs)), quota=Quota(0), shelf=Shelf())
submission.run(process)
"""
"""A batch without a model, which stops at its third file."""


def test_a_batch_that_was_killed_goes_on_where_it_stopped(demo, folder, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(tmp_path / "outputs")], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "third\n"
    process.kill()
    process.wait(30)
    engine = local_engine(lambda options: demo, journal=Journal(tmp_path / "outputs"))
    assert [entry.state for entry in engine.journal.search()] == ["interrupted", "done", "done"]
    outcome = done(engine, folder, output_folder=tmp_path / "outputs" / "out", seed=-1)
    engine.close()
    assert counts(outcome) == (1, 2, 0)
    assert sorted(file.name for file in (tmp_path / "outputs" / "out").iterdir()) == ["1.png", "10.png", "2.png"]


def test_a_batch_takes_the_keywords_of_a_single_edit():
    single, several = (set(inspect.signature(function).parameters) for function in (img2img, run))
    assert single - {"mode", "source"} <= several


# --- names, masks and EXIF


def test_every_format_of_uploads_is_found_and_nothing_hidden(tmp_path):
    wanted = ["a.avif", "b.bmp", "c.gif", "d.heic", "e.jfif", "f.JPG", "g.png", "h.tiff", "i.webp"]
    for name in (*wanted, "._g.png", ".png", "notes.txt", ".thumbnails/x.png", "sub/._y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_pictures(tmp_path)] == wanted


@pytest.fixture
def tree(tmp_path, picture):
    """Two folders that hold a picture of the same name."""
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        picture.rotate(90 * (name > "b")).save(tmp_path / "in" / name)
    return tmp_path / "in"


def test_files_of_the_same_name_are_told_and_saved_apart(recorded, tree, tmp_path):
    (tree / "b" / "2.png").write_bytes(b"no picture")
    outcome = done(recorded, tree, folder=tree, output_folder=tmp_path / "out")
    assert [name for name, _ in outcome.failures] == ["b/2.png"]
    assert outcome.failures[0][1].startswith("the file is not a picture")
    assert sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.png")) == ["a/1.png", "b/1.png"]
    assert counts(done(recorded, tree, folder=tree, output_folder=tmp_path / "out")) == (0, 2, 1)  # both are known again


def test_uploads_of_the_same_name_are_numbered(tree):
    work = series(Batch(find_pictures(tree)), SMALL)
    tally = Tally(work)
    for file in work.items:
        tally.failed(file, "no")
    assert [name for name, _ in tally.outcome.failures] == ["1.png", "1.png (2)"]


def mask_at(path, white):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, white)
    mask.save(path)
    return path


def test_masks_are_found_by_name_by_name_and_mask_and_by_their_folder(tree, tmp_path):
    masks = [mask_at(tmp_path / "masks" / name, box) for name, box in (
        ("a/1.png", (0, 0, 8, 8)), ("b/1_mask.png", (8, 8, 16, 16)), ("1.png", (0, 0, 64, 64)))]
    requests = made(Batch(find_pictures(tree), tree, masks, tmp_path / "masks"), inpaint_full_res=False)
    assert [p.image_mask.getbbox() for p in requests] == [(0, 0, 8, 8), (8, 8, 16, 16)]
    with pytest.raises(InvalidRequest, match="none of the 2 masks has this file's name"):
        made(Batch([tree / "b" / "1.png"], tree, [masks[0], mask_at(tmp_path / "masks" / "2.png", (0, 0, 8, 8))], tmp_path / "masks"))


def test_where_some_have_masks_the_others_are_done_whole(folder):
    masks = [mask_at(folder / "1_mask.png", (0, 0, 8, 8))]
    first, second, third = made(Batch([folder / "1.png", folder / "2.jpg", folder / "10.png"], folder, masks, folder, True))
    assert first.image_mask is not None and second.image_mask is third.image_mask is None
    assert first.comments == [] and second.comments == ["Pictures without a mask called NAME_mask were processed whole."]


def test_what_a_mask_was_taken_for_is_told_once(recorded, folder, tmp_path):
    red = Image.new("RGB", (64, 64), "black")
    red.paste((255, 0, 0), (16, 16, 48, 48))
    red.save(tmp_path / "red.png")
    outcome = done(recorded, folder, masks=[tmp_path / "red.png"])
    assert outcome.comments == ("The mask has colours; coloured parts were treated as white.",)
    assert made(Batch([folder / "1.png"], masks=[tmp_path / "red.png"]))[0].image_mask.getextrema() == (0, 255)


def test_a_sources_exif_is_kept_where_that_is_wanted(recorded, tmp_path, picture):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera maker", 3
    exif.get_ifd(0x8769)[0x9003] = "2026:01:31 12:00:00"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0old\nSteps: 1, Seed: 2, Size: 8x8"
    exif.get_ifd(0x8825)[1] = "N"
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "1.jpg", exif=exif.tobytes())

    def written(wanted):
        outcome = done(recorded, tmp_path / "in", override_settings={"keep_source_exif": wanted}, seed=7 + wanted)
        with Image.open(outcome.pictures[-1][0]) as image:
            image.load()
            return image.getexif(), image.info["parameters"], metadata_of(image).infotext

    kept, text, read = written(True)
    assert kept[0x010F] == "Camera maker" and kept.get_ifd(0x8769)[0x9003] == "2026:01:31 12:00:00" and kept.get_ifd(0x8825)[1] == "N"
    assert 0x0112 not in kept and 0x9286 not in kept.get_ifd(0x8769)
    assert text == read and read.startswith("a forest")
    assert dict(written(False)[0]) == {}

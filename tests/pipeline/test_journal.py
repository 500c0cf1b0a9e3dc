"""History: what is recorded of jobs, what is found again, and what a killed program leaves."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from threading import Timer

import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.journal import MAX_WORDS, Journal
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.record import ELSEWHERE, from_record, to_record
from pipeline.request import Request
from pipeline.txt2img import StableDiffusionProcessingTxt2Img

ROOT = Path(__file__).parents[2]


def picture(color="red", mode="RGB", size=(16, 24)) -> Image.Image:
    return Image.new(mode, size, color)


def request(**changes) -> StableDiffusionProcessingImg2Img:
    return StableDiffusionProcessingImg2Img(**{"init_images": [picture()], "prompt": "a red boat", "steps": 3} | changes)


def save(journal, job_id, name, content=b"picture", infotext="a red boat\nSteps: 3, Seed: 7") -> Path:
    path = journal.folder / "2026-01-31" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    journal.saving(job_id, str(path), infotext)
    path.write_bytes(content)
    return path


def test_a_job_is_followed_from_the_queue_to_its_pictures(journal):
    journal.queued("one", request(negative_prompt="rain"), client="me", mode="img2img")
    assert journal.entry("one").state == "queued"
    journal.running("one", "demo-model")
    assert (journal.entry("one").state, journal.entry("one").model) == ("running", "demo-model")
    path = save(journal, "one", "00000-7.png")
    journal.ended("one", "done")
    entry = journal.entry("one")
    assert (entry.state, entry.client, entry.mode, entry.prompt, entry.negative_prompt) == (
        "done", "me", "img2img", "a red boat", "rain")
    assert [(kept.path, kept.favourite) for kept in entry.pictures] == [(path, False)]
    assert entry.created <= entry.ended <= time.time()


def test_a_picture_is_found_by_its_file(journal):
    journal.queued("one", request())
    paths = [save(journal, "one", name) for name in ("00000-7.png", "00001-8.png")]
    entry, kept = journal.find(str(paths[1]))
    assert (entry.id, kept.path) == ("one", paths[1]) and journal.find("nowhere.png") is None


def test_an_id_that_is_taken_keeps_the_first_job(journal):
    assert journal.queued("one", request(prompt="first")) == "one"
    other = journal.queued("one", request(prompt="second"))
    assert {entry.id: entry.prompt for entry in journal.search()} == {"one": "first", other: "second"}


def test_a_full_disk_is_an_os_error(journal):
    journal.close()
    with pytest.raises(OSError, match="palimpsest.sqlite3"):
        journal.search()


def test_a_job_that_nobody_knows_is_none(journal):
    assert journal.entry("nobody") is None and journal.request("nobody") is None


@pytest.mark.parametrize("made", [
    request(), request(prompt=["a", "b"], seed=[1, 2], batch_size=2), request(mask=picture("white", "L"), mask_blur=7),
    request(init_images=[picture((1, 2, 3, 40), "RGBA")]), request(override_settings={"CLIP_stop_at_last_layers": 2}),
    request(options=Options(tiling=True)), request(script_name="Loopback", script_args=[2, 0.5, "Linear", "None"]),
    request(alwayson_scripts={"Soft Inpainting": {"args": [True]}}),
    StableDiffusionProcessingTxt2Img(prompt="nothing to begin with", steps=2)])
def test_a_request_comes_back_as_it_was(journal, made):
    journal.queued("one", made)
    again = journal.request("one", outpath_samples="elsewhere")
    assert type(again) is type(made) and again.outpath_samples == "elsewhere"
    for name in {spec.name for spec in fields(Request)} - ELSEWHERE - {"init_images", "image_mask"}:
        assert getattr(again, name) == getattr(made, name), name
    assert again.options == made.options
    assert [seen(image) for image in again.init_images] == [seen(image) for image in made.init_images]
    assert seen(again.image_mask) == seen(made.image_mask)


def seen(image: Image.Image | None):
    return None if image is None else (image.mode, image.size, image.tobytes())


def test_a_request_whose_picture_is_gone_is_none(journal):
    journal.queued("one", request())
    for file in journal.originals.folder.rglob("*.png"):
        file.unlink()
    assert journal.request("one") is None


def test_the_same_picture_is_kept_once(journal):
    for job in "one", "two":
        journal.queued(job, request())
    assert len(list(journal.originals.folder.rglob("*.png"))) == 1


def test_a_record_is_plain_json(journal):
    record = to_record(request(mask=picture("white", "L")), journal.originals.keep)
    assert from_record(json.loads(json.dumps(record)), journal.originals.open) is not None


@pytest.fixture
def filled(journal):
    """Three jobs, the first with a favourite."""
    for number, (prompt, model) in enumerate([("a red boat", "demo"), ("a blue boat, 100% calm", "demo"), ("a forest", "other_model")]):
        journal.queued(str(number), request(prompt=prompt), client="me" if number else "you")
        journal.running(str(number), model)
        save(journal, str(number), f"{number}.png", infotext=f"{prompt}\nSteps: 3, Seed: 7{number}")
        journal.ended(str(number), "done")
        time.sleep(0.002)
    journal.favour(journal.entry("0").pictures[0].id, True)
    return journal


@pytest.mark.parametrize("question, found", [
    ({}, ["2", "1", "0"]), ({"text": "boat"}, ["1", "0"]), ({"text": "BOAT red"}, ["0"]), ({"text": "Seed: 72"}, ["2"]),
    ({"text": "100%"}, ["1"]), ({"text": "%"}, ["1"]), ({"text": "_"}, []), ({"text": "'; DROP TABLE jobs; --"}, []),
    ({"model": "other_"}, ["2"]), ({"favourites": True}, ["0"]), ({"client": "me"}, ["2", "1"]), ({"limit": 1}, ["2"]),
    ({"since": 4e9}, []), ({"until": 1.0}, [])])
def test_jobs_are_found(filled, question, found):
    assert [entry.id for entry in filled.search(**question)] == found


def test_a_search_goes_on_behind_the_last_entry(filled):
    first = filled.search(limit=2)
    assert [entry.id for entry in filled.search(limit=2, before=first[-1].created)] == ["0"]


def test_a_deleted_picture_is_gone_with_its_file(filled):
    kept = filled.entry("0").pictures[0]
    filled.delete(kept.id)
    assert not kept.path.exists() and filled.entry("0").pictures == []


def test_a_forgotten_job_is_gone_with_its_pictures(filled):
    path = filled.entry("0").pictures[0].path
    filled.forget("0")
    assert filled.entry("0") is None and not path.exists()


def test_the_folder_can_be_moved(filled):
    filled.close()
    moved = filled.folder.rename(filled.folder.with_name("moved"))
    journal = Journal(moved)
    assert all(entry.pictures[0].path.read_bytes() == b"picture" for entry in journal.search())
    assert journal.request("0") is not None
    journal.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from pipeline.journal import Journal
from pipeline.processing import StableDiffusionProcessingImg2Img
journal = Journal(Path(sys.argv[1]))
for job in "done", "runs", "waits":
    journal.queued(job, StableDiffusionProcessingImg2Img(init_images=[Image.new("RGB", (8, 8))], prompt=job))
journal.running("done", "m")
journal.ended("done", "done")
journal.running("runs", "m")
for name, content in ("whole.png", b"picture"), ("half.png", b""):
    path = journal.folder / name
    path.write_bytes(b"")
    journal.saving("runs", str(path), "")
    path.with_suffix(".tmp").write_bytes(b"pic")
    path.write_bytes(content)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_program_loses_no_finished_picture(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=False)
    journal = Journal(tmp_path)
    assert {entry.id: entry.state for entry in journal.search()} == {"done": "done", "runs": "interrupted", "waits": "interrupted"}
    assert [kept.path.name for kept in journal.entry("runs").pictures] == ["whole.png"]
    assert not (tmp_path / "half.png").exists() and not (tmp_path / "half.tmp").exists()
    assert journal.request("waits").prompt == "waits"
    journal.close()


def test_more_words_than_can_be_searched_for_are_refused_in_a_sentence(tmp_path):
    journal = Journal(tmp_path)
    assert journal.search("word " * MAX_WORDS) == []
    with pytest.raises(InvalidRequest, match=f"^words: at most {MAX_WORDS} can be searched for, got 2000$"):
        journal.search("word " * 2000)
    journal.close()


def test_two_programs_on_one_folder_close_nothing_of_each_other(tmp_path):
    """Also while a picture is being saved, whose place an empty file holds."""
    first = Journal(tmp_path)
    for job in "runs", "waits":
        first.queued(job, request(prompt=job))
    first.running("runs", "m")
    half = tmp_path / "half.png"
    half.write_bytes(b"")
    half.with_suffix(".tmp").write_bytes(b"pic")
    first.saving("runs", str(half), "")
    second = Journal(tmp_path)
    assert (first.others, second.others) == (0, 1)
    assert {entry.id: entry.state for entry in second.search()} == {"runs": "running", "waits": "queued"}
    assert half.exists() and half.with_suffix(".tmp").exists()
    half.write_bytes(b"picture")
    first.ended("runs", "done")
    assert [(entry.state, len(entry.pictures)) for entry in second.search(text="runs")] == [("done", 1)]
    second.close()
    first.close()


def test_two_programs_give_no_job_the_same_id(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    assert first.queued("one", request()) == "one" != second.queued("one", request())
    assert len(first.search()) == 2
    first.close()
    second.close()


HOLDING = """
import sys, time
from pathlib import Path
from PIL import Image
from pipeline.journal import Journal
from pipeline.processing import StableDiffusionProcessingImg2Img
folder = Path(sys.argv[1])
journal = Journal(folder)
journal.queued(sys.argv[2], StableDiffusionProcessingImg2Img(init_images=[Image.new("RGB", (8, 8))], prompt="a boat"))
journal.running(sys.argv[2], "m")
print("runs", flush=True)
for line in sys.stdin:
    path = folder / f"{sys.argv[2]}-{line.strip()}.png"
    path.write_bytes(b"")
    journal.saving(sys.argv[2], str(path), "")
    time.sleep(0.02)
    path.write_bytes(b"picture")
    print("saved", flush=True)
journal.ended(sys.argv[2], "done")
"""


def start(folder: Path, job: str) -> subprocess.Popen:
    """A program that has begun a job, and saves a picture of it for each line that it is given."""
    return subprocess.Popen([sys.executable, "-c", HOLDING, folder, job], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_programs_jobs_are_closed_and_a_living_ones_are_not(tmp_path):
    living, killed = start(tmp_path, "living"), start(tmp_path, "killed")
    assert [program.stdout.readline() for program in (living, killed)] == ["runs\n"] * 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    journal = Journal(tmp_path)
    assert {entry.id: entry.state for entry in journal.search()} == {"living": "running", "killed": "interrupted"}
    assert journal.others == 1
    journal.close()
    living.communicate("1\n")
    journal = Journal(tmp_path)
    assert journal.entry("living").state == "done" and journal.others == 0
    assert len(list((tmp_path / ".running").glob("*.lock"))) == 1  # its own: those of ended programs are gone
    journal.close()


def test_no_picture_is_lost_while_other_programs_start(tmp_path):
    """20 pictures are saved by each of two programs, while a third one starts and ends again and again."""
    programs = [start(tmp_path, "one"), start(tmp_path, "two")]
    for program in programs:
        program.stdout.readline()
        program.stdin.write("".join(f"{number}\n" for number in range(20)))
        program.stdin.close()
    while any(program.poll() is None for program in programs):
        Journal(tmp_path).close()
    journal = Journal(tmp_path)
    assert {entry.id: (entry.state, len(entry.pictures)) for entry in journal.search()} == {"one": ("done", 20), "two": ("done", 20)}
    assert all(kept.path.read_bytes() == b"picture" for entry in journal.search() for kept in entry.pictures)
    journal.close()
    for program in programs:
        program.stdout.close()


def test_programs_that_start_at_once_on_a_new_folder_all_have_their_history(tmp_path):
    programs = [start(tmp_path / "new", str(number)) for number in range(3)]
    for program in programs:
        program.communicate("1\n")
    journal = Journal(tmp_path / "new")
    assert {entry.id: entry.state for entry in journal.search()} == {"0": "done", "1": "done", "2": "done"}
    journal.close()


def hold(folder: Path, mode: str) -> sqlite3.Connection:
    """Another program that holds the database locked."""
    database = sqlite3.connect(folder / "palimpsest.sqlite3", isolation_level=None, check_same_thread=False)
    database.execute(f"BEGIN {mode}")
    return database


def test_a_locked_database_is_waited_for(tmp_path):
    Journal(tmp_path).close()
    other = hold(tmp_path, "IMMEDIATE")
    Timer(0.3, other.rollback).start()
    journal = Journal(tmp_path)
    assert journal.queued("one", request()) == "one"
    journal.close()
    other.close()


def test_a_database_that_stays_locked_is_a_sentence(tmp_path):
    Journal(tmp_path).close()
    other = hold(tmp_path, "IMMEDIATE")
    with pytest.raises(OSError, match="^palimpsest.sqlite3: another program holds it locked$"):
        Journal(tmp_path, patience=0.1)
    other.rollback()
    other.close()
    journal = Journal(tmp_path)
    assert journal.others == 0  # the one that failed is no owner
    journal.close()


def test_a_database_that_is_none_is_a_sentence(tmp_path):
    (tmp_path / "palimpsest.sqlite3").write_bytes(b"something else entirely" * 100)
    with pytest.raises(OSError, match="^palimpsest.sqlite3: file is not a database$"):
        Journal(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody delete an open file")
@pytest.mark.parametrize("delete", [lambda folder: shutil.rmtree(folder), lambda folder: (folder / "palimpsest.sqlite3").unlink(),
                                    lambda folder: folder.rename(folder.with_name("moved"))])
def test_history_begins_anew_where_it_is_deleted(journal, caplog, delete):
    """With the jobs that run or wait, which can be run again; what is done is gone, as was wanted."""
    for job in "done", "runs", "waits":
        journal.queued(job, request(prompt=job))
    journal.running("runs", "m")
    journal.ended("done", "done")
    delete(journal.folder)
    path = save(journal, "runs", "00000-7.png") if journal.folder.exists() else save_in_new_folder(journal)
    journal.ended("runs", "done")
    again = Journal(journal.folder)
    assert {entry.id: entry.state for entry in again.search()} == {"runs": "done", "waits": "queued"}
    assert [kept.path for kept in again.entry("runs").pictures] == [path] and again.entry("runs").model == "m"
    assert again.request("waits").prompt == "waits"
    again.close()
    assert "History was deleted while the program was running" in caplog.text
    assert len(journal.take_notes()) == 1 and journal.take_notes() == []


def save_in_new_folder(journal) -> Path:
    journal.folder.mkdir()
    return save(journal, "runs", "00000-7.png")

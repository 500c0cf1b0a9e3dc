"""Pictures of requests that wait: in memory within a budget, beyond it as files."""

import stat
import threading
import time

import pytest
from PIL import Image

from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest, TooMany
from pipeline.job import Failed
from pipeline.journal import Journal
from pipeline.limits import Client
from pipeline.shelf import MAX_PIXELS, PER_PIXEL, SMALL, Shelf
from tests.pipeline.test_engine import Gate, request


@pytest.fixture
def gate():
    return Gate()


def big_request(**fields):
    """With a picture whose pixels can be told from each other's, and a mask that is also the latent mask."""
    image = Image.linear_gradient("L").convert("RGBA")
    mask = Image.linear_gradient("L").rotate(90)
    return request(image, mask=mask, latent_mask=mask, inpainting_fill=1, **fields)


def files_of(shelf):
    return [] if shelf._folder is None else list(shelf._folder.iterdir())


def bytes_of(p):
    return [image.mode + str(image.tobytes()) for image in (*p.init_images, p.image_mask, p.latent_mask)]


def test_what_fits_stays_in_memory_as_it_is():
    shelf, p = Shelf(), big_request()
    before = p.init_images[0], p.image_mask
    shelf.put(p)
    shelf._take(p)
    assert (p.init_images[0], p.image_mask) == before and files_of(shelf) == []


def test_what_does_not_fit_becomes_files_and_comes_back_to_the_bit_with_its_digests():
    shelf, p = Shelf(in_memory=100), big_request()
    before = bytes_of(p)
    digest = p.digests.of(p.init_images[0])
    shelf.put(p)
    assert not any(isinstance(image, Image.Image) for image in (*p.init_images, p.image_mask)) and files_of(shelf)
    assert stat.S_IMODE(shelf._folder.stat().st_mode) == 0o700
    shelf._take(p)
    assert bytes_of(p) == before and files_of(shelf) == []
    assert p.digests._known[id(p.init_images[0])][1] == digest


def test_pictures_of_a_scripts_units_are_stored_too():
    shelf, image = Shelf(in_memory=100), Image.linear_gradient("L")
    p = big_request(alwayson_scripts={"ControlNet": {"args": [{"enabled": True, "image": image, "weight": 0.5}, {"image": [image, None]}]}})
    shelf.put(p)
    first, second = p.alwayson_scripts["ControlNet"]["args"]
    assert not isinstance(first["image"], Image.Image) and first["weight"] == 0.5 and second["image"][1] is None
    shelf._take(p)
    first, second = p.alwayson_scripts["ControlNet"]["args"]
    assert first["image"].tobytes() == second["image"][0].tobytes() == image.tobytes() and files_of(shelf) == []


def test_room_that_was_taken_is_given_back():
    shelf = Shelf(in_memory=256 * 256 * 2)
    first, second = big_request(), big_request()
    shelf.put(first)
    shelf.put(second)
    assert len(files_of(shelf)) == 3
    shelf.drop(second)
    shelf._take(first)
    assert files_of(shelf) == []
    shelf.put(second := big_request())
    assert files_of(shelf) == [] and isinstance(second.image_mask, Image.Image)


def test_files_are_bounded_too_and_a_refused_request_is_as_it_was():
    shelf, p = Shelf(in_memory=0, on_disk=100), big_request()
    before = bytes_of(p)
    with pytest.raises(TooMany, match="storage for pictures of waiting jobs is full"):
        shelf.put(p)
    assert bytes_of(p) == before and files_of(shelf) == []


def test_a_request_may_have_only_so_many_pixels():
    with pytest.raises(InvalidRequest, match="init_images: the request's pictures may have 200 million pixels in total, got 201"):
        with Shelf().reading(MAX_PIXELS + 1):
            pass


def test_only_so_many_pixels_are_read_at_once_and_who_waits_too_long_is_told():
    shelf = Shelf(at_once=100, patience=0.1)
    with shelf.reading(60), shelf.reading(40), pytest.raises(TooMany), shelf.reading(1):
        pass
    with shelf.reading(MAX_PIXELS):  # alone, whatever it needs
        pass


def test_who_waits_to_read_is_let_in_when_there_is_room():
    shelf, order = Shelf(at_once=100), []

    def second():
        with shelf.reading(100):
            order.append("second")

    with shelf.reading(100):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_nothing_is_read_that_the_memory_does_not_hold():
    shelf = Shelf(free=lambda: 100 * PER_PIXEL, memory_patience=0.1)
    with shelf.reading(100):
        pass
    with pytest.raises(MemoryError), shelf.reading(101):
        pass
    with pytest.raises(MemoryError), shelf.working(big_request()):
        pass
    with shelf.reading(100):  # what failed has left its room
        pass


def test_memory_that_others_hold_is_waited_for():
    left = iter([0, 0, 100 * PER_PIXEL])
    with Shelf(free=lambda: next(left)).reading(100):
        assert next(left, None) is None


def test_large_pictures_leave_memory_to_a_job_that_has_just_begun_and_small_ones_are_not_held_up():
    p = big_request()
    need = 256 * 256 * 2
    shelf = Shelf(free=lambda: need * PER_PIXEL + SMALL * PER_PIXEL, patience=0.1)
    with shelf.working(p):
        with shelf.reading(SMALL), shelf.reading(SMALL):
            pass
        with pytest.raises(TooMany), shelf.reading(SMALL + 1):
            pass
    with shelf.reading(SMALL + 1):
        pass


@pytest.fixture
def shelved(demo, gate, tmp_path):
    """An engine whose waiting jobs have no room in memory, and which waits at the gate."""
    engine = local_engine(lambda options: demo, hooks=[gate], shelf=Shelf(in_memory=0), journal=Journal(tmp_path))
    yield engine
    gate.opened.set()
    engine.close()
    engine.journal.close()


def test_jobs_that_wait_hold_no_picture_and_give_the_same_pixels(shelved, gate, picture, demo):
    gate.opened.set()
    expected = local_engine(lambda options: demo).submit([big_request()]).result()[0].images[0].tobytes()
    gate.opened.clear()
    gate.reached.clear()
    shelved.submit([request(picture)])
    assert gate.reached.wait(30)
    waiting = [shelved.submit([p], client=Client(str(number))) for number, p in enumerate([big_request(), big_request()])]
    assert len(files_of(shelved.shelf)) == 6
    gate.opened.set()
    assert [job.result()[0].images[0].tobytes() for job in waiting] == [expected] * 2
    assert files_of(shelved.shelf) == []


def test_a_job_that_is_dropped_takes_its_files_with_it(shelved, gate, picture):
    shelved.submit([request(picture)])
    assert gate.reached.wait(30)
    job = shelved.submit([big_request()])
    assert files_of(shelved.shelf)
    shelved.cancel(job)
    assert files_of(shelved.shelf) == []


def test_a_job_whose_pictures_have_no_room_is_refused_and_leaves_no_trace(shelved, gate, picture, tmp_path):
    shelved.submit([request(picture)])
    assert gate.reached.wait(30)
    shelved.shelf._on_disk = 10
    with pytest.raises(TooMany):
        shelved.submit([big_request(outpath_samples=str(tmp_path))])
    assert len(shelved.jobs()) == 1 and shelved.journal.search() == []


def test_the_engine_takes_its_files_away_when_it_ends(demo, gate, picture):
    engine = local_engine(lambda options: demo, hooks=[gate], shelf=Shelf(in_memory=0))
    engine.submit([request(picture)])
    assert gate.reached.wait(30)
    job = engine.submit([big_request()])
    folder = engine.shelf._folder
    gate.opened.set()
    engine.close()
    assert not folder.exists() and isinstance(job.newest()[1], Failed)

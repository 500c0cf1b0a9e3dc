"""What canvases send ahead: bounded, bound to who sent it, and gone after a while."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest, TooMany

ANNA, BOB = "a" * 32, "b" * 32


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def make(now):
    def make(**bounds) -> Drafts:
        return Drafts(clock=lambda: now[0], **bounds)
    return make


def put(drafts, visitor=ANNA, size=(8, 6), **how) -> str:
    path = drafts.room()
    Image.new("L", size).save(path, "PNG", **how)
    return drafts.keep(path, visitor, "mask")[0]


def test_a_draft_is_its_visitors_alone(make):
    drafts = make()
    name = put(drafts)
    assert drafts.owned(name, ANNA) and not drafts.owned(name, BOB) and not drafts.owned(name, "")
    assert Image.open(drafts.path(name, "mask")).size == (8, 6)


def test_it_expires_and_using_it_keeps_it(make, now):
    drafts = make(lifetime=100)
    old, used = put(drafts), put(drafts)
    file = drafts.path(old, "mask")
    now[0] += 60
    drafts.path(used, "mask")
    now[0] += 60
    assert not drafts.owned(old, ANNA) and not Path(file).exists() and drafts.owned(used, ANNA)
    with pytest.raises(InvalidRequest, match="mask: the picture is no longer kept"):
        drafts.path(old, "mask")


def test_of_one_visitor_the_one_used_longest_ago_makes_room(make):
    drafts = make(files=2)
    first, second, of_bob = put(drafts), put(drafts), put(drafts, BOB)
    drafts.path(first, "mask")
    third = put(drafts)
    assert [drafts.owned(name, ANNA) for name in (first, second, third)] == [True, False, True] and drafts.owned(of_bob, BOB)


def test_bytes_are_bounded_for_one_and_for_all(make):
    drafts = make(bytes=100)  # one such file has about 70
    first, second = put(drafts), put(drafts)
    assert not drafts.owned(first, ANNA) and drafts.owned(second, ANNA)
    full = make(bytes_in_all=100)
    put(full)
    path = full.room()
    Image.new("L", (8, 6)).save(path, "PNG")
    with pytest.raises(TooMany, match="no room for more pictures"):
        full.keep(path, BOB, "mask")
    assert not path.exists()


def test_what_is_no_picture_is_not_kept(make):
    drafts = make()
    path = drafts.room()
    path.write_bytes(b"<svg/>")
    with pytest.raises(InvalidRequest, match="mask: the file is not a picture"):
        drafts.keep(path, ANNA, "mask")
    assert not path.exists()


def test_the_size_told_is_that_of_the_upright_picture(make):
    drafts, exif = make(), Image.Exif()
    exif[0x0112] = 6
    path = drafts.room()
    Image.new("RGB", (8, 6)).save(path, "JPEG", exif=exif.tobytes())
    assert drafts.keep(path, ANNA, "init_images")[1] == (6, 8)

"""What canvases ask, read and bounded."""

import threading

import numpy as np
import pytest
from PIL import Image

from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest, TooMany
from pipeline.families.sam import Prompt
from pipeline.geometry import Box
from pipeline.selecting import MAX_POINTS, Selecting

ANNA, BOB = "a" * 32, "b" * 32
SIZE = (120, 80)


class Model:
    """Stands for an engine: selects all, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def segmenters(self):
        return ["tiny"]

    def segment(self, *asked):
        self.asked.append(asked)
        return np.full(asked[1].shape[:2], 255, np.uint8)


@pytest.fixture
def drafts():
    return Drafts()


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def selecting(drafts, model):
    return Selecting(drafts, model)


def send(drafts, image=None, visitor=ANNA) -> str:
    path = drafts.room()
    if image is None:
        image = Image.new("RGB", SIZE, (40, 90, 60))
        image.paste((220, 60, 40), (30, 20, 90, 60))
    image.save(path, "PNG")
    return drafts.keep(path, visitor, "init_images")[0]


def test_a_box_and_a_stroke_select(selecting, drafts):
    draft, expected = send(drafts), np.zeros(SIZE[::-1], np.uint8)
    expected[20:60, 30:90] = 255
    asked = [{"tool": "box", "box": [[100, 70], [20, 10]]}, {"tool": "stroke", "points": [[40, 40], [80, 42]], "radius": 6}]
    assert all((selecting.answer(each | {"draft": draft}, ANNA) == expected).all() for each in asked)


def test_an_edge_is_followed(selecting, drafts):
    path = np.array(selecting.answer({"tool": "edge", "draft": send(drafts), "points": [[30, 25], [31, 55]], "reach": 4}, ANNA))
    assert np.abs(path[:, 0] - 30).max() <= 2 and path[-1, 1] > 50


def test_clicks_go_to_the_model_with_the_picture(selecting, drafts, model):
    draft = send(drafts)
    answer = selecting.answer({"tool": "click", "draft": draft, "model": "tiny", "points": [[5, 6.5]], "not_points": [[70, 7]], "box": [[9, 8], [1, 2]]}, ANNA)
    [(name, picture, key, prompt)] = model.asked
    assert answer.all() and (name, key, picture.shape) == ("tiny", draft, (80, 120, 3))
    assert prompt == Prompt(((5.0, 6.5, True), (70.0, 7.0, False)), Box(1, 2, 9, 8))


def test_a_picture_is_decoded_once_and_as_it_is_seen(selecting, drafts, model, monkeypatch):
    photo, exif = Image.new("RGBA", (30, 20), (0, 0, 0, 0)), Image.Exif()
    exif[0x0112] = 6
    path = drafts.room()
    photo.save(path, "PNG", exif=exif.tobytes())
    draft = drafts.keep(path, ANNA, "init_images")[0]
    asked = {"tool": "click", "draft": draft, "model": "tiny", "points": [[1, 1]]}
    selecting.answer(asked, ANNA)
    monkeypatch.setattr("pipeline.selecting.open_picture", None)
    selecting.answer(asked, ANNA)
    assert all(picture.shape == (30, 20, 3) and (picture == 255).all() for _, picture, *_ in model.asked)


def test_a_draft_is_its_visitors_alone(selecting, drafts):
    draft = send(drafts)
    for name, visitor in ((draft, BOB), (draft, ""), ("0" * 32, ANNA), (["x"], ANNA), (None, ANNA)):
        with pytest.raises(InvalidRequest, match="no longer kept") as told:
            selecting.answer({"tool": "box", "draft": name, "box": [[1, 1], [9, 9]]}, visitor)
        assert told.value.field == "draft"


def test_a_picture_that_is_too_large_is_one_sentence(selecting, drafts, monkeypatch):
    monkeypatch.setattr("pipeline.selecting.MAX_PIXELS", 5000)
    with pytest.raises(InvalidRequest, match="make the picture smaller"):
        selecting.answer({"tool": "box", "draft": send(drafts), "box": [[1, 1], [9, 9]]}, ANNA)


STROKE, CLICK, EDGE = {"tool": "stroke", "radius": 3}, {"tool": "click", "model": "tiny"}, {"tool": "edge", "reach": 3}


@pytest.mark.parametrize("asked, sentence", [
    ({}, "tool must be one of box, stroke, edge, click"), ({"tool": ["box"]}, "tool must be one of"),
    ({"tool": "box"}, "box must be a list of 2 to 2 points"), ({"tool": "box", "box": [[1, 2], [3]]}, "each point must be"),
    (STROKE, "points must be a list of 1"), (STROKE | {"points": [[1, 2]] * (MAX_POINTS + 1)}, "list of 1 to 4096"),
    (STROKE | {"points": [[1, 2]], "radius": -1}, "radius must be a number between"), (STROKE | {"points": [[1, float("nan")]]}, "points must be a number"),
    (STROKE | {"points": [[1, True]]}, "points must be a number"), (STROKE | {"points": [[1e9, 1]]}, "points must be a number"),
    (STROKE | {"points": "12"}, "points must be a list"), (EDGE | {"points": [[1, 2]], "reach": 1e6}, "reach must be a number"),
    (CLICK, "click on what to select"), (CLICK | {"points": [[1, 1]] * 65}, "list of 0 to 64"),
    ({"tool": "click", "points": [[1, 1]]}, "model must be the name"), (CLICK | {"points": [[1, 1]], "model": 3}, "model must be the name")])
def test_what_cannot_be_read_is_one_sentence(selecting, drafts, asked, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        selecting.answer(asked | {"draft": send(drafts)}, ANNA)


def test_a_visitor_cannot_ask_for_more_and_more_at_once(selecting, drafts, model):
    """Others are still answered."""
    begun, go_on, draft, others = threading.Semaphore(0), threading.Event(), send(drafts), send(drafts, visitor=BOB)

    def slow(*asked):
        begun.release()
        assert go_on.wait(30)
        return np.zeros((80, 120), np.uint8)

    model.segment = slow
    asked = {**CLICK, "draft": draft, "points": [[1, 1]]}
    threads = [threading.Thread(target=selecting.answer, args=(asked, ANNA)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=30) and not begun.acquire(timeout=0.2)  # one at a time
    while len(selecting._waiting) < 3:
        threading.Event().wait(0.01)
    with pytest.raises(TooMany):
        selecting.answer(asked, ANNA)
    assert selecting.answer({"tool": "box", "draft": others, "box": [[20, 10], [100, 70]]}, BOB).any()
    go_on.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert selecting.answer(asked, ANNA).shape == (80, 120)

"""What A1111 drew for a request, drawn again: within the bar, and with the same infotext."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.parity import GROUPS, MEAN, P999, judge, read_cases, table
from pipeline.errors import ModelError
from tests.golden.replay import FOLDER, Replay, Tape

CASES = read_cases(FOLDER)


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    with Replay().running(tmp_path_factory.mktemp("outputs")) as replay:
        yield replay


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_request_gives_the_same_picture_and_infotext(case, replay):
    response = replay.post(case.name, case.request["checkpoint"], case.body)
    verdict = judge(case, response.status_code, response.json())
    assert verdict.within, verdict.why
    assert verdict.infotext in (True, None)


def test_the_bar_is_half_a_step_of_255():
    assert (MEAN, P999) == (0.5, 3.0)


def test_every_group_has_cases_and_all_of_them_are_small():
    assert {case.group for case in CASES} == {group for group, _ in GROUPS}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


@pytest.mark.parametrize("change", [{"seed": 1235}, {"prompt": "a blue circle"}, {"sampler_name": "Euler"}, {"steps": 9},
                                    {"denoising_strength": 0.7}, {"scheduler": "Exponential"}])
def test_another_request_is_noticed(change, replay):
    case = next(case for case in CASES if case.name == "sampler_dpmpp_2m")
    try:
        response = replay.post(case.name, case.request["checkpoint"], case.body | change)
    except ModelError as error:  # fewer calls than were recorded
        assert "calls were made" in str(error)
    else:
        assert response.status_code != 200 and "recording" in json.dumps(response.json())


def test_a_tape_tells_a_question_that_is_slightly_different():
    tape, x = Tape(), torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    tape.record("encode", {"pixels": x}, x)
    assert torch.allclose(Tape(tape.entries).replay("encode", {"pixels": x * 1.0005}), x, atol=2e-3)
    with pytest.raises(ModelError, match="differs from the recording"):
        Tape(tape.entries).replay("encode", {"pixels": x + 0.02 * torch.randn(2, 4, 16, 16)})


def named(name):
    return next(case for case in CASES if case.name == name)


def answer(image, text):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return {"images": [base64.b64encode(stream.getvalue()).decode()], "info": json.dumps({"infotexts": [text]})}


@pytest.mark.parametrize("status, within", [(422, True), (500, False), (200, False)])
def test_where_a1111_failed_a_refusal_is_right(status, within):
    assert judge(named("bad_base64"), status, {}).within is within


@pytest.mark.parametrize("shift, pixels, within", [(0, 1.0, True), (4, 0.0005, True), (4, 0.002, False), (1, 0.4, True),
                                                   (1, 0.6, False)])
def test_a_picture_is_judged_by_its_mean_and_its_worst_pixels(shift, pixels, within):
    case = named("cfg_1.5")
    with Image.open(case.folder / "output_0.webp") as golden:
        values = np.asarray(golden.convert("RGB")).astype(int)
    changed = np.random.default_rng(1).permutation(values.size).reshape(values.shape) < pixels * values.size
    image = Image.fromarray(np.where(changed, values + np.where(values < 128, shift, -shift), values).astype(np.uint8))
    verdict = judge(case, 200, answer(image, case.response["response"]["info"]["infotexts"][0]))
    assert (verdict.within, verdict.infotext) == (within, True)
    assert judge(case, 200, answer(image, "a\nSteps: 1, Seed: 2, Sampler: Euler")).infotext is False
    assert not judge(case, 200, answer(image.resize((64, 64)), "")).within


def test_the_table_has_a_row_per_group_and_one_for_all():
    lines = table([judge(named("bad_base64"), 422, {}), judge(named("cfg_1.5"), 500, {})]).splitlines()
    assert [line.split()[:3] for line in lines] == [["group", "cases", "within"], ["refusals", "1", "1"], ["others", "1", "0"],
                                                    ["all", "2", "1"]]

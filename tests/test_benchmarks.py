"""The runner lists what there is, and what benchmarks share counts and judges as it says."""

import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from benchmarks.__main__ import SHARED, find
from benchmarks.competitors import Stopwatch, model_calls, square_mask
from benchmarks.contest import ROOT, by_turns
from benchmarks.editor import Frame, frames_of
from benchmarks.report import Bar, table


def test_every_benchmark_says_what_it_measures_and_how_it_is_run():
    for name, about in find().items():
        source = (ROOT / "benchmarks" / f"{name}.py").read_text("utf-8")
        assert about and f"python -m benchmarks {name}" in source and "def main()" in source
    assert {f"{name}.py" for name in (*find(), *SHARED)} == {file.name for file in (ROOT / "benchmarks").glob("*.py")}


@pytest.mark.parametrize("arguments, status, said", [
    ([], 0, "edit "), (["--help"], 0, "parity "), (["none"], 1, "parity "), (["first_picture", "--help"], 0, "--runs"),
])
def test_the_runner(arguments, status, said):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status and said in done.stdout


class Noted:
    """A contestant that notes its runs, each a second long."""

    def __init__(self, name, notes):
        self.name, self._notes = name, notes

    def run(self, request):
        self._notes.append(f"{self.name}{request['case']}")
        return {"seconds": 1.0}

    def close(self):
        self._notes.append(f"{self.name}.")


@pytest.mark.parametrize("fresh, order", [
    (False, ["a1", "b1", "a2", "b2", "b3", "a3"]), (True, ["a1", "a2", "a.", "b1", "b2", "b.", "b3", "b.", "a3", "a."]),
])
def test_competitors_take_turns(fresh, order):
    notes = []
    answers = by_turns([Noted("a", notes), Noted("b", notes)], [[{"case": 1}, {"case": 2}], [{"case": 3}]], fresh=fresh)
    assert notes == order and [[len(answered) for answered in rounds] for rounds in answers] == [[2, 1], [2, 1]]


def test_a_stage_within_a_stage_is_counted_once():
    watch, owner = Stopwatch(), SimpleNamespace(inner=lambda: time.sleep(0.02))
    owner.outer = lambda: owner.inner()
    watch.around(owner, "inner", "in")
    watch.around(owner, "outer", "out")
    owner.outer()
    assert watch.seconds["in"] >= 0.02 > 0.01 > watch.seconds["out"] >= 0


@pytest.mark.parametrize("bar, verdict", [
    (Bar("", 2.0, 2), "met"), (Bar("", 1.9, 2), "missed"), (Bar("", 2.0, 2, at_most=True), "met"),
    (Bar("", 2.1, 2, at_most=True), "missed"), (Bar("", None, 2), "not measured"),
    (Bar("", 3.0, 2, needs="bf16"), "needs bf16"),
])
def test_a_bar_is_met_or_missed_or_says_why_it_is_neither(bar, verdict):
    assert bar.verdict == verdict


@pytest.mark.parametrize("steps, strength, calls", [(20, 0.75, 16), (4, 0.75, 4), (1, 0.75, 1), (20, 1.0, 20)])
def test_competitors_are_asked_for_as_many_model_calls(steps, strength, calls):
    assert model_calls(steps, strength) == calls
    assert min(int(steps * min((calls + 0.01) / steps, 1.0)), steps) == calls  # diffusers' rule


def test_a_square_mask_has_its_share():
    mask = square_mask(0.25, 64)
    assert mask.histogram()[255] == 32 * 32


def test_a_table_aligns_numbers_to_the_right_and_says_what_was_not_measured():
    assert table(("what", "s"), [("one", 1.0), ("two", None), ("three", 12.5)]).splitlines() == [
        "what              s", "one            1.00", "two    not measured", "three         12.50"]


def test_frames_of_a_long_trace_are_read_quickly():
    frame, drawn = 16_000, 4000  # microseconds, frames
    page, other = {"pid": 1, "tid": 1}, {"pid": 2, "tid": 1}
    trace = [{**other, "ts": 0, "name": "EventDispatch", "args": {"data": {"type": "pointermove"}}}]
    for at in range(0, frame * drawn, frame):
        trace += [{**page, "ts": at, "name": "BeginMainThreadFrame"}, {**page, "ts": at, "name": "RunTask", "ph": "X", "dur": 3000, "tdur": 2000},
                  {**page, "ts": at + 5000, "name": "RunTask", "ph": "X", "dur": 1000, "tdur": 500}, {**other, "ts": at, "name": "RunTask", "ph": "X", "dur": 9000}]
        if at >= frame * drawn // 2:  # nobody draws in the first half
            trace.append({**page, "ts": at + 100, "name": "EventDispatch", "args": {"data": {"type": "pointermove"}}})
    began = time.process_time()
    assert frames_of(trace) == [Frame(wall=4, cpu=2.5, apart=16)] * (drawn // 2 - 1)
    assert time.process_time() - began < 5


def test_a_trace_without_strokes_has_no_frames():
    assert frames_of([{"pid": 1, "tid": 1, "ts": 0, "name": "BeginMainThreadFrame"}]) == []

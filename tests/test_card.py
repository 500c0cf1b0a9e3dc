"""All kinds of request on a card that is not there: no mixed devices, no float64, and no step that waits for the card."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WAITING = {
    "sampler DPM adaptive": {"samplers/dpm_solver.py:sample_dpm_adaptive"},  # the error decides on the next step
    "step cache": {"families/step_cache.py:<genexpr>"},  # prompts are compared to find what is kept of them
    "step cache by need": {"families/step_cache.py:<genexpr>", "families/step_cache.py:change"},  # how much has changed decides
}
WAITING |= {f"float16, {name}": where for name, where in WAITING.items() if name.startswith("step cache")}
"""Kinds that have to know numbers of the card within a step, and where."""
KEEPING = "kept.py:bytes_of"
"""Once a second, as previews do, whatever the request."""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Every kind of request by name, made in a process of its own: torch's registration of a device cannot be undone."""
    run = subprocess.run([sys.executable, "-m", "tests.pretend_card", str(tmp_path_factory.mktemp("models"))], cwd=ROOT,
                         capture_output=True, text=True, check=False, timeout=900)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_every_kind_of_request_runs_on_a_card_without_float64(told):
    assert {name: one["error"] for name, one in told.items() if one["error"]} == {}
    assert len(told) > 90


def test_the_kinds_do_what_they_are_called(told):
    """A LoRA or refiner that is left out says so in a comment."""
    assert {name: one["comments"] for name, one in told.items() if one["comments"]} == {}


def test_no_step_waits_for_the_card_but_for_a_preview_and_to_keep_answers(told):
    waits = {name: set(one["waits"]) - WAITING.get(name, set()) - {KEEPING} for name, one in told.items()}
    assert {name: where for name, where in waits.items() if where} == {}


def test_waits_are_seen_where_there_are_some(told):
    assert all(told[name]["waits"].keys() - {KEEPING} == where for name, where in WAITING.items())

"""All kinds of request and model on a card that is not there: no mixed devices or precisions, and no step that waits for the card."""

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
WAITING |= {f"float16, {name}": where for name, where in WAITING.items() if name.startswith("step cache")} | {
    # its tokens are on the processor like its weights, and transformers moves them; once, when the refiner takes over
    "one layer at a time, refiner": {"families/clip.py:_run"},
    # diffusers makes its tables of rotations at the first call, of a model or for a size
    **{f"{name}, from noise": {f"families/{name.replace('-', '_').partition('_edit')[0]}.py:denoise"}
       for name in ("z-image", "qwen-image", "qwen-image-edit 2511")},
    # diffusers' transformer makes an index of the references' tokens from a list, at every call
    "qwen-image-edit 2511, mask": {"families/qwen_image.py:denoise"},
}
"""Kinds that wait for the card within a run of the solver, and where."""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Every kind of request by name, made in a process of its own: torch's registration of a device cannot be undone."""
    run = subprocess.run([sys.executable, "-m", "tests.pretend_card", str(tmp_path_factory.mktemp("models"))], cwd=ROOT,
                         capture_output=True, text=True, check=False, timeout=900)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_every_kind_of_request_runs_on_a_card(told):
    """Without float64, but for flows, which compute with it on CUDA."""
    assert {name: one["error"] for name, one in told.items() if one["error"]} == {}
    assert len(told) > 115


def test_the_kinds_do_what_they_are_called(told):
    """A LoRA or refiner that is left out says so in a comment."""
    assert {name: one["comments"] for name, one in told.items() if one["comments"]} == {}


def test_no_step_waits_for_the_card(told):
    """Neither for a preview nor to keep answers: both are copied to main memory while the card computes on."""
    waits = {name: set(one["waits"]) - WAITING.get(name, set()) for name, one in told.items()}
    assert {name: where for name, where in waits.items() if where} == {}


def test_waits_are_seen_where_there_are_some(told):
    assert all(told[name]["waits"].keys() == where for name, where in WAITING.items())

"""The tiny checkpoints of tiny.py and tiny_flow.py, each made and loaded once."""

from functools import cache

import pytest

from pipeline import families
from tests.families import tiny

FLOAT32 = families.placement.choose("cpu", "float32")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """kind → (its diffusers folder, its single file)."""
    return cache(lambda kind: tiny.make(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="session")
def load():
    """path → the family, in float32 on the CPU."""
    return cache(lambda path: families.load(path, FLOAT32))


@pytest.fixture(scope="session")
def flow_files(tmp_path_factory):
    """kind of flow_runs.KINDS → its files in every layout."""
    from tests.families import flow_runs

    return cache(lambda kind: flow_runs.KINDS[kind].make(tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="session")
def flow_model(flow_files):
    """(kind, layout) → the family."""
    from tests.families import flow_runs

    return cache(lambda kind, layout: flow_runs.load(flow_files(kind), layout))

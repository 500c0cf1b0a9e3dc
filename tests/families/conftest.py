"""The tiny checkpoints of tiny.py, each made and loaded once."""

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

"""The demo model, loaded once in float32 on the CPU, and small pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from pipeline import families
from pipeline.engine import local_engine

pytest_plugins = ["tests.sharing"]

ROOT = Path(__file__).parents[1]
DEMO_MODEL = ROOT / "assets" / "demo-model"


@pytest.fixture(scope="session")
def demo():
    """The embedded model."""
    info = replace(families.describe(DEMO_MODEL), hash="0123456789")
    return families.load(DEMO_MODEL, families.placement.choose("cpu", "float32"), info)


@pytest.fixture
def engine(demo):
    """An engine around the embedded model."""
    engine = local_engine(lambda options: demo)
    yield engine
    engine.close()


@pytest.fixture
def picture():
    """64x64, RGB: a gradient, so that every pixel differs from its neighbours."""
    image = Image.new("RGB", (64, 64))
    image.putdata([(4 * x, 4 * y, 2 * (x + y)) for y in range(64) for x in range(64)])
    return image


@pytest.fixture
def mask():
    """64x64, L: white from 24 to 39 on both axes."""
    image = Image.new("L", (64, 64))
    ImageDraw.Draw(image).rectangle((24, 24, 39, 39), fill=255)
    return image

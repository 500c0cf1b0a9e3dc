"""Small requests of the demo model."""

import pytest

from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.progress import Progress


@pytest.fixture
def request_for(demo, picture):
    """A function: fields → a request of 64x64, 2 steps, seed 1."""
    def make(**fields):
        settings = {"sd_model": demo, "init_images": [picture], "width": 64, "height": 64, "steps": 2, "seed": 1,
                    "sampler_name": "Euler", "prompt": "a forest", "denoising_strength": 0.6} | fields
        return StableDiffusionProcessingImg2Img(**settings)
    return make


class Watch(Progress):
    """Counts what it is told, and stops after so many batches if asked."""

    def __init__(self, stop_after=None):
        self.batches, self.done, self.stop_after = [], 0, stop_after

    @property
    def stopped(self):
        return self.done == self.stop_after

    def begin(self, batches):
        self.batches.append(batches)

    def batch_done(self):
        self.done += 1


@pytest.fixture
def watched(request_for):
    """A function: (stop_after, fields) → a request whose progress is watched."""
    def make(stop_after=None, **fields):
        p = request_for(**fields)
        p.progress = Watch(stop_after)
        return p
    return make

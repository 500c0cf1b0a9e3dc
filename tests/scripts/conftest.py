"""Small requests of the demo model."""

import pytest

from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.errors import Interrupted
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
    """Counts its calls; optionally stops after some batches, or interrupts the batch after them."""

    def __init__(self, stop_after=None, interrupt_behind=None):
        self.batches, self.done, self.stop_after, self.interrupt_behind = [], 0, stop_after, interrupt_behind

    @property
    def stopped(self):
        return self.done == self.stop_after or self.partial

    def checkpoint(self):
        if self.done == self.interrupt_behind:
            self.partial = True
            raise Interrupted

    def begin(self, batches):
        self.batches.append(batches)

    def batch_done(self):
        self.done += 1


@pytest.fixture
def watched(request_for):
    """A function: (stop_after, interrupt_behind, fields) → a request whose progress is watched."""
    def make(stop_after=None, interrupt_behind=None, **fields):
        p = request_for(**fields)
        p.progress = Watch(stop_after, interrupt_behind)
        return p
    return make

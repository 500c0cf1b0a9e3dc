"""What makes pictures faster and a little different, and the way back to the exact ones."""

from pipeline.options import FAST, SPECS
from pipeline.processing import StableDiffusionProcessingImg2Img

EXACT = {spec.name: spec.default for spec in SPECS.values() if spec.group == FAST}
"""The options that trade pixels for time, and their values that do not."""


def is_fast(p: StableDiffusionProcessingImg2Img) -> bool:
    """Whether a request trades pixels for time."""
    return any(getattr(p.options, name) != value for name, value in EXACT.items())


def exactly(p: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The same request without that."""
    return p.variant(override_settings=EXACT)

"""Options that trade exact pixels for speed, and the same request without them."""

from pipeline.options import FAST, SPECS
from pipeline.processing import StableDiffusionProcessingImg2Img

EXACT = {spec.name: spec.default for spec in SPECS.values() if spec.group == FAST}
"""The options that trade exact pixels for speed, with the values that keep pixels exact."""


def is_fast(p: StableDiffusionProcessingImg2Img) -> bool:
    """Whether a request trades exact pixels for speed."""
    return any(getattr(p.options, name) != value for name, value in EXACT.items())


def exactly(p: StableDiffusionProcessingImg2Img) -> StableDiffusionProcessingImg2Img:
    """The same request with exact pixels."""
    return p.variant(override_settings=EXACT)

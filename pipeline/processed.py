"""What came of a request: finished pictures and what is said of them, as plain data."""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pipeline.families.base import ModelInfo


@dataclass
class Processed:
    """What a job gave."""

    images: list[Image.Image]
    """Each with its infotext in info["parameters"] and its receipt beside it; a grid comes first, a mask right behind its
    picture."""
    infotexts: list[str]
    """One per image, "" for a mask."""
    paths: list[str | None]
    """The file of each image, None where it was not saved."""
    index_of_first_image: int
    """1 behind a grid, else 0."""
    all_prompts: list[str]
    all_negative_prompts: list[str]
    all_seeds: list[int]
    all_subseeds: list[int]
    comments: list[str]
    """Sentences for the person who asked: what was done otherwise than asked, and why."""
    interrupted: bool = False
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    """What infotext says besides the request."""
    model: ModelInfo | None = None
    """What the engine ran it with."""
    inpaints: bool = False
    """Whether that is a checkpoint for inpainting."""
    found: Image.Image | None = None
    """The picture that a replay was for."""

    @property
    def seed(self) -> int:
        return self.all_seeds[0]

    @property
    def info(self) -> str:
        return self.infotexts[0]

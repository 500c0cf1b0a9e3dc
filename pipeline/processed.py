"""The result of a request: finished pictures and what is said about them, as plain data."""

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pipeline.families.base import ModelInfo


@dataclass
class Processed:
    """The result of a run."""

    images: list[Image.Image]
    """Each with its infotext in info["parameters"] and its receipt beside it. A grid comes first, a mask directly after its
    picture."""
    infotexts: list[str]
    """One per image, "" for a mask."""
    paths: list[str | None]
    """The file of each image; None: not saved."""
    index_of_first_image: int
    """1 after a grid, else 0."""
    all_prompts: list[str]
    all_negative_prompts: list[str]
    all_seeds: list[int]
    all_subseeds: list[int]
    comments: list[str]
    """Sentences for the person who asked: what was done differently from the request, and why."""
    interrupted: bool = False
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    """Infotext parameters besides the request's."""
    model: ModelInfo | None = None
    """The model that it ran with."""
    inpaints: bool = False
    """Whether that model is an inpainting checkpoint."""
    found: Image.Image | None = None
    """The picture that a replay was looking for."""

    @property
    def seed(self) -> int:
        return self.all_seeds[0]

    @property
    def info(self) -> str:
        return self.infotexts[0]

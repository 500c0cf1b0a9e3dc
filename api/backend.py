"""What the routes work with: the engine and what is known around it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends
from starlette.requests import Request

from api.fetch import Fetcher
from pipeline.engine import Engine
from pipeline.loading import ModelStore
from pipeline.settings import Settings


@dataclass(frozen=True)
class Backend:
    engine: Engine
    models: ModelStore
    settings: Settings
    outputs: Path
    """The folder that save_images saves in."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """What the program was started with, less what is secret."""
    fetcher: Fetcher | None = None
    """Loads pictures from addresses; None: these are refused."""
    pictures: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """How many threads read and write pictures, so that they leave time to everybody else."""
    requests: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """How many threads read requests, which may wait for memory that answers in the making hold."""


async def backend_of(request: Request) -> Backend:
    return request.app.state.backend


Here = Annotated[Backend, Depends(backend_of)]
"""The Backend of the application that a route belongs to."""

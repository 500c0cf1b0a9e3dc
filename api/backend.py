"""What the API's routes share: the engine and its surroundings."""

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
from pipeline.upscalers.names import Upscalers


@dataclass(frozen=True)
class Backend:
    engine: Engine
    models: ModelStore
    settings: Settings
    outputs: Path
    """Folder for pictures of requests with save_images."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """The program's flags, without secrets."""
    fetcher: Fetcher | None = None
    """Loads pictures from addresses; None: addresses are refused."""
    lenient_scripts: bool = False
    """Whether unknown always-on scripts are left out with a comment instead of refused."""
    pictures: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Threads that decode and encode pictures, few enough to leave CPU time for others."""
    requests: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Threads that read requests; separate, as these may wait for memory held by answers."""

    @property
    def upscalers(self) -> Upscalers:
        """The upscalers that there are now; the engine runs their networks."""
        return Upscalers(self.models.catalog, self.engine.upscale)


async def backend_of(request: Request) -> Backend:
    return request.app.state.backend


Here = Annotated[Backend, Depends(backend_of)]
"""Injects the Backend of a route's application."""

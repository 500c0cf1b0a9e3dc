"""What visitors of a shared page may do with the API: make pictures, read lists, and watch and stop jobs of their own."""

from pathlib import Path
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from pipeline.engine import Engine
from pipeline.job import Job
from pipeline.limits import Client, network_of

PICTURES = ("img2img", "txt2img", "img2img/stream", "interrupt", "skip", "png-info")
LISTS = ("progress", "options", "samplers", "schedulers", "upscalers", "latent-upscale-modes", "sd-models", "sd-vae", "loras",
         "embeddings", "prompt-styles", "scripts", "script-info", "extensions", "hypernetworks", "face-restorers",
         "realesrgan-models")
OPEN = frozenset((*(("POST", f"/sdapi/v1/{name}") for name in PICTURES), *(("GET", f"/sdapi/v1/{name}") for name in LISTS),
                  ("POST", "/internal/progress"), ("GET", "/internal/ping"), ("GET", "/docs"), ("GET", "/openapi.json")))
"""(method, path) of what is not the owner's alone."""


def may_ask(method: str, path: str) -> bool:
    return (method, path) in OPEN


async def client_of(request: Request) -> Client:
    """Who asks, told by the login and the address that it comes with; the guard has seen to it that it may."""
    host, owner = request.client.host if request.client else "", request.state.owner
    return Client(f"api {request.state.user} {host}", network_of(host), program=True, owner=owner)


Who = Annotated[Client, Depends(client_of)]
"""Who asks."""


def job_of(who: Client, engine: Engine, id_task: str | None) -> Job | None:
    """The waiting or running job of that id, None: the running one; of a visitor only one that it has asked for itself.

    Visitors without an address, who come through a tunnel, have to name it: they cannot be told from each other.
    """
    job = engine.find(id_task)
    if job is None or who.owner:
        return job
    return job if job.client.id == who.id and (who.address or id_task) else None


def shown(path: Path, who: Client) -> str:
    """A file as who asks may know of it: visitors learn its name only."""
    return str(path) if who.owner else path.name

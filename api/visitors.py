"""Visitors' permissions in the API of a shared page: make pictures, read lists, watch and stop their own jobs."""

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
CONTROLNET = ("version", "model_list", "module_list", "control_types", "settings")
ADETAILER = ("version", "schema", "ad_model")
OPEN = frozenset((*(("POST", f"/sdapi/v1/{name}") for name in PICTURES), *(("GET", f"/sdapi/v1/{name}") for name in LISTS),
                  *(("GET", f"/controlnet/{name}") for name in CONTROLNET), ("POST", "/controlnet/detect"),
                  *(("GET", f"/adetailer/v1/{name}") for name in ADETAILER),
                  ("POST", "/internal/progress"), ("GET", "/internal/ping"), ("GET", "/docs"), ("GET", "/openapi.json")))
"""(method, path) of routes open to visitors."""


def may_ask(method: str, path: str) -> bool:
    return (method, path) in OPEN


async def client_of(request: Request) -> Client:
    """The client, identified by login and address; the guard has already admitted it."""
    host, owner = request.client.host if request.client else "", request.state.owner
    return Client(f"api {request.state.user} {host}", network_of(host), program=True, owner=owner)


Who = Annotated[Client, Depends(client_of)]
"""Injects the client."""


def job_of(who: Client, engine: Engine, id_task: str | None) -> Job | None:
    """The waiting or running job of that id; None: the running one. Visitors get only their own jobs.

    Visitors without an address, who come through a tunnel, must give an id, as they cannot be told apart.
    """
    job = engine.find(id_task)
    if job is None or who.owner:
        return job
    return job if job.client.id == who.id and (who.address or id_task) else None


def shown(path: Path, who: Client) -> str:
    """A file's path as the client may see it: visitors see only its name."""
    return str(path) if who.owner else path.name

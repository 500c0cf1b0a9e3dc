"""img2img and txt2img: requests join the page's queue and are answered when their pictures are done."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio import to_thread
from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.backend import Backend, Here
from api.bodies import let_go
from api.controlnet import over_pictures
from api.convert import answer, facts, picture_files, pixels_of, processing, task_id
from api.errors import COMMON, Json, error_answer
from api.models import (
    ContinueRequest, ErrorAnswer, GenerationRequest, ImagesAnswer, Img2ImgRequest, InterruptedJob, InvalidBody, Txt2ImgRequest)
from api.progress import progress_answer
from api.strict import StrictRequest, StrictRoute
from api.visitors import Who
from api.waiting import events
from pipeline.errors import InvalidRequest
from pipeline.job import Failed, Finished, Job
from pipeline.limits import Client

router = APIRouter(tags=["making pictures"], route_class=StrictRoute)

HEARTBEAT = 10
"""Seconds between keep-alive messages in a stream."""
ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "The init image is missing."},
    409: {"model": ErrorAnswer, "description": "The job was cancelled before it started."},
    429: {"model": ErrorAnswer, "description": "Too many of the client's jobs are waiting, or its quota is used up."},
    422: {"model": ErrorAnswer | InvalidBody, "description": COMMON[422]["description"]},
}


@router.post("/sdapi/v1/img2img", response_model=ImagesAnswer, responses=ERRORS)
async def img2img(body: Img2ImgRequest, here: Here, who: Who, request: Request) -> Response:
    """Make pictures from a picture: all of it, or where a mask is white."""
    return await generate(body, here, who, request)


@router.post("/sdapi/v1/txt2img", response_model=ImagesAnswer, responses=ERRORS)
async def txt2img(body: Txt2ImgRequest, here: Here, who: Who, request: Request) -> Response:
    """Make pictures from noise alone."""
    return await generate(body, here, who, request)


@router.post("/sdapi/v1/img2img/stream", responses=ERRORS | {200: {
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
    "description": 'Events "progress", each with the answer of GET progress, then one "result" with the ordinary answer, or '
                   'one "error" with its body and "status".'}}, response_class=StreamingResponse)
async def img2img_stream(body: Img2ImgRequest, here: Here, who: Who, request: Request) -> StreamingResponse:
    """Like img2img, but answered by server-sent events while it runs; disconnecting cancels it."""
    body, asked, job = await enqueue(body, here, who, request)
    return StreamingResponse(narrate(body, asked, job, here), media_type="text/event-stream",
                             headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


@router.get("/sdapi/v1/continue")
async def interrupted_jobs(here: Here) -> list[InterruptedJob]:
    """The jobs that can be continued, newest first; an addition to A1111."""
    def read() -> list[InterruptedJob]:
        journal = here.engine.journal
        return [] if journal is None else [InterruptedJob(id_task=entry.id, prompt=entry.prompt, created=entry.created,
                                                          pictures=len(entry.pictures)) for entry in journal.interrupted()]

    return await to_thread.run_sync(read, limiter=here.requests)


@router.post("/sdapi/v1/continue", response_model=ImagesAnswer, responses=ERRORS)
async def continue_job(body: ContinueRequest, here: Here, who: Who) -> Response:
    """Continue a job that was interrupted, to the pictures that it would have given; an addition to A1111.

    Its pictures are saved where they would have been. A disconnect does not cancel it.
    """
    def submit() -> tuple[dict[str, Any], Job]:
        if here.engine.journal is None:
            raise InvalidRequest("id_task", "id_task: there is no history here, so no job can be continued")
        p = here.engine.journal.to_continue(body.id_task)
        return facts(p), here.engine.submit([p], body.id_task, who)

    asked, job = await to_thread.run_sync(submit, limiter=here.requests)
    return await answer_with(await end_of(job), body, asked, here)


async def generate(body: GenerationRequest, here: Backend, who: Client, request: Request) -> Response:
    """Queue the request and answer with its pictures. A disconnect cancels jobs that are not to be saved."""
    body, asked, job = await enqueue(body, here, who, request)
    async with cancelled_by_hanging_up(request, job, here, keep=bool(body.save_images)):
        event = await end_of(job)
    return await answer_with(event, body, asked, here)


async def answer_with(event: Finished | Failed, body: GenerationRequest | ContinueRequest, asked: dict[str, Any],
                      here: Backend) -> Response:
    """The ordinary answer, or the error."""
    if isinstance(event, Failed):
        status, error = error_answer(event.error)
        return Json(error, status)
    data = await encode(body, asked, event, here)
    return Response(data, media_type="application/json")


async def encode(body: GenerationRequest | ContinueRequest, asked: dict[str, Any], event: Finished, here: Backend) -> bytes:
    """The ordinary answer's JSON."""
    return await to_thread.run_sync(answer, body, asked, event.results[0], event.elapsed, here.settings.options,
                                    limiter=here.pictures)


async def enqueue(body: GenerationRequest, here: Backend, who: Client,
                  request: Request) -> tuple[GenerationRequest, dict[str, Any], Job]:
    """(the request completed from its infotext, the values its answer repeats, its job), queued with the page's jobs.

    Raises InvalidRequest, TooMany, and HTTPException if it is not allowed.
    """
    if isinstance(body, Img2ImgRequest) and body.init_images is None:
        raise HTTPException(404, "Init image not found")
    understood, asked, job = await to_thread.run_sync(read_and_submit, body, here, who, limiter=here.requests)
    if isinstance(request, StrictRequest) and not repeats_pictures(body):
        request.forget()
        let_go(request.scope, without_pictures(body))
        without_pictures(understood)
    return understood, asked, job


def read_and_submit(body: GenerationRequest, here: Backend,
                    who: Client) -> tuple[GenerationRequest, dict[str, Any], Job]:
    """Like submit(). Blocks."""
    files = picture_files(body, here)
    with here.engine.shelf.reading(pixels_of(files)):
        body, p = processing(body, here, files)
        changes_options = body.override_settings_restore_afterwards is False and p.override_settings
        if changes_options and not who.owner:
            raise HTTPException(403, "override_settings_restore_afterwards: false is for logins of --api-auth on a shared page.")
        asked, job = facts(p), here.engine.submit([p], task_id(body), who)
    if changes_options:
        here.settings.change(p.override_settings, remember=False)
        here.engine.options = here.settings.options
    return body, asked, job


def repeats_pictures(body: GenerationRequest) -> bool:
    return isinstance(body, Img2ImgRequest) and bool(body.include_init_images)


def without_pictures(body: GenerationRequest) -> int:
    """Drop the pictures' text from a waiting request; returns its size in bytes."""
    texts: list[Any] = list(body.reference_images or [])
    body.reference_images = None
    body.alwayson_scripts = over_pictures(body.alwayson_scripts, texts.append)
    if not isinstance(body, Img2ImgRequest):
        return sum(len(text) for text in texts if isinstance(text, str))
    texts += [*(body.init_images or []), *(body.mask if isinstance(body.mask, list) else [body.mask])]
    body.init_images = body.mask = None
    return sum(len(text) for text in texts if isinstance(text, str))


async def end_of(job: Job) -> Finished | Failed:
    async for event in events(job):
        if isinstance(event, Finished | Failed):
            return event
    raise AssertionError("a job's last event is its end")


@asynccontextmanager
async def cancelled_by_hanging_up(request: Request, job: Job, here: Backend, *, keep: bool) -> AsyncIterator[None]:
    """Context in which a disconnect cancels the job; with `keep`, only while it waits, as its pictures are saved."""
    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not (keep and job.state == "running"):
            here.engine.cancel(job)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield
        tasks.cancel_scope.cancel()


async def narrate(body: GenerationRequest, asked: dict[str, Any], job: Job, here: Backend) -> AsyncIterator[str]:
    """The job's events in server-sent form."""
    try:
        async for event in events(job, HEARTBEAT):
            if event is None:
                yield ": still here\n\n"
            elif isinstance(event, Failed):
                status, error = error_answer(event.error)
                yield sse("error", json.dumps(error | {"status": status}))
            elif isinstance(event, Finished):
                data = await encode(body, asked, event, here)
                yield sse("result", data.decode("ascii"))
            else:
                said = await progress_answer(job, here, with_image=True)
                yield sse("progress", said.model_dump_json())
    finally:
        if job.state != "done":
            here.engine.cancel(job)


def sse(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"

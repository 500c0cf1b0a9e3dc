"""The web application: the page and the API behind the guard. The only package that imports fastapi."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match

from api import drafts as sent_drafts
from api import adetailer, controlnet, extras, generation, listing, options, outpainting, progress, reference, seam, selections, shown
from api.backend import Backend
from api.bodies import BodyLimit
from api.errors import COMMON, Json, handle_errors
from api.events import PageEvents, UploadLimit
from api.fetch import Fetcher
from api.guard import DRAFTS, LARGER, SELECTIONS, SHOWN, SHOWN_MASK, Guard
from api.logins import Login
from api.proxies import LOOK_AROUND, OwnAddress, Subpath
from api.sessions import OPEN, SESSIONS, Sessions
from api.web import WEB, Head, Web
from pipeline.drafts import Drafts
from pipeline.selecting import WAITING_IN_ALL, Selecting

MAX_UPLOAD = 64 * 2**20
"""Bytes per file uploaded to the page."""
THREADS = 512
"""Page events handled at once; each page that watches a job holds a thread for most of the time."""
MAX_BODY = 256
"""Default for MiB per API request."""
MAX_BODIES = 512
"""Default for MiB of all requests being read; decoding may briefly take up to four times as much."""
ABOUT = "The HTTP API of AUTOMATIC1111's Stable Diffusion web UI, as far as it concerns img2img, with additions."


def build_app(page: gr.Blocks | None, login: Login | None, *, backend: Backend | None = None, api_logins: Iterable[Login] = (),
              origins: Iterable[str] = (), max_body: int = MAX_BODY, max_bodies: int = MAX_BODIES,
              allowed_paths: Iterable[str] = (), shared: bool = False, subpath: str = "", drafts: Drafts | None = None,
              selecting: Selecting | None = None, web: Path | None = None, head: str = "", **look: Any) -> FastAPI:
    """The application: the page at "/", with the API's routes before it.

    login: required on every route, or None; api_logins: also accepted by the API. shared: `login` is for visitors, who may use
    only part of the API, and the others are for the owner. backend: what the API works with; None: no API. origins: other sites
    whose pages may send requests. max_body: MiB per API request; max_bodies: MiB of all requests together.
    allowed_paths: folders that the page may show files from; subpath: the path under a proxy, such as "/palimpsest";
    drafts: stores uploads of the page's canvases; selecting: selects objects in them; web: the folder of the page's scripts;
    head: what starts them; look: theme and style of the page.
    """
    app = FastAPI(title="Palimpsest", description=ABOUT, docs_url=None, redoc_url=None, openapi_url=None,
                  default_response_class=Json, servers=[{"url": subpath}] if subpath else None)
    if backend is not None:
        mount_api(app, backend)
    if page is not None and backend is not None:
        app.add_route(SHOWN, shown.shown_picture, methods=["POST"], include_in_schema=False)
        app.add_route(SHOWN_MASK, shown.shown_mask, methods=["POST"], include_in_schema=False)
    if drafts is not None:
        app.state.drafts = drafts
        app.add_route(DRAFTS, sent_drafts.send, methods=["POST"], include_in_schema=False)
        app.add_route(DRAFTS, sent_drafts.held, methods=["GET"], include_in_schema=False)
    if selecting is not None:
        app.state.selecting, app.state.selecting_threads = selecting, CapacityLimiter(WAITING_IN_ALL)
        app.add_route(SELECTIONS, selections.select, methods=["POST"], include_in_schema=False)
        app.add_route(SELECTIONS, selections.models, methods=["GET"], include_in_schema=False)
    if drafts is not None and backend is not None:
        app.add_route(LARGER, outpainting.larger_picture, methods=["POST"], include_in_schema=False)
    if web is not None:
        app.mount(WEB, Web(directory=web))
    if page is not None:
        # Gradio checks which files visitors may name only for pages that it launched itself
        page.has_launched = page.is_running = True
        page.state_session_capacity = OPEN + SESSIONS
        page.max_threads = THREADS
        app = gr.mount_gradio_app(app, page, path="/", run_history=False, footer_links=[], max_file_size=MAX_UPLOAD,
                                  ssr_mode=False, enable_monitoring=False, allowed_paths=list(allowed_paths), root_path=subpath or None, **look)
    if page is not None:
        app.add_middleware(Sessions, page=page)
        app.add_middleware(Head, head=LOOK_AROUND + head)
    if shared:
        app.add_middleware(UploadLimit)
    app.add_middleware(OwnAddress, origins=list(origins))
    app.add_middleware(PageEvents, drafts=drafts)
    app.add_middleware(BodyLimit, limit=max_body << 20, in_all=max_bodies << 20)
    app.add_middleware(Guard, login=login, api_logins=list(api_logins), origins=list(origins), shared=shared)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"],
                           allow_credentials=True)
    if subpath:
        app.add_middleware(Subpath, subpath=subpath)
    return app


def mount_api(app: FastAPI, backend: Backend) -> None:
    """Add every route of the API, and 404 for all other paths."""
    app.state.backend = backend
    handle_errors(app)
    api = APIRouter(strict_content_type=False, responses=COMMON)
    for topic in (generation, progress, options, listing, extras, seam, controlnet, adetailer, reference):
        api.include_router(topic.router)
    app.include_router(api)
    for prefix in ("/sdapi", "/internal", "/controlnet", "/adetailer"):
        app.add_route(prefix + "/{path:path}", nothing_here, include_in_schema=False,
                      methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


async def nothing_here(request: Request) -> Response:
    """Redirect to the path without a trailing slash, as FastAPI does; 405 if the path exists for another method; else 404.

    Otherwise Gradio's page would answer.
    """
    if request.url.path.endswith("/"):
        # relative, as the server may have another address behind a proxy
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"../{request.url.path.rstrip('/').rpartition('/')[2]}{query}", 307)
    there = any(route.matches(request.scope)[0] is Match.PARTIAL for route in request.app.routes)
    return Json({"detail": "Method Not Allowed"}, 405) if there else Json({"detail": "Not Found"}, 404)


__all__ = ["SESSIONS", "Backend", "Fetcher", "build_app"]

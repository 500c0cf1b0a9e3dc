"""The web application: the page behind the guard. The only package that imports fastapi."""

import gradio as gr
from fastapi import FastAPI

from api.guard import Guard

MAX_UPLOAD = 64 * 2**20
"""Bytes of one uploaded file."""


def build_app(page: gr.Blocks, login: tuple[str, str] | None, *, allowed_paths: list[str], **look) -> FastAPI:
    """The page on "/". login: (user, password) that every route asks for, or None; allowed_paths: folders that the page
    itself shows files from; look: theme and style of the page.
    """
    # Gradio checks which files a visitor may name only on pages that it has launched itself
    page.has_launched = page.is_running = True
    app = FastAPI(title="Palimpsest", docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(app, page, path="/", run_history=False, footer_links=[], max_file_size=MAX_UPLOAD,
                              ssr_mode=False, enable_monitoring=False, allowed_paths=allowed_paths, **look)
    app.add_middleware(Guard, login=login)
    return app

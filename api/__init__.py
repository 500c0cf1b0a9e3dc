"""The web application: the page behind the guard. The only package that imports fastapi."""

import gradio as gr
from fastapi import FastAPI

from api.guard import Guard

MAX_UPLOAD = 64 * 2**20
"""Bytes of one uploaded file."""


def build_app(page: gr.Blocks, login: tuple[str, str] | None, **look) -> FastAPI:
    """The page on "/". login: (user, password) that every route asks for, or None; look: theme and style of the page."""
    app = FastAPI(title="Palimpsest", docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(app, page, path="/", run_history=False, footer_links=[], max_file_size=MAX_UPLOAD,
                              ssr_mode=False, enable_monitoring=False, **look)
    app.add_middleware(Guard, login=login)
    return app

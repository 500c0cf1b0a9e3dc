"""The page's own scripts and styles, which its parts load as modules."""

import os

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = "/web"
"""Where they are served."""
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Told here, as a machine may know .js by another name and browsers then refuse it."""


class Web(StaticFiles):
    """Files by their kinds; browsers ask each time whether theirs is still the newest."""

    def file_response(self, full_path: os.PathLike | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        if kind := KINDS.get(os.path.splitext(full_path)[1]):
            response.headers["Content-Type"] = f"{kind}; charset=utf-8"
        return response

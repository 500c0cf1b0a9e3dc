"""Canvas pictures and masks that browsers upload ahead of a request, as files that only their visitor can name."""

import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InvalidRequest, TooMany
from pipeline.geometry import Size
from pipeline.uploads import open_file, upright_size

MAX_BYTES = 64 * 2**20
"""Per file."""
FILES = 32
"""Per visitor; the least recently used one makes room for a new one."""
BYTES = 512 * 2**20
"""Per visitor."""
BYTES_IN_ALL = 8 * 2**30
LIFETIME = 24 * 3600.0
"""Seconds that a file is kept after its last use."""
NAME = re.compile("[0-9a-f]{32}")


@dataclass
class Draft:
    """An uploaded file."""

    path: Path
    visitor: str
    bytes: int
    used: float


class Drafts:
    """Files under unguessable names, limited per visitor. Any thread may use it. clock: seconds."""

    def __init__(self, *, files: int = FILES, bytes: int = BYTES, bytes_in_all: int = BYTES_IN_ALL, lifetime: float = LIFETIME,
                 clock: Callable[[], float] = time.monotonic):
        self._files, self._bytes, self._bytes_in_all, self._lifetime, self._clock = files, bytes, bytes_in_all, lifetime, clock
        self._drafts: dict[str, Draft] = {}
        """By name, least recently used first."""
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory | None = None

    def room(self) -> Path:
        """The path of a new file to write, which keep() then takes over."""
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="palimpsest-drafts-", ignore_cleanup_errors=True)
            if shutil.disk_usage(self._folder.name).free < 2 * MAX_BYTES:
                raise TooMany("The server's disk is full; the picture could not be kept.")
            return Path(self._folder.name) / secrets.token_hex(16)

    def keep(self, path: Path, visitor: str, field: str) -> tuple[str, Size]:
        """(the name of a file from room(), the upright size of its picture).

        Raises InvalidRequest naming `field` if it is not a picture, TooMany if there is no room; either way the file is gone.
        """
        try:
            image = open_file(path, field)
            size, length = upright_size(image), path.stat().st_size
            with self._lock:
                self._expire()
                if sum(draft.bytes for draft in self._drafts.values()) + length > self._bytes_in_all:
                    raise TooMany("There is no room for more pictures now; try again later.")
                self._drafts[path.name] = Draft(path, visitor, length, self._clock())
                self._make_room(visitor)
        except Exception:
            path.unlink(missing_ok=True)
            raise
        return path.name, size

    def keep_bytes(self, data: bytes, visitor: str, field: str) -> str:
        """Keep a picture's bytes and return the draft's name. Raises as keep() does, and InvalidRequest for too many bytes."""
        if len(data) > MAX_BYTES:
            raise InvalidRequest(field, f"{field}: the picture's file would have more than {MAX_BYTES >> 20} MiB; make it smaller")
        path = self.room()
        try:
            path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return self.keep(path, visitor, field)[0]

    def owned(self, name: str, visitor: str) -> bool:
        """Whether this visitor uploaded the file of that name and it still exists."""
        with self._lock:
            self._expire()
            draft = self._drafts.get(name)
            return draft is not None and bool(visitor) and secrets.compare_digest(draft.visitor, visitor)

    def path(self, name: str, field: str) -> str:
        """The path of that file, marked as just used. Raises InvalidRequest naming `field`."""
        with self._lock:
            self._expire()
            draft = self._drafts.pop(name, None)
            if draft is None:
                raise InvalidRequest(field, f"{field}: the picture is no longer kept; add it again")
            draft.used = self._clock()
            self._drafts[name] = draft
            return str(draft.path)

    def _expire(self) -> None:
        ended = self._clock() - self._lifetime
        for name, draft in list(self._drafts.items()):
            if draft.used >= ended:
                break
            self._drop(name)

    def _make_room(self, visitor: str) -> None:
        """Drop a visitor's oldest files beyond the limits, but never the newest."""
        own = [name for name, draft in self._drafts.items() if draft.visitor == visitor]
        while len(own) > 1 and (len(own) > self._files or sum(self._drafts[name].bytes for name in own) > self._bytes):
            self._drop(own.pop(0))

    def _drop(self, name: str) -> None:
        self._drafts.pop(name).path.unlink(missing_ok=True)

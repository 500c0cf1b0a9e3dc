"""Opens small files safely: only regular files, of bounded size, so that none can block the program."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import ModelError

MAX_JSON = 1 << 20
"""Bytes of a config; real ones have a few thousand."""
MAX_REASON = 200
"""Characters quoted from a parser's message, which may itself quote the file."""


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. Raises OSError, also for pipes, devices and folders; never blocks."""
    file = open(path, "rb", opener=open_at_once)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def open_at_once(path: str, flags: int) -> int:
    """A file descriptor, without blocking on a pipe that nobody writes to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
    return content


def read_json(path: Path, limit: int = MAX_JSON) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file does not exist. Raises ModelError."""
    label = f"{path.parent.name}/{path.name}"
    try:
        value = json.loads(read_bytes(path, limit).decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f'"{label}" cannot be read: {reason(error)}') from error
    if not isinstance(value, dict):
        raise ModelError(f'"{label}" cannot be read: it must contain a JSON object, {{...}}')
    return value


def reason(error: Exception) -> str:
    """An error's message, on one line and short."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(" ".join(said.split()) or type(error).__name__, MAX_REASON)


def shortened(text: str, limit: int) -> str:
    """The text, cut to `limit` characters with … at the end."""
    return text if len(text) <= limit else text[:limit - 1] + "…"

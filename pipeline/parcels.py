"""Messages between machines: pickles that hold nothing but data."""

import io
import pickle
from dataclasses import is_dataclass
from typing import Any

from pipeline.errors import PalimpsestError

PLAIN = {
    "builtins": {"set", "frozenset", "complex", "bytearray", "range", "slice", "MemoryError"},
    "collections": {"OrderedDict", "deque", "Counter"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "PurePath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "PurePath"},
    "numpy": {"dtype", "ndarray"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "PIL.Image": {"Image"},
    "pipeline.bound": {"unpickled"},
    "pipeline.styles": {"StyleDatabase"},
}
"""By module: the names that a message may hold, beside the records and errors of this program."""


class Unwelcome(PalimpsestError):
    """A message that holds more than data."""


def pack(thing: Any) -> bytes:
    return pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)


def unpack(parcel: bytes) -> Any:
    """What was packed. Raises Unwelcome if it holds anything but data; then nothing of it has run."""
    return Unpacker(io.BytesIO(parcel)).load()


class Unpacker(pickle.Unpickler):
    """Refuses every function and class that is not known to be harmless."""

    def find_class(self, module: str, name: str) -> Any:
        if name in PLAIN.get(module, ()) and "." not in name:
            return super().find_class(module, name)
        if module.startswith("pipeline.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and found.__module__ == module and (is_dataclass(found) or issubclass(found, (Exception, tuple))):
                return found
        if module.startswith("PIL.") and name.endswith("ImageFile"):  # a picture that was read from a file
            return super().find_class(module, name)
        raise Unwelcome(f"A message from another machine holds {module}.{name}, which is not data; it was not opened")

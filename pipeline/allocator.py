"""What glibc does with memory that was freed: it keeps it for the next computation, and gives it back when it is told to.

By itself it takes each large tensor's memory from the system and returns it at once, and the system fills it with zeros
every time, which is a sixth of a UNet call on two cores and more of an autoencoder's (`python -m benchmarks unet "freed
memory kept"`). Kept memory lies in pieces, so that a process may take twice as much. Elsewhere than on glibc nothing here
does anything.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
"""Parameters of mallopt(3)."""
LARGE = 32 << 20
"""Bytes that glibc by itself takes from the system apart, in the end."""


def share_arena() -> None:
    """Let what one thread frees serve another. To be called before there are threads."""
    set_parameters({M_ARENA_MAX: 1})


def keep_freed(keep: bool) -> None:
    """From now on keep memory that is freed, or do as glibc does by itself."""
    kept, usual = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}, {M_MMAP_MAX: 1 << 16, M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: 2 * LARGE}
    set_parameters(kept if keep else usual)


def give_back() -> None:
    """Give all that was freed back to the system."""
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def set_parameters(values: dict[int, int]) -> None:
    if (library := glibc()) is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None

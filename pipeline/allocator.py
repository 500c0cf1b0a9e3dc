"""Keeps memory freed by tensors for the next computation, and returns it to the system on request. Needs glibc.

By default glibc takes each large tensor's memory from the system and returns it at once, and the system zeroes it every
time: a sixth of a UNet call on two cores, more of an autoencoder's (`python -m benchmarks unet "freed memory kept"`).
Kept memory gets fragmented, so a process may take twice as much. Without glibc, nothing here has any effect.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8
"""Parameters of mallopt(3)."""
LARGE = 32 << 20
"""Bytes: glibc's own upper bound of M_MMAP_THRESHOLD, above which it maps each allocation separately."""


def share_arena() -> None:
    """Let memory freed by one thread serve another. Call it before starting threads."""
    set_parameters({M_ARENA_MAX: 1})


def keep_freed(keep: bool) -> None:
    """Keep freed memory from now on, or go back to glibc's defaults."""
    kept, usual = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}, {M_MMAP_MAX: 1 << 16, M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: 2 * LARGE}
    set_parameters(kept if keep else usual)


def give_back() -> None:
    """Return all freed memory to the system."""
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def set_parameters(values: dict[int, int]) -> None:
    if (library := glibc()) is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)


def glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None

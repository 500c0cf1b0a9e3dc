"""Freed memory stays with the process until it is given back."""

import subprocess
import sys

import pytest

MIB = 1 << 20
PROGRAM = """
import os
import sys

import numpy as np

from pipeline import allocator


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


allocator.keep_freed(True)
if sys.argv[1] == "leave":
    allocator.keep_freed(False)
before = resident()
for size in (200, 100, 150):
    np.ones(size << 20, np.uint8)
after = resident()
allocator.give_back()
print(after - before, resident() - before)
"""


def growth(how: str) -> tuple[int, ...]:
    """Bytes that the process grew by once three arrays were made and freed, and once that was given back."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split()))


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to do")


def test_freed_memory_is_kept_for_what_comes_next_and_then_given_back():
    kept, given_back = growth("keep")
    assert 190 * MIB < kept < 260 * MIB  # the first array's, in which the others lay
    assert given_back < 10 * MIB


def test_large_pieces_can_go_back_at_once_again():
    freed, _ = growth("leave")
    assert freed < 10 * MIB

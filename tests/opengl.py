"""Finds the system's OpenGL libraries, or installs them if possible. Skia is linked to them, although it draws without them.
Run as a program, by launch.py.
"""

import os
import sys

from browser import is_debian, succeeds

PACKAGES = ["libgl1", "libegl1"]
IMPORT = [sys.executable, "-c", "import skia"]


def main() -> None:
    if succeeds(IMPORT, seconds=60):
        return
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    if is_debian() and os.geteuid() == 0 and succeeds([*apt, "update"], seconds=300) and succeeds(
            [*apt, "install", "-y", "--no-install-recommends", *PACKAGES], seconds=300) and succeeds(IMPORT, seconds=60):
        return
    sys.exit(f"Skia, which draws the demo model's pictures, cannot be imported; install {' and '.join(PACKAGES)} (Debian's names)")


if __name__ == "__main__":
    main()

"""Finds a Chromium for the browser tests, or installs one if possible.

As a program, it prints the path.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class BrowserMissing(RuntimeError):
    pass


def find_chromium() -> str:
    """The path of a working Chromium. Raises BrowserMissing if none is found or can be installed."""
    # Debian's package before playwright's download: it includes the system libraries that Chromium needs.
    for source in (on_path, of_playwright, from_debian, from_playwright):
        if path := source():
            return path
    raise BrowserMissing(
        "no Chromium found, and none could be installed; install Chromium or Google Chrome so that `chromium` or "
        "`google-chrome` is on the PATH, or run: playwright install --with-deps chromium"
    )


def on_path() -> str | None:
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path and runs(path)), None)


def of_playwright() -> str | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as driver:
        path = driver.chromium.executable_path
    return path if runs(path) else None


def from_debian() -> str | None:
    # Not for Ubuntu, where that package only installs a snap.
    if not (is_debian() and os.geteuid() == 0):
        return None
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"]
    updated = succeeds([*apt, "update"], seconds=300)
    if updated and succeeds([*apt, "install", "-y", "--no-install-recommends", "chromium"], seconds=900):
        return on_path()
    return None


def from_playwright() -> str | None:
    if succeeds([sys.executable, "-m", "playwright", "install", "chromium"], seconds=900):
        return of_playwright()
    return None


def is_debian() -> bool:
    release = Path("/etc/os-release")
    return release.exists() and "ID=debian" in release.read_text().splitlines()


def runs(path: str) -> bool:
    # On Windows, Chrome opens a window for --version.
    return os.path.exists(path) if os.name == "nt" else succeeds([path, "--version"], seconds=60, output=subprocess.DEVNULL)


def succeeds(command: list[str], seconds: float, output: int = 2) -> bool:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        # Output goes to standard error: launch.py shows its latest line, and standard output is for the path.
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                       stderr=subprocess.DEVNULL if output == subprocess.DEVNULL else None, check=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


if __name__ == "__main__":
    try:
        print(find_chromium())
    except BrowserMissing as missing:
        sys.exit(f"{missing}")

"""Starts Palimpsest, and on the first start installs it beside this file:

    python3 launch.py [flags of app.py]
    python3 launch.py test [arguments of pytest]

Needs only Python. This file sticks to syntax and imports of Python 3.6, so that an old Python gets as far as
check_python and its message.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent

# Requirement files in order of installation, each with extra pip flags.
APP_PACKAGES = {"requirements.txt": []}
# The oracles are old packages used only to compare numbers; their own pins would undo ours.
TEST_PACKAGES = {"requirements-dev.txt": [], "requirements-ray.txt": [], "requirements-oracles.txt": ["--no-deps"]}
CONSTRAINTS = "constraints.txt"


class LaunchFailed(Exception):
    """A message for the person at the terminal, shown instead of a traceback."""


def main(arguments: list, root: Path = ROOT) -> int:
    try:
        check_python(sys.version_info)
        if arguments[:1] == ["test"]:
            return run_tests(root, arguments[1:])
        python = ensure_installed(root, "installed-app", APP_PACKAGES)
        return hand_over([python, str(root / "app.py")] + arguments)
    except LaunchFailed as failure:
        say(str(failure))
    except OSError as error:
        say(f"Palimpsest cannot start: {error}")
    except KeyboardInterrupt:
        say("\nStopped. The next start finishes the installation.")
        return 130
    return 1


def run_tests(root: Path, arguments: list) -> int:
    python = ensure_installed(root, "installed-app", APP_PACKAGES)
    ensure_installed(root, "installed-tests", TEST_PACKAGES)
    run_step("Checking for a browser", [python, str(root / "tests" / "browser.py")])
    run_step("Checking for OpenGL", [python, str(root / "tests" / "opengl.py")])
    os.chdir(str(root))
    return hand_over([python, "-m", "pytest"] + arguments)


def check_python(version: tuple) -> None:
    if tuple(version[:2]) < OLDEST_PYTHON:
        came = ".".join(str(number) for number in version[:3])
        needed = ".".join(str(number) for number in OLDEST_PYTHON)
        raise LaunchFailed(
            f"Palimpsest needs Python {needed} or newer, but {sys.executable} is Python {came}; "
            "start launch.py with a newer one."
        )


def ensure_installed(root: Path, stamp_name: str, packages: dict) -> str:
    """The path of the virtual environment's Python, with `packages` installed.

    A stamp is written last, so an interrupted installation continues at the next start. Meanwhile a marker file lies in the
    environment: if it is found later, packages may be half installed, and the environment is rebuilt.
    """
    venv = root / ".venv"
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = venv / stamp_name
    wanted = stamp_text(root, packages)
    unfinished = venv / "unfinished"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted and not unfinished.exists():
        return str(python)

    clear = unfinished.exists() or is_of_another_python(venv)
    venv.mkdir(exist_ok=True)
    unfinished.touch()
    if stamp.exists():
        stamp.unlink()  # otherwise it would be valid again after an abort and a return to older pins
    if clear or not has_pip(python):
        make_venv(venv, clear)
    unfinished.touch()  # --clear has removed it
    try:
        for name, flags in packages.items():
            install(root, python, name, flags)
    except LaunchFailed:
        unfinished.unlink()  # pip ended by itself, leaving no half-installed package
        raise
    stamp.write_text(wanted)
    unfinished.unlink()
    return str(python)


def stamp_text(root: Path, packages: dict) -> str:
    digest = hashlib.sha256()
    for name in list(packages) + [CONSTRAINTS]:
        digest.update((root / name).read_bytes())
    return "Python {}.{} {}\n".format(*sys.version_info[:2], digest.hexdigest())


def is_of_another_python(venv: Path) -> bool:
    """Whether `venv` belongs to another minor version, whose packages this Python would not find."""
    config = venv / "pyvenv.cfg"
    if not config.exists():
        return False
    ours = "{}.{}".format(*sys.version_info[:2])
    fields = [line.partition("=") for line in config.read_text().splitlines()]
    versions = [value.strip() for key, _, value in fields if key.strip() in ("version", "version_info")]
    return ours not in [".".join(version.split(".")[:2]) for version in versions]


def has_pip(python: Path) -> bool:
    if not python.exists():
        return False
    command = [str(python), "-m", "pip", "--version"]
    return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def make_venv(venv: Path, clear: bool) -> None:
    """Create the environment; in an existing one add only what is missing, unless `clear`."""
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        package = "python{}.{}-venv".format(*sys.version_info[:2])
        raise LaunchFailed(
            f"{sys.executable} cannot make virtual environments, because its venv or ensurepip module is missing; "
            f"on Debian and Ubuntu install it with: apt install {package}"
        )
    command = [sys.executable, "-m", "venv", str(venv)] + (["--clear"] if clear else [])
    run_step("Making .venv", command, advice=f"Check that {venv} can be written, or delete it, and start again.")


def install(root: Path, python: Path, requirements: str, flags: list) -> None:
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    run_step(
        f"Installing {requirements}",
        pip + flags + ["-r", str(root / requirements)],
        advice="Check the network and the free disk space, and start again. If a version is not found, it is not available "
        "for this system: torch needs Python 3.11 to 3.14, and Linux, Windows, or macOS 14 on Apple silicon.",
        describe=lambda line: pip_progress(root / ".venv", line),
    )


def pip_progress(venv: Path, line: str) -> str:
    """pip's current activity for its latest line of output; pip reports downloads but not unpacking."""
    if line.startswith("Downloading"):
        return line
    folder = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
    return "{} packages installed".format(len(list(venv.glob(f"{folder}/*.dist-info"))))


def run_step(title: str, command: list, advice: str = "", describe=str, plain_seconds: float = 15) -> None:
    """Run one command, showing only progress; its output is shown only if it fails.

    describe: turns the latest line of output into the progress text.
    plain_seconds: seconds between progress lines if standard error is not a terminal.
    """
    # PIP_USER would install the packages outside the environment.
    environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", PIP_USER="0")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    lines = deque(maxlen=5)
    reader = threading.Thread(target=keep_last_lines, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        show_progress(process, title, lambda: describe(lines[-1] if lines else ""), plain_seconds)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    reader.join(timeout=5)  # a grandchild may hold the pipe open for longer
    if process.returncode != 0:
        last_words = "".join(f"    {line[:300]}\n" for line in list(lines))
        raise LaunchFailed(f"{title} failed. Its last output:\n{last_words}{advice}".rstrip())


def keep_last_lines(stream, lines: deque) -> None:
    with stream:
        lines.extend(line.strip() for line in stream if line.strip())


def show_progress(process: subprocess.Popen, title: str, latest, plain_seconds: float) -> None:
    """Show progress until `process` ends: one updating line on a terminal, else a new line every `plain_seconds`."""
    on_terminal = sys.stderr.isatty()
    show = overwrite_line if on_terminal else say
    started = time.monotonic()
    if not on_terminal:
        say(title)
    while True:
        try:
            process.wait(timeout=1 if on_terminal else plain_seconds)
            break
        except subprocess.TimeoutExpired:
            show(f"{title}: {time.monotonic() - started:.0f} s  {latest()}"[:120])
    seconds = time.monotonic() - started
    if process.returncode == 0 and seconds >= 1:
        show(f"{title}: done in {seconds:.0f} s")
    if on_terminal and seconds >= 1:
        say("")


def overwrite_line(text: str) -> None:
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write("\r" + text[:width].ljust(width))
    sys.stderr.flush()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def hand_over(command: list) -> int:
    """Replace this process by `command`; on Windows, which lacks that, run it and return its exit status."""
    if os.name == "nt":
        return run_as_child(command)
    os.execv(command[0], command)


def run_as_child(command: list) -> int:
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # Ctrl+C reached the child too; let it finish


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

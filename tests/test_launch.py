"""What launch.py does on a fresh machine, shown with a repository of one empty package and no network."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import launch
from tests import browser

ROOT = Path(launch.__file__).parent
APP = """
import json, sys, importlib.metadata
print(json.dumps({"flags": sys.argv[1:], "prefix": sys.prefix, "tiny": importlib.metadata.version("tiny")}))
sys.exit(7)
"""


@pytest.fixture
def repository(tmp_path):
    """A folder with launch.py and an app that needs the package `tiny`."""
    return make_repository(tmp_path)


@pytest.fixture(scope="module")
def first_start(tmp_path_factory):
    """Such a folder after its first start, and how that start went."""
    folder = make_repository(tmp_path_factory.mktemp("started"))
    return folder, start(folder, "--port", "1", "a b", "--", "test")


@pytest.fixture
def started(first_start, tmp_path):
    return Path(shutil.copytree(first_start[0], tmp_path / "started", symlinks=True))


@pytest.fixture
def steps(monkeypatch):
    """The commands of the steps that launch.py takes, which are not run."""
    commands = []
    monkeypatch.setattr(launch, "run_step", lambda title, command, **_: commands.append(command))
    monkeypatch.setattr(launch, "has_pip", lambda python: python.exists())
    return commands


def make_repository(folder: Path) -> Path:
    shutil.copy(ROOT / "launch.py", folder)
    (folder / "app.py").write_text(APP)
    (folder / "constraints.txt").write_text("")
    require(folder, version="1.0")
    return folder


def require(repository: Path, *, version: str) -> None:
    wheel = repository / f"tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"tiny-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (repository / "requirements.txt").write_text(f"tiny @ {wheel.as_uri()}\n")


def start(repository: Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, repository / "launch.py", *flags],
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )


def pretend_installed(repository: Path) -> None:
    """Leaves what a finished installation leaves, less the packages."""
    python = repository / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python.parent.mkdir(parents=True)
    python.touch()
    (repository / ".venv" / "pyvenv.cfg").write_text("version = {}.{}.0\n".format(*sys.version_info[:2]))
    stamp = launch.stamp_text(repository, launch.APP_PACKAGES)
    (repository / ".venv" / "installed-app").write_text(stamp)


def ensure_app(repository: Path) -> str:
    return launch.ensure_installed(repository, "installed-app", launch.APP_PACKAGES)


def test_the_first_start_installs_and_starts_the_app_with_the_flags(first_start):
    folder, first = first_start
    assert first.returncode == 7, first.stderr
    told = json.loads(first.stdout)
    assert told == {"flags": ["--port", "1", "a b", "--", "test"], "prefix": str(folder / ".venv"), "tiny": "1.0"}
    assert "Installing requirements.txt" in first.stderr


def test_the_second_start_installs_nothing(started):
    shutil.rmtree(next(started.glob(".venv/[Ll]ib/**/site-packages/pip")))
    second = start(started)
    assert (second.returncode, second.stderr) == (7, "")


def test_a_changed_requirement_is_installed_at_the_next_start(started):
    require(started, version="2.0")
    assert json.loads(start(started).stdout)["tiny"] == "2.0"


def test_failed_install_says_which_step_and_what_pip_said_and_starts_nothing(started):
    (started / "requirements.txt").write_text("no-such-package==1.0\n")
    for failed in (start(started), start(started)):
        assert (failed.returncode, failed.stdout) == (1, "")
        assert "Installing requirements.txt failed" in failed.stderr
        assert "No matching distribution found for no-such-package==1.0" in failed.stderr
        assert "start again" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "Making .venv" not in failed.stderr  # what was installed before is kept


def test_a_missing_requirements_file_is_a_sentence(repository, capsys):
    (repository / "requirements.txt").unlink()
    assert launch.main([], root=repository) == 1
    assert "requirements.txt" in capsys.readouterr().err


def test_an_installation_that_is_stamped_takes_no_steps(repository, steps):
    pretend_installed(repository)
    ensure_app(repository)
    assert steps == []


@pytest.mark.parametrize("changed", ["requirements.txt", "constraints.txt"])
def test_a_changed_pin_is_installed_into_the_same_environment(repository, steps, changed):
    pretend_installed(repository)
    (repository / changed).write_text("# changed\n")
    ensure_app(repository)
    [installing] = steps
    assert installing[-2:] == ["-r", str(repository / "requirements.txt")]
    steps.clear()
    ensure_app(repository)
    assert steps == []


def test_an_environment_of_another_python_is_made_anew(repository, steps):
    pretend_installed(repository)
    (repository / ".venv" / "installed-app").write_text("Python 3.9\n")
    (repository / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.9.2\n")
    ensure_app(repository)
    assert "--clear" in steps[0]


def test_an_interrupted_install_is_made_anew_even_for_the_pins_before_it(repository, monkeypatch, steps, capsys):
    pretend_installed(repository)
    pins_before = (repository / "requirements.txt").read_text()
    (repository / "requirements.txt").write_text("# changed\n")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(launch, "install", interrupt)
        assert launch.main([], root=repository) == 130
    assert "Stopped" in capsys.readouterr().err

    steps.clear()
    (repository / "requirements.txt").write_text(pins_before)
    ensure_app(repository)
    making, installing = steps
    assert "--clear" in making
    assert installing[-2:] == ["-r", str(repository / "requirements.txt")]
    assert not (repository / ".venv" / "unfinished").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_ends_the_step_that_runs(tmp_path):
    told = tmp_path / "pid"
    step = f"import os, pathlib, time; pathlib.Path({str(told)!r}).write_text(f'{{os.getpid()}};'); time.sleep(60)"
    script = ("import launch, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in a background job
              f"launch.run_step('Sleeping', [sys.executable, '-c', {step!r}])")
    launcher = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_until(lambda: told.exists() and told.read_text().endswith(";"))
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=20) != 0
    wait_until(lambda: gone(int(told.read_text().rstrip(";"))))  # a busy system takes a moment to forget it


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 seconds"
        time.sleep(0.02)


def test_an_old_python_is_told_what_is_needed(monkeypatch, capsys, steps):
    monkeypatch.setattr(sys, "version_info", (3, 6, 9, "final", 0))
    assert launch.main([]) == 1
    told = capsys.readouterr().err
    assert "needs Python 3.11 or newer" in told and "is Python 3.6.9" in told
    assert told.count("\n") == 1
    assert steps == []


def test_an_old_python_gets_as_far_as_that_sentence():
    tree = ast.parse((ROOT / "launch.py").read_text(), feature_version=(3, 6))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "__future__" not in imported  # annotations came with 3.7


def test_a_python_without_ensurepip_is_told_the_package_to_install(repository, monkeypatch, capsys, steps):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    assert launch.main([], root=repository) == 1
    assert "apt install python{}.{}-venv".format(*sys.version_info[:2]) in capsys.readouterr().err
    assert steps == []


def test_a_long_step_tells_that_it_goes_on(capfd):
    sleeper = [sys.executable, "-c", "import time; print('Downloading tiny'); time.sleep(1)"]
    launch.run_step("Installing tiny", sleeper, plain_seconds=0.2)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "Installing tiny"
    assert re.fullmatch(r"Installing tiny: \d s  Downloading tiny", lines[-2])
    assert re.fullmatch(r"Installing tiny: done in \d s", lines[-1])


def test_pip_progress_counts_packages_once_nothing_is_downloaded(tmp_path):
    for package in ("one-1.0.dist-info", "two-1.0.dist-info"):
        folder = "Lib/site-packages" if os.name == "nt" else "lib/python3.11/site-packages"
        (tmp_path / folder / package).mkdir(parents=True)
    assert launch.pip_progress(tmp_path, "Downloading torch (2 GB)") == "Downloading torch (2 GB)"
    assert launch.pip_progress(tmp_path, "Installing collected packages: one, two") == "2 packages installed"


def test_windows_hands_on_the_exit_status():
    assert launch.run_as_child([sys.executable, "-c", "raise SystemExit(5)"]) == 5


def test_test_installs_the_oracles_alone_finds_what_is_of_the_system_and_hands_over_to_pytest(repository, monkeypatch, steps):
    pretend_installed(repository)
    for name in launch.TEST_PACKAGES:
        (repository / name).write_text("")
    handed_over = []
    monkeypatch.setattr(launch, "hand_over", lambda command: handed_over.append(command) or 4)
    monkeypatch.chdir(repository)

    assert launch.main(["test", "-k", "mask"], root=repository) == 4
    python = ensure_app(repository)
    development, ray, oracles, *system = steps
    assert "requirements-ray.txt" in ray[-1] and "--no-deps" not in ray
    assert "requirements-dev.txt" in development[-1] and "--no-deps" not in development
    assert "requirements-oracles.txt" in oracles[-1] and "--no-deps" in oracles
    assert system == [[python, str(repository / "tests" / name)] for name in ("browser.py", "opengl.py")]
    assert handed_over == [[python, "-m", "pytest", "-k", "mask"]]

    steps.clear()
    launch.main(["test"], root=repository)
    assert steps == system


NOTES_ITS_PROCESS = """
import os, pathlib, pytest
@pytest.mark.parametrize("number", range(3))
def test_notes(number):
    folder = pathlib.Path(os.environ["NOTES"])
    (folder / f"{pathlib.Path(__file__).stem} {number} {os.getpid()}").write_text(os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize("arguments, passed, processes", [
    ([], 12, 3), (["tests/ui", "-k", "not test_notes[1]"], 4, 2), (["tests/test_c.py"], 3, 0), (["tests/test_c.py::test_notes[1]"], 1, 0)])
def test_a_folder_of_tests_is_shared_out_and_a_single_test_runs_at_once(tmp_path, arguments, passed, processes):
    notes, tests = tmp_path / "notes", tmp_path / "tests"
    notes.mkdir()
    (tests / "ui").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests" / "sharing.py", tests)
    (tests / "conftest.py").write_text('pytest_plugins = ["tests.sharing"]')
    for name in ("ui/test_a.py", "ui/test_b.py", "test_c.py", "test_d.py"):
        (tests / name).write_text(NOTES_ITS_PROCESS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "OMP"))}
    run = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=tmp_path, env=environment | {"NOTES": str(notes)},
                         capture_output=True, text=True)
    assert run.returncode == 0 and f"{passed} passed in " in run.stdout.splitlines()[-1], run.stdout + run.stderr
    ran = [note.name.split() for note in notes.iterdir()]
    assert len(ran) == passed and {note.read_text() for note in notes.iterdir()} == {"1"}
    of_a_file = {name: {process for file, _, process in ran if file == name} for name, _, _ in ran}
    assert all(len(used) == 1 for used in of_a_file.values())  # a file's tests are together
    if processes > 1:
        assert of_a_file["test_a"].isdisjoint(of_a_file["test_b"])  # and the browser's in two,
        assert of_a_file["test_a"].isdisjoint(of_a_file.get("test_c", ()))  # beside the others
    assert len(set.union(*of_a_file.values())) == max(processes, 1)
    assert ("workers" in run.stdout) == bool(processes)


def test_a_machine_where_no_browser_can_be_had_is_told_what_to_install(monkeypatch):
    tried = []
    monkeypatch.setattr(browser, "runs", lambda path: False)
    monkeypatch.setattr(browser, "of_playwright", lambda: None)  # whose driver does not start beside the page's tests
    monkeypatch.setattr(browser, "succeeds", lambda command, seconds: tried.append(" ".join(command)))
    with pytest.raises(browser.BrowserMissing, match="install Chromium or Google Chrome"):
        browser.find_chromium()
    assert tried[-1].endswith("playwright install chromium")


def pins(name: str) -> dict[str, Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith("-c ")]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


@pytest.mark.parametrize("name", [*launch.APP_PACKAGES, *launch.TEST_PACKAGES, launch.CONSTRAINTS])
def test_every_requirement_is_pinned_exactly(name):
    loose = [str(pin) for pin in pins(name).values() if not re.fullmatch(r"==[0-9a-z.]+", str(pin.specifier))]
    assert pins(name) and not loose


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-ray.txt"])
def test_everything_a_requirement_brings_in_is_pinned_at_the_version_installed(name):
    pinned = {**pins("requirements.txt"), **pins("requirements-dev.txt"), **pins("requirements-ray.txt"), **pins("constraints.txt")}
    wrong = []
    for package in brought_in_by(pins(name).values()):
        version = importlib.metadata.version(package)
        if package not in pinned or version not in pinned[package].specifier:
            wrong.append(f"{package}=={version}")
    assert not wrong


def brought_in_by(requirements) -> set[str]:
    """The names of `requirements` and of all that they need here, directly or not."""
    found, waiting = set(), [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in found:
                found.add((name, wanted))
                needed = importlib.metadata.requires(name) or []
                waiting += [(Requirement(line), wanted) for line in needed]
    return {name for name, _ in found}

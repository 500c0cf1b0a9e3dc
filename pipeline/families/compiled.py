"""Networks that are compiled in the background for the shapes in use, and used compiled where that proves faster.

A process of low priority compiles a network (compiling.py, by torch's AOTInductor) once it has been called a few times with
inputs of the same shapes, into a folder that outlives the program. The compiled code takes the network's own weights, so
networks merged into them act at once. Its first calls take turns with the plain ones; it stays only if it is faster.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.families.base import Calls

logger = logging.getLogger(__name__)

CLASSES = ("UNet2DConditionModel", "AutoencoderKL")
"""diffusers' classes that can be compiled."""
ROOT = Path(__file__).parents[2]
FORMAT = 1
"""Raise it when compiling.py changes what it writes."""
RUNS = 3
"""Samplings or decodings with inputs of the same shapes after which a network is compiled for them."""
ROUNDS = 3
"""Calls of each way that are timed."""
FASTER = 0.95
"""The compiled call may take at most this fraction of the plain one's time."""
APART = 0.05
"""How far the first compiled output may be from the plain one, relative to it (root mean square)."""
ROOM = 4 << 30
"""Bytes that must be free to compile."""
KEPT = 64
"""Compiled files in the folder; the ones used longest ago go."""
STALE = 24 * 3600
"""Seconds after which nobody is still working on a draft."""
LEAST_PRIORITY = 19
PREFIX = "network."
"""In front of the names of a network's weights, in a compiled file."""


@dataclass(frozen=True)
class Work:
    """What to compile: a network for inputs of these shapes, in a precision."""

    network: str
    """One of CLASSES."""
    config: dict[str, Any]
    dtype: str
    inputs: list
    """[positional, by name], each tensor as [shape, precision]."""
    threads: int

    @property
    def key(self) -> str:
        """The same for the same code on the same kind of processor."""
        facts = [FORMAT, [metadata.version(name) for name in ("torch", "diffusers")], torch.cpu.get_capabilities(), asdict(self)]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


class Compiler:
    """Compiles networks one at a time, in a process, into a folder.

    free: free bytes of main memory, None: unknown. compiler: the C++ compiler, None: there is none.
    """

    def __init__(self, folder: Path, *, free: Callable[[], int | None] = lambda: None, niceness: int = LEAST_PRIORITY,
                 compiler: Callable[[], str | None] | None = None):
        self.folder, self._free, self._niceness, self._compiler = folder, free, niceness, cache(compiler or find_compiler)
        self._process: subprocess.Popen | None = None
        self._key = ""
        self._failed: set[str] = set()

    def find(self, work: Work, *, wanted: bool = True) -> Path | None:
        """The compiled file; None: there is none yet, and if it is wanted one is being made where that is possible."""
        file = self.folder / f"{work.key}.pt2"
        if file.exists():
            with suppress(OSError):
                file.touch()
            return file
        if wanted and work.key not in self._failed and not self._is_busy() and self._has_room() and self._compiler() is not None:
            try:
                self._start(work, file)
            except OSError as error:
                self._failed.add(work.key)
                logger.warning("networks cannot be compiled: %s", error)
        return None

    def verdict(self, work: Work) -> "Verdict | None":
        """What was found out about the compiled file; None: nothing yet."""
        try:
            return Verdict(**json.loads(self._verdict_of(work).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def decide(self, work: Work, verdict: "Verdict") -> None:
        """Remember it. What is not kept is deleted and not compiled again."""
        name, what = work.network, "faster" if verdict.kept else "not used"
        logger.info("%s compiled for %s is %s: %s", name, work.inputs, what, verdict)
        with suppress(OSError):  # then it is found out anew
            self._verdict_of(work).write_text(json.dumps(asdict(verdict)), "utf-8")
            if not verdict.kept:
                (self.folder / f"{work.key}.pt2").unlink(missing_ok=True)

    def wait(self) -> None:
        """Until nothing is being compiled."""
        if self._process is not None:
            self._process.wait()
        self._is_busy()

    def close(self) -> None:
        """Stop compiling."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process = None

    def _verdict_of(self, work: Work) -> Path:
        return self.folder / f"{work.key}.json"

    def _start(self, work: Work, file: Path) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._tidy()
        logger.info("compiling %s for %s", work.network, work.inputs)
        log = self.folder / "log.txt"
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.families.compiling"], cwd=ROOT, stdin=subprocess.PIPE, stdout=output, stderr=output,
                env=os.environ | {"OMP_NUM_THREADS": "1"})
        self._key = work.key
        self._process.stdin.write(json.dumps(asdict(work) | {"file": str(file), "niceness": self._niceness}).encode() + b"\n")
        self._process.stdin.flush()  # and left open: the process ends once it is closed

    def _is_busy(self) -> bool:
        if self._process is None or self._process.poll() is None:
            return self._process is not None
        self._process.stdin.close()
        if self._process.returncode:
            self._failed.add(self._key)
            logger.warning("a network could not be compiled and stays as it is; see %s", self.folder / "log.txt")
        self._process = None
        return False

    def _has_room(self) -> bool:
        free = self._free()
        return free is None or free >= ROOM

    def _tidy(self) -> None:
        files = sorted(self.folder.glob("*.pt2"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[KEPT:]:
            file.unlink(missing_ok=True)
            file.with_suffix(".json").unlink(missing_ok=True)
        for draft in self.folder.glob("draft-*"):  # of processes that were killed
            if time.time() - draft.stat().st_mtime > STALE:
                shutil.rmtree(draft, ignore_errors=True)


def find_compiler() -> str | None:
    """The C++ compiler that torch would use here; None, after saying so, if there is none."""
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    found = shutil.which(name)
    if found is None:
        logger.warning("networks are not compiled, as there is no C++ compiler (%s)", name)
    return found


@dataclass(frozen=True)
class Verdict:
    """Whether a compiled network is used, and why."""

    kept: bool
    apart: float = 0.0
    """How far its first output was from the plain one, relative to it (root mean square)."""
    plain: float = 0.0
    """CPU seconds of a plain call."""
    compiled: float = 0.0


class Trial:
    """Calls of a network of which two versions take turns until the faster one is known.

    verdict: known from an earlier trial. decided: called with the verdict. clock: in seconds.
    """

    def __init__(self, plain: Callable[..., Tensor], compiled: Callable[..., Tensor], verdict: Verdict | None,
                 decided: Callable[[Verdict], None], clock: Callable[[], float] = time.process_time):
        self._plain, self._compiled, self._verdict, self._decided, self._clock = plain, compiled, verdict, decided, clock
        self._apart: float | None = None
        self._plain_times: list[float] = []
        self._compiled_times: list[float] = []

    def __call__(self, *inputs: Any, **named: Any) -> tuple[Tensor, bool]:
        """(the output, whether it is the compiled network's)."""
        if self._verdict is not None:
            return (self._compiled if self._verdict.kept else self._plain)(*inputs, **named), self._verdict.kept
        if self._apart is None:
            return self._compare(*inputs, **named), False
        turn = len(self._compiled_times) <= len(self._plain_times)
        times = self._compiled_times if turn else self._plain_times
        began = self._clock()
        output = (self._compiled if turn else self._plain)(*inputs, **named)
        times.append(self._clock() - began)
        if len(self._plain_times) == ROUNDS:
            plain, compiled = median(self._plain_times), median(self._compiled_times)
            self._decide(Verdict(compiled <= FASTER * plain, self._apart, plain, compiled))
        return output, turn

    def _compare(self, *inputs: Any, **named: Any) -> Tensor:
        """The plain output, with which the compiled one must agree."""
        expected = self._plain(*inputs, **named)
        try:
            given = self._compiled(*inputs, **named)
            apart = ((given.float() - expected.float()).square().mean() / expected.float().square().mean()).sqrt().item()
        except RuntimeError as error:
            logger.warning("a compiled network failed: %s", error)
            self._decide(Verdict(False))
            return expected
        if apart <= APART:
            self._apart = apart
        elif torch.isfinite(expected).all():  # if not, the next call is compared
            self._decide(Verdict(False, apart if math.isfinite(apart) else 0.0))
        return expected

    def _decide(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._decided(verdict)


class Compilable:
    """The calls of a loaded network, of those that can be compiled; by itself, the plain ones.

    plain: what computes its output from tensors and dictionaries of tensors. It is compiled only as it was when this was made:
    not while hooks, other processors or other weights are in it.
    """

    def __init__(self, network: nn.Module, plain: Callable[..., Tensor]):
        self._network, self._plain = network, plain
        self._untouched = state(network) if self.possible else None
        self._trials: dict[str, Trial] = {}
        self._runs: Counter[str] = Counter()
        self._compiler: Compiler | None = None
        """None: not to be used now."""
        self._seen: set[str] = set()
        """Shapes of this context's calls."""
        self._calls = Calls()

    @property
    def possible(self) -> bool:
        """Whether compiling could pay here."""
        weights = next(self._network.parameters(), None)
        return type(self._network).__name__ in CLASSES and weights is not None \
            and weights.device.type == "cpu" and weights.dtype == torch.bfloat16

    @contextmanager
    def compiled(self, compiler: Compiler, calls: Calls) -> Iterator[None]:
        """Context of one sampling or decoding, in which the network is compiled if that pays. calls: counts."""
        if not self.possible or state(self._network) != self._untouched:
            yield
            return
        self._compiler, self._calls, self._seen = compiler, calls, set()
        try:
            yield
        finally:
            self._compiler = None

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        shapes = None if self._compiler is None else described([list(inputs), named])
        trial = None if shapes is None else self._trial(shapes)
        if trial is None:
            return self._plain(*inputs, **named)
        output, compiled = trial(*inputs, **named)
        self._calls.compiled += compiled
        return output

    def _trial(self, shapes: list) -> Trial | None:
        """The calls for inputs of these shapes; None: they are not compiled yet."""
        known = json.dumps(shapes)
        if known not in self._seen:  # once in each sampling, so that its calls do not wait for files
            self._seen.add(known)
            self._runs[known] += 1
            if known not in self._trials and (trial := self._find(shapes, wanted=self._runs[known] >= RUNS)) is not None:
                self._trials[known] = trial
        return self._trials.get(known)

    def _find(self, shapes: list, *, wanted: bool) -> Trial | None:
        network = self._network
        work = Work(type(network).__name__, json.loads(network.to_json_string()), name_of(network.dtype), shapes, torch.get_num_threads())
        verdict = self._compiler.verdict(work)
        if verdict is not None and not verdict.kept:
            return Trial(self._plain, self._plain, verdict, decided=lambda verdict: None)
        file = self._compiler.find(work, wanted=wanted)
        if file is None:
            return None
        try:
            code = load(file, network)
        except Exception as error:  # of torch, without a common base: a file of a broken disk, or not of this machine
            logger.warning("%s cannot be used: %s", file, error)
            self._compiler.decide(work, Verdict(False))
            return None
        return Trial(self._plain, code, verdict, partial(self._compiler.decide, work))


def load(file: Path, network: nn.Module) -> Callable[..., Tensor]:
    """Compiled code that computes with the network's weights, wherever they change in place."""
    code = torch._inductor.aoti_load_package(str(file))
    weights = {PREFIX + name: tensor for name, tensor in named_tensors(network)}
    code.load_constants({name: weights[name] for name in code.get_constant_fqns()}, check_full_update=True, user_managed=True)
    return code


def named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def state(network: nn.Module) -> list:
    """Equal if a network computes with the same layers, hooks and memory; the values in it may differ."""
    layers = [(len(part._forward_hooks), len(part._forward_pre_hooks), getattr(part, "padding_mode", None), id(getattr(part, "processor", None)))
              for part in network.modules()]
    return layers + [(name, tensor.data_ptr(), tensor.dtype, tensor.stride()) for name, tensor in named_tensors(network)]


def described(inputs: Any) -> Any:
    """The same structure with (shape, precision) for each tensor; None if anything else is in it."""
    if isinstance(inputs, Tensor):
        return [list(inputs.shape), name_of(inputs.dtype)]
    if isinstance(inputs, dict):
        parts = {name: described(each) for name, each in inputs.items()}
        return None if None in parts.values() else parts
    if isinstance(inputs, list):
        parts = list(map(described, inputs))
        return None if None in parts else parts
    return None


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def compiling(networks: Iterable[Compilable], compiler: Compiler | None) -> Iterator[Calls]:
    """Context in which these networks are compiled if that pays; yields a count of compiled calls. compiler: None: none is."""
    calls = Calls()
    with ExitStack() as stack:
        for network in networks if compiler is not None else ():
            stack.enter_context(network.compiled(compiler, calls))
        yield calls

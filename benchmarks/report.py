"""Output shared by the benchmarks: the machine, a table, JSON."""

import json
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "openvino")
NOT_MEASURED = "not measured"
GIB = 2**30

Row = Sequence[Any]


def machine() -> dict[str, Any]:
    """CPU and its fast matrix types, memory, GPU, threads and versions."""
    names = {"processor": processor(), "multiplies": ", ".join(fast_types()) or "float32 only",
             "threads": torch.get_num_threads(), "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
             "system": platform.system(), "Python": platform.python_version()}
    return names | {name: version(name) for name in PACKAGES}


def processor() -> str:
    """The CPU's name, if the system tells."""
    lines = read_lines("/proc/cpuinfo")
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def fast_types() -> list[str]:
    """The CPU's matrix instructions, by PyTorch's names."""
    known = torch.cpu.get_capabilities()
    return [name for name in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512_f", "avx2") if known.get(name)]


def has_bf16() -> bool:
    """Whether the CPU computes in bfloat16."""
    return bool({"amx_bf16", "avx512_bf16"} & set(fast_types()))


def version(package: str) -> str:
    """The installed version, or a dash."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def peak_memory() -> int:
    """This process's peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_memory() -> int:
    """This process's resident memory in bytes. Raises OSError without /proc."""
    return next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmRSS"))


def read_lines(path: str) -> list[str]:
    """A file's lines; empty if it does not exist."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table with columns as wide as their widest cell; numbers right-aligned with two decimals."""
    cells = [[cell(value) for value in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    right = [any(isinstance(row[column], (int, float)) for row in rows) for column in range(len(head))]
    return "\n".join("  ".join(text.rjust(width) if to_right else text.ljust(width)
                               for text, width, to_right in zip(row, widths, right)).rstrip() for row in cells)


def cell(value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def show(head: Row, rows: Sequence[Row], title: str = "") -> None:
    print(f"\n{title}\n" if title else "")
    print(table(head, rows), flush=True)


@dataclass(frozen=True)
class Bar:
    """A threshold for a figure."""

    what: str
    value: float | None
    """None: not measured."""
    bar: float
    at_most: bool = False
    needs: str = ""
    """What the bar requires but this machine lacks; then it is not judged."""

    @property
    def verdict(self) -> str:
        if self.value is None or self.needs:
            return f"needs {self.needs}" if self.needs else NOT_MEASURED
        return "met" if (self.value <= self.bar if self.at_most else self.value >= self.bar) else "missed"

    def row(self) -> Row:
        return self.what, self.value, f"{'at most' if self.at_most else 'at least'} {self.bar:g}", self.verdict


def show_bars(bars: Sequence[Bar], title: str = "") -> None:
    show(("", "measured", "bar", ""), [bar.row() for bar in bars], title)


def show_machine() -> None:
    print(", ".join(f"{name} {value}" for name, value in machine().items()))


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write the figures with the machine and the command line, if a file is given."""
    if path is not None:
        path.write_text(json.dumps({"command": " ".join(sys.argv), "machine": machine()} | figures, indent=1) + "\n")

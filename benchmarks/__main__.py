"""python -m benchmarks NAME [options]: run a benchmark; without a name, list them."""

import ast
import runpy
import sys
from pathlib import Path

SHARED = ("__init__", "__main__", "competitors", "contest", "crew", "report")


def find() -> dict[str, str]:
    """The benchmarks' names and subjects, read without importing them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {file.stem: about(file) for file in files if file.stem not in SHARED}


def about(file: Path) -> str:
    first, *_ = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))).splitlines()
    return first.partition(": python -m")[0]


def main() -> None:
    known = find()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in known:
        sys.argv[:2] = [f"python -m benchmarks {name}"]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return
    print("\n".join([__doc__, "", *(f"  {name:14} {says}" for name, says in known.items())]))
    if name not in ("", "-h", "--help"):
        sys.exit(f'unknown benchmark "{name}"')


if __name__ == "__main__":
    main()

"""Competitors in separate processes that take turns, so that other load on the machine affects them equally."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import peak_memory

ROOT = Path(__file__).parents[1]

Request = dict[str, Any]
Answer = dict[str, Any]
"""The result of a run: seconds, and whatever else its competitor reports."""
Rounds = list[dict[str, Answer]]
"""A competitor's rounds: answers by case."""


class Contestant:
    """A process that gets ready, then does one run for each line on its stdin.

    module: its main() calls compete() if given --child TASK. python: the interpreter; default: this one.
    """

    def __init__(self, name: str, module: str, task: dict[str, Any], *, python: str = sys.executable):
        self.name = name
        self.ready: Answer = {}
        """What it reported when ready."""
        self.peak = 0
        """Its peak resident memory in bytes."""
        self._command = [python, "-m", f"benchmarks.{module}", "--child", json.dumps(task)]
        self._process: subprocess.Popen | None = None

    def run(self, request: Request) -> Answer:
        """One run. Raises SystemExit if the process has ended."""
        if self._process is None:
            self._process = subprocess.Popen(self._command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.ready = self._answer()
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _answer(self) -> Answer:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self._process.wait()}")
        answer = json.loads(line)
        self.peak = max(self.peak, answer["peak"])
        return answer


def compete(make: Callable[[], Callable[..., Answer]]) -> None:
    """In the child: get ready with `make`, then run its result for each line on stdin, with that line's keywords."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that libraries' output is not taken for an answer

    def tell(answer: Answer) -> None:
        print(json.dumps(answer | {"peak": peak_memory()}), file=answers, flush=True)

    run = make()
    tell(getattr(run, "ready", {}))
    for line in sys.stdin:
        tell(run(**json.loads(line)))


def by_turns(contestants: Sequence[Contestant], rounds: Iterable[Sequence[Request]], *, fresh: bool = False,
             told: Callable[[str], None] = lambda line: None) -> list[list[list[Answer]]]:
    """[contestant][round][request]: all run each request before the next one, and a different one goes first each round.

    fresh: for machines that cannot hold all models at once: a contestant runs a whole round, and its process ends before the
    next contestant starts. told: called with a line for each run.
    """
    answers: list[list[list[Answer]]] = [[] for _ in contestants]
    for turn, requests in enumerate(rounds):
        order = [(turn + place) % len(contestants) for place in range(len(contestants))]
        for mine in answers:
            mine.append([])
        runs = [(place, request) for place in order for request in requests] if fresh \
            else [(place, request) for request in requests for place in order]
        for number, (place, request) in enumerate(runs, 1):
            answer = contestants[place].run(request)
            answers[place][-1].append(answer)
            told(f"round {turn + 1}, {contestants[place].name}, {request.get('case', 'run')}: {answer['seconds']:.2f} s, "
                 f"CPU {answer.get('cpu', math.nan):.2f} s")
            if fresh and number % len(requests) == 0:
                contestants[place].close()
    return answers


def by_case(rounds: Sequence[Sequence[Answer]], asked: Sequence[Sequence[Request]]) -> Rounds:
    return [{request["case"]: answer for request, answer in zip(*pair)} for pair in zip(asked, rounds)]


def middle(answers: Iterable[Answer], key: str = "seconds") -> float:
    return median(answer[key] for answer in answers)

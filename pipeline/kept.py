"""What a run has computed so far, kept so that an interrupted run continues to exactly the pixels that it would have given.

Samplers, noise and hooks are cheap and repeat exactly, so none of their state is kept: only the network's answers are, which
take the time, and the random seeds. A continued run starts again from the beginning, and takes from what was kept each answer
that is there already.
"""

import hashlib
import json
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.arriving import Arriving

PAUSE = 1.0
"""Seconds between two pieces, so at most that much work is lost."""
LIMIT = 256 * 2**20
"""Bytes kept of one run; what it computes beyond that is computed again."""
LIMIT_IN_ALL = 2**30
"""Bytes kept of interrupted runs; beyond that, the oldest are dropped."""
Facts = dict[str, Any]
"""JSON about a run, besides the answers."""
Question = tuple[str, Arriving, Arriving]
"""(its place in the run, x, t)."""


@dataclass(frozen=True)
class Answer:
    """An answer that was kept: where its bytes are, and how they become a tensor again."""

    source: bytes
    start: int
    length: int
    dtype: str
    shape: list[int]
    stride: list[int]
    """Kept too, since operations on tensors in another memory layout may round differently."""


class Kept:
    """A run's answers. All variants of a request share one; by default, nothing is kept.

    earlier: the pieces that an earlier run of the same request gave to `keep`, joined. facts: what else its next run must know.
    each_batch: the limit is one on each batch, for a run whose answers are taken batch by batch.
    """

    def __init__(self, earlier: bytes = b"", keep: Callable[[bytes], None] | None = None, facts: Callable[[], Facts] = dict, *,
                 pause: float = PAUSE, limit: int = LIMIT, each_batch: bool = False):
        self.facts = facts_of(earlier)
        """The earlier run's."""
        self._keep, self._facts, self._pause = keep, facts, pause
        self._room = limit - len(earlier)
        self._room_of_batch = limit if each_batch else None
        self._answers, self._given = answers_in(earlier), {}
        self.ahead = 0
        """Answers that another worker gave for the running batch, and that have not been asked for yet."""
        self._circumstances = ""
        self._batch = self._sampling = self._call = 0
        self._exact = True
        self._new: list[tuple[Question, Arriving]] = []
        """(what was asked, the answer), since the last piece."""
        self._last = time.monotonic()

    def try_again(self) -> None:
        """The run starts over, under other circumstances."""
        self.turn(0)

    def turn(self, batch: int, given: bytes = b"") -> None:
        """The run's batch of that number is next. given: the pieces that another worker's run kept of it."""
        self._batch, self._sampling, self._call = batch, 0, 0
        self._given = answers_in(given)
        self.ahead = len(self._given)
        if self._room_of_batch is not None:
            self._room = self._room_of_batch

    def begin_batch(self, circumstances: str) -> None:
        """circumstances: everything besides the request that the next answers depend on."""
        self._circumstances = circumstances

    def begin_sampling(self, *, exact: bool) -> None:
        """exact: an answer depends on its question alone. Otherwise the network remembers its last calls, and must get them all."""
        self._sampling, self._call, self._exact = self._sampling + 1, 0, exact

    def answer(self, ask: Callable[..., Tensor], x: Tensor, t: Tensor, *more: Any) -> Tensor:
        """ask(x, t, *more), from what was kept if it is there.

        `more` follows from the request and the place in its run, so it need not be compared.
        """
        if self._keep is None or not self._exact:
            return ask(x, t, *more)
        self._call += 1
        question = (f"{self._batch} {self._sampling} {self._call} {self._circumstances}", x, t)
        if (known := self._known(*question)) is not None:
            return read(known).to(x.device, non_blocking=True)
        answer = ask(x, t, *more)
        if self._room > 0:
            # copies, as hooks may change tensors in place
            self._new.append(((question[0], Arriving(x), Arriving(t)), Arriving(answer)))
            self._room -= answer.nbytes
            if time.monotonic() - self._last >= self._pause:
                arrived = sum(1 for _ in takewhile(lambda new: new[1].arrived, self._new))
                if arrived:
                    self._flush(arrived)
        return answer

    def flush(self) -> None:
        """Keep what is new now, once it has arrived."""
        if self._keep is not None:
            self._flush(len(self._new))

    def _flush(self, count: int) -> None:
        """Keep that many of the new answers."""
        parts, answers, offset = [], [], 0
        for (place, x, t), coming in self._new[:count]:
            answer = coming.get()
            part = bytes_of(answer)
            answers.append([key_of(place, x.get(), t.get()), offset, len(part), str(answer.dtype).removeprefix("torch."),
                            list(answer.shape), list(answer.stride())])
            parts.append(part)
            offset += len(part)
        del self._new[:count]
        facts = self._facts()
        if answers or facts:
            self._keep(piece({"facts": facts, "answers": answers}, b"".join(parts)))
        self._last = time.monotonic()

    def _known(self, place: str, x: Tensor, t: Tensor) -> Answer | None:
        if not self._answers and not self._given:
            return None
        key = key_of(place, x, t)
        known = self._given.get(key)
        self.ahead = 0 if known is None else max(self.ahead - 1, 0)
        return known or self._answers.get(key)


def answers_in(kept: bytes) -> dict[str, Answer]:
    return {key: Answer(kept, body + offset, *how) for header, body, _ in pieces(kept) for key, offset, *how in header["answers"]}


def read(answer: Answer) -> Tensor:
    dtype = getattr(torch, answer.dtype)
    flat = torch.frombuffer(bytearray(answer.source[answer.start:answer.start + answer.length]), dtype=dtype)
    return torch.empty_strided(answer.shape, answer.stride, dtype=dtype).copy_(flat.reshape(answer.shape))


def key_of(place: str, x: Tensor, t: Tensor) -> str:
    """Identifies a model call: its place in the run with its circumstances, and what it was asked about."""
    content = hashlib.blake2b(f"{place} {x.dtype} {list(x.shape)} ".encode(), digest_size=16)
    content.update(bytes_of(x))
    content.update(bytes_of(t))
    return content.hexdigest()


def bytes_of(tensor: Tensor) -> bytes:
    """A tensor's numbers, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def piece(header: dict[str, Any], body: bytes) -> bytes:
    """One piece: the lengths of its two parts, a checksum, the header as JSON, and the body."""
    text = json.dumps(header).encode()
    numbers = len(text), len(body), zlib.crc32(body, zlib.crc32(text))
    return b"".join(number.to_bytes(8, "little") for number in numbers) + text + body


def pieces(data: bytes) -> Iterator[tuple[dict[str, Any], int, int]]:
    """(header, start of the body, its end) of each sound piece; the last may be cut off by the end of its program."""
    end = 0
    while end + 24 <= len(data):
        text, body, checksum = (int.from_bytes(data[at:at + 8], "little") for at in range(end, end + 24, 8))
        start, middle, end = end + 24, end + 24 + text, end + 24 + text + body
        if end > len(data) or zlib.crc32(memoryview(data)[start:end]) != checksum:
            return
        yield json.loads(data[start:middle]), middle, end


def facts_of(kept: bytes) -> Facts:
    """The newest facts; a run that only helped another one gave none."""
    return next((header["facts"] for header, *_ in reversed(list(pieces(kept))) if header["facts"]), {})


class KeptFiles:
    """A file for what each run keeps, in a folder; None: a temporary one. Any thread may use it. Raises OSError."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT_IN_ALL):
        self._temporary = tempfile.TemporaryDirectory(prefix="palimpsest-kept-", ignore_cleanup_errors=True) if folder is None else None
        self._folder, self._limit = folder or Path(self._temporary.name), limit
        self._appending = threading.Lock()

    def append(self, run: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._appending, self._file(run).open("ab") as file:
            file.write(data)

    def has(self, run: str) -> bool:
        return self._file(run).exists()

    def read(self, run: str) -> bytes:
        """All sound pieces of a run; a damaged end is removed from its file."""
        try:
            data = self._file(run).read_bytes()
        except FileNotFoundError:
            return b""
        sound = max((end for *_, end in pieces(data)), default=0)
        if sound < len(data):
            with self._file(run).open("r+b") as file:
                file.truncate(sound)
        return data[:sound]

    def drop(self, run: str) -> None:
        self._file(run).unlink(missing_ok=True)

    def drop_others(self, runs: Collection[str]) -> None:
        """Drop what was kept of all runs but these."""
        wanted = {self._file(run) for run in runs}
        for file in self._all():
            if file not in wanted:
                file.unlink(missing_ok=True)

    def prune(self) -> None:
        """Drop the oldest while there is more than the limit."""
        sizes = [(status.st_mtime, status.st_size, file) for file in self._all() if (status := status_of(file)) is not None]
        total = sum(size for _, size, _ in sizes)
        for _, size, file in sorted(sizes):
            if total <= self._limit:
                return
            file.unlink(missing_ok=True)
            total -= size

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def _all(self) -> list[Path]:
        return list(self._folder.glob("*.kept"))

    def _file(self, run: str) -> Path:
        """A client may choose its job's id, so the name is a digest."""
        return self._folder / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.kept"


def status_of(file: Path) -> Any:
    """A file's status; None if it is gone."""
    try:
        return file.stat()
    except OSError:
        return None

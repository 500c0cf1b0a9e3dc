"""Workers on the machines of a Ray cluster: an actor for each card, reached by calls that repeat while the network is away.

Ray carries bytes, numbers and names; what runs on a machine is the program that is installed there.
"""

import copy
import importlib
import itertools
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import torch

from pipeline.borrowing import Library, Listed, Part, Shelves
from pipeline.errors import ModelError, PalimpsestError, WorkerLost
from pipeline.identity import Identity
from pipeline.models import Catalog
from pipeline.parcels import Unwelcome, pack, unpack
from pipeline.processed import Processed
from pipeline.processes import Line, Message, RemoteWorker, Service, later
from pipeline.request import Request
from pipeline.saving import save
from pipeline.styles import StyleDatabase
from pipeline.worker import News, Placing, Sampled, Saving, Tell, Unplaced, Wishes

logger = logging.getLogger(__name__)

START = "start"
"""The address that means a Ray of our own."""
STARTING = 120.0
"""Seconds that a worker may take until it answers for the first time."""
PATIENCE = 30.0
"""Seconds without an answer after which a worker counts as lost: longer than a network is usually away."""
HASHED = 600.0
"""Seconds in which the machine that asks can tell the hash of a model that it has not read yet."""
POLL = 1.0
"""Seconds after which a worker that has nothing to say says so."""
STORE = 1 << 28
"""Bytes of main memory for what a Ray of our own carries."""
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Of every Ray that we use. Whoever reaches a Ray without a token can run anything on its machines."""
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the one setting by which Ray listens on 127.0.0.1 only, on Linux too
    "RAY_memory_monitor_refresh_ms": "0",  # it would kill workers; what models take is planned here
}
"""Beside these, of one that is for this machine only."""


class Refused(WorkerLost):
    """A worker that runs another program than this one."""


def node_environment() -> dict[str, str]:
    """Environment variables of a Ray node: its workers run this program."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return SETTINGS | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def node_command(address: str, *, head: bool) -> list[str]:
    """The command that makes this machine a node of the cluster at an address, or, if `head`, starts a cluster there."""
    host, _, port = address.rpartition(":")
    where = ["--head", f"--node-ip-address={host}", f"--port={port}", "--include-dashboard=false"] if head else [f"--address={address}"]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *where]


@dataclass(frozen=True)
class Seat:
    """Where a worker is to run: a card of a machine, or its processor."""

    name: str
    node: str
    """Ray's id of the machine."""
    card: bool


class Cluster:
    """A Ray, joined or, by the address "start", started for this machine only. Raises PalimpsestError.

    cpus: workers that compute on the processor of a machine without cards, if no machine has one.
    """

    def __init__(self, address: str, *, cpus: int = 1):
        own = address == START
        os.environ |= node_environment() | (ALONE if own else {})
        try:
            import ray
        except ImportError as error:
            raise PalimpsestError("--ray needs Ray; install it with: pip install -r requirements-ray.txt") from error
        self._ray, self._cpus, self._identity = ray, cpus, Identity.ours()
        how = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE} if own else {"address": address}
        try:
            ray.init(**how, log_to_driver=True, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            what = "Ray could not be started" if own else f"there is no Ray to join at {address!r}, or its token is another one"
            raise PalimpsestError(f"--ray: {what}: {str(error).strip().splitlines()[0].rstrip('.')}") from error

    def seats(self) -> list[Seat]:
        """One for each card of the cluster; if there is none, the processors of its machines."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        cards = [(node, f"cuda:{number}") for node in nodes for number in range(int(node["Resources"].get("GPU", 0)))]
        processors = [(node, "cpu") for node in nodes for _ in range(self._cpus)]
        names = [f"{node['NodeManagerAddress']} {device}" for node, device in cards or processors]
        return [Seat(name if names.count(name) == 1 else f"{name} #{names[:number].count(name) + 1}", node["NodeID"], bool(cards))
                for number, (name, (node, _)) in enumerate(zip(names, cards or processors))]

    def worker(self, seat: Seat, make: str, *args: Any, patience: float = PATIENCE) -> RemoteWorker:
        """The worker that make(*args) creates there. make: "module:function" of the program on that machine.

        Raises Refused if that is another program, and WorkerLost if nothing starts there.
        """
        return FarWorker(seat.name, partial(RayLine, self._ray, seat, make, args, patience, self._identity))

    def as_seen_by(self, identity: Identity) -> Self:
        """The same cluster for a program of that identity."""
        seen = copy.copy(self)
        seen._identity = identity
        return seen

    def workers(self, seats: Iterable[Seat], make: str, *args: Any) -> tuple[dict[str, RemoteWorker], list[str]]:
        """(the workers that start, a sentence on each that does not)"""
        seats, workers, sentences = list(seats), {}, []
        with ThreadPoolExecutor(max(len(seats), 1)) as starting:
            for seat, begun in [(seat, starting.submit(self.worker, seat, make, *args)) for seat in seats]:
                try:
                    workers[seat.name] = begun.result()
                except WorkerLost as error:
                    sentences.append(str(error))
        return workers, sentences

    def lend(self, models_dir: Path, extra: Iterable[Path], also: Iterable[Path]) -> str:
        """Let workers read this machine's models, as Catalog takes them; returns the name by which Lent finds them."""
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        folders = [str(models_dir.absolute()), [str(path.absolute()) for path in extra], [str(path.absolute()) for path in also]]
        name = f"models-{sha256(f'{socket.gethostname()} {folders}'.encode()).hexdigest()[:16]}"
        self._lender = self._ray.remote(Lender).options(name=name, num_cpus=0, max_concurrency=8, scheduling_strategy=here).remote(*folders)
        return name

    def close(self) -> None:
        """Leave the cluster, or end our own; its workers end too."""
        self._ray.shutdown()


# --- this end

class FarWorker(RemoteWorker):
    """A worker on a machine with other disks: its pictures are saved on this one."""

    def run(self, request: Request, styles: StyleDatabase, tell: Tell, wishes: Wishes, kept: bytes = b"") -> Processed:
        return super().run(request, styles, partial(place, {request.outpath_samples, request.outpath_grids}, tell), wishes, kept)


def place(folders: Collection[str | None], tell: Tell, news: News) -> Any:
    """Pass on news; of a picture that is to be saved in one of the request's folders, save it and answer with its path."""
    if not isinstance(news, Placing):
        return tell(news)
    replaced = Path(os.path.normpath(news.place or news.folder))
    if news.folder not in folders or Path(news.name).name != news.name or not replaced.is_relative_to(os.path.normpath(news.folder)):
        raise Unwelcome(f"A worker wants to save a picture where the request does not: {news.place or news.name!r} in {news.folder!r}")
    earlier = news.place if news.place is not None and Path(news.place).parent.is_dir() else None
    try:
        return save(news.png, news.folder, news.name, numbered=news.numbered, place=earlier,
                    announce=lambda path: tell(Saving(path, news.infotext)))
    except OSError as error:
        logger.warning("a picture could not be saved in %s: %s", news.folder, error)
        return Unplaced(error.strerror or type(error).__name__)


class RayLine(Line):
    """A line to a new actor. A call that the network swallowed is made again, and what arrives twice counts once."""

    def __init__(self, ray: Any, seat: Seat, make: str, args: tuple, patience: float, identity: Identity):
        self._ray, self._seat, self._patience = ray, seat, patience
        self._why: str | None = None
        """How it ended; None: it has not."""
        self._outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._arrived: deque[bytes] = deque()
        self._received = 0
        there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(seat.node, soft=False)
        use = {"num_gpus": 1, "num_cpus": 0} if seat.card else {"num_cpus": 1}
        self._actor = ray.remote(Host).options(max_concurrency=4, max_restarts=0, scheduling_strategy=there, **use).remote()
        theirs = unpack(self._ask(lambda: self._actor.identity.remote(), STARTING))
        if difference := identity.difference(theirs):
            self.kill()
            raise Refused(f"The worker on {seat.name} is refused: {difference}")
        self._ask(lambda: self._actor.begin.remote(make, pack(args), torch.get_num_threads()))
        threading.Thread(target=self._post, name=f"sends to {seat.name}", daemon=True).start()

    def send(self, message: Message) -> None:
        if not self.alive:
            raise BrokenPipeError(self._why)
        self._outgoing.put(pack(message))

    def recv(self) -> Message:
        while not self._arrived:
            try:
                new = self._ask(lambda: self._actor.receive.remote(self._received))
            except WorkerLost as error:
                raise EOFError from error
            self._received += len(new)
            self._arrived.extend(new)
        return unpack(self._arrived.popleft())

    @property
    def alive(self) -> bool:
        return self._why is None

    def kill(self) -> None:
        self._end("it was closed")

    def ended(self) -> str:
        return self._why or ""

    def _post(self) -> None:
        """Hand over what is to be sent, one after the other."""
        for number in itertools.count():
            parcel = self._outgoing.get()
            try:
                self._ask(lambda: self._actor.post.remote(number, parcel))
            except WorkerLost:
                return

    def _end(self, why: str) -> None:
        """Also ends an actor that hangs or cannot be reached, so that it does not go on once it can."""
        if self.alive:
            self._why = why
            if self._ray.is_initialized():
                self._ray.kill(self._actor)

    def _ask(self, call: Callable[[], Any], patience: float | None = None) -> Any:
        """The actor's answer. Raises WorkerLost."""
        try:
            return answered(self._ray, call, self._patience if patience is None else patience, lambda: self.alive)
        except Unanswered as error:
            self._end(str(error))
        raise WorkerLost(f"The worker on {self._seat.name} ended unexpectedly: {self._why}")


class Unanswered(Exception):
    """No answer came, for the reason given."""


def answered(ray: Any, call: Callable[[], Any], patience: float, going: Callable[[], bool] = lambda: True) -> Any:
    """An actor's answer, asked for again while the actor cannot be reached, for `patience` seconds. Raises Unanswered."""
    latest = time.monotonic() + patience
    while going():
        try:
            return ray.get(call(), timeout=max(latest - time.monotonic(), 0.1))
        except ray.exceptions.ActorUnavailableError as error:
            if time.monotonic() > latest:
                raise Unanswered(f"it could not be reached for {patience:g} seconds") from error
            time.sleep(0.1)
        except ray.exceptions.GetTimeoutError as error:
            raise Unanswered(f"it has not answered for {patience:g} seconds") from error
        except ray.exceptions.RayError as error:
            raise Unanswered(str(error).strip().splitlines()[0]) from error
    raise Unanswered("it was closed")


# --- the other end

class Host:
    """A worker in a process of Ray's. Ray calls each method in a thread of its own."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._posted = 0
        self._outbox: deque[Message] = deque()
        """What has not been received for certain."""
        self._gone = self._shown = 0
        """Messages taken out of it, and messages that have been handed out at least once."""
        self._changed = threading.Condition()
        self._begun = False

    def identity(self) -> bytes:
        return pack(Identity.ours())

    def begin(self, make: str, args: bytes, threads: int) -> None:
        """Start the worker; asked again, do nothing. threads: on a processor, where they change the rounding."""
        with self._changed:
            if self._begun:
                return
            self._begun = True
        torch.set_num_threads(threads)  # Ray sets them to one
        threading.Thread(target=self._serve, args=(make, unpack(args)), name="service", daemon=True).start()

    def post(self, number: int, parcel: bytes) -> None:
        """Take the message of that number, unless it is there already. They come one after the other."""
        with self._changed:
            if number == self._posted:
                self._inbox.put(unpack(parcel))
                self._posted += 1

    def receive(self, received: int) -> list[bytes]:
        """The messages after the first `received` ones; none if there is nothing new for a while."""
        with self._changed:
            while self._gone < received:
                self._outbox.popleft()
                self._gone += 1
            self._changed.wait_for(lambda: self._outbox, POLL)
            self._shown = self._gone + len(self._outbox)
            return [pack(message) for message in self._outbox]

    def _serve(self, make: str, args: tuple) -> None:
        try:
            module, _, name = make.partition(":")
            service = Service(self, getattr(importlib.import_module(module), name)(*args))
            self.send((-1, "ready", None))
            service.run()
        except BaseException:  # whatever it is, there is no worker
            logger.exception("the worker on %s could not start", socket.gethostname())
            os._exit(1)

    # --- the line of its Service

    def recv(self) -> Message:
        return self._inbox.get()

    def send(self, message: Message) -> None:
        """Of steps that nobody has received yet, only the newest is kept."""
        number, kind, value = message
        with self._changed:
            if self._gone + len(self._outbox) > self._shown:
                before = self._outbox[-1]
                if before[0] == number and before[1] == kind == "news" and isinstance(before[2], Sampled) and isinstance(value, Sampled):
                    message = number, *later(before[2], kind, value)
                    self._outbox.pop()
            self._outbox.append(message)
            self._changed.notify_all()


# --- models

class Lender:
    """Hands out the models of the machine of page and queue, in a process of Ray's there."""

    def __init__(self, models_dir: str, extra: list[str], also: list[str]):
        self._shelves = Shelves(Catalog(models_dir, extra=map(Path, extra), also=map(Path, also)))

    def ask(self, what: str, of: bytes) -> bytes:
        ask = {"listing": self._shelves.listing, "find": self._shelves.find, "parts": self._shelves.parts, "piece": self._shelves.piece}[what]
        return pack(ask(*unpack(of)))


class Lent(Library):
    """What a Lender hands out, on another machine. Raises ModelError if it cannot be reached."""

    def __init__(self, name: str):
        import ray

        self._ray, self._lender = ray, ray.get_actor(name)

    def listing(self) -> list[Listed]:
        return self._ask("listing")

    def find(self, kind: str, text: str) -> str:
        return self._ask("find", kind, text)

    def parts(self, place: str) -> list[Part]:
        return self._ask("parts", place)

    def piece(self, sha256: str, start: int) -> bytes:
        return self._ask("piece", sha256, start)

    def _ask(self, what: str, *of: Any) -> Any:
        try:
            return unpack(answered(self._ray, lambda: self._lender.ask.remote(what, pack(of)), HASHED))
        except Unanswered as error:
            raise ModelError(f"The worker could not look at the models of the machine that asks: {error}") from error

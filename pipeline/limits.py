"""Clients, and limits on what each may ask for."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from math import ceil
from threading import Lock

from pipeline.errors import TooMany

HOUR = 3600.0
"""Seconds."""


@dataclass(frozen=True)
class Client:
    """Who asks for a job."""

    id: str = ""
    """Of a browser, or of a login plus address; different ids take turns."""
    address: str = ""
    """The network it connects from, as network_of() gives it."""
    program: bool = False
    """It uses the API, so its jobs may come in bursts."""
    owner: bool = False
    """Has no quota."""


def network_of(host: str) -> str:
    """A key for a visitor's network: the address, or for IPv6 its /64, as visitors choose the rest themselves.

    Empty for this machine's own addresses, which all connections through a tunnel or proxy share.
    """
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return ""
    return str(ip) if ip.version == 4 else str(ip_network((ip, 64), strict=False))


@dataclass(frozen=True)
class Limits:
    """How much clients may ask for."""

    waiting: int = 8
    """Waiting jobs per browser."""
    waiting_of_program: int = 256
    """Waiting jobs per API client."""
    waiting_in_all: int = 1024
    pictures: int = 0
    """Pictures per client and hour; 0: unlimited."""

    def check_waiting(self, client: Client, waiting: list[Client]) -> None:
        """Raise TooMany if one more job of the client would exceed a limit. waiting: the clients of all waiting jobs."""
        if len(waiting) >= self.waiting_in_all:
            raise TooMany(f"{len(waiting)} jobs are waiting already, the maximum; try again later.")
        mine = sum(other.id == client.id for other in waiting)
        if mine >= (self.waiting_of_program if client.program else self.waiting):
            raise TooMany(f"You have {mine} jobs waiting already; wait for one to end or interrupt one.")


class Quota:
    """Counts requested pictures per client id and per address, and refuses those over the quota.

    pictures: per client and hour; 0: no quota. clock: seconds.
    """

    def __init__(self, pictures: int, clock: Callable[[], float] = time.monotonic):
        self.pictures, self._clock, self._lock = pictures, clock, Lock()
        self._asked: list[tuple[float, int, Client]] = []
        """(when, how many, by whom) for the last hour."""

    def take(self, client: Client, pictures: int) -> None:
        """Count pictures that a client asks for. Raises TooMany, and then counts nothing."""
        if not self.pictures or client.owner:
            return
        with self._lock:
            now = self._clock()
            self._asked = [one for one in self._asked if one[0] > now - HOUR]
            for same in (lambda other: other.id == client.id, lambda other: client.address and other.address == client.address):
                self._check([(when, count) for when, count, other in self._asked if same(other)], pictures, now)
            self._asked.append((now, pictures, client))

    def _check(self, asked: list[tuple[float, int]], pictures: int, now: float) -> None:
        quota = f"Visitors may make {self.pictures} pictures an hour"
        if pictures > self.pictures:
            raise TooMany(f"{quota}, but this request needs {pictures}.")
        used = left = sum(count for _, count in asked)
        if used + pictures <= self.pictures:
            return
        for when, count in asked:
            left -= count
            if left + pictures <= self.pictures:
                break
        minutes = ceil((when + HOUR - now) / 60)
        raise TooMany(f"{quota}, and {used} have been requested already; there is room for {pictures} more "
                      f"in {minutes} minute{'s' if minutes > 1 else ''}.")

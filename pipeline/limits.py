"""Who asks for jobs, and how much one may ask for."""

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
    """Of a browser, or of a login and an address; jobs of different ids take turns."""
    address: str = ""
    """The network that it comes from, as network_of() gives it."""
    program: bool = False
    """It uses the API, so its jobs may come in bursts."""
    owner: bool = False
    """It has no quota."""


def network_of(host: str) -> str:
    """What tells one visitor's address from another's; empty for this machine's, from where a tunnel's or proxy's all come.

    Of IPv6 it is the first half: the other one every visitor may choose.
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
    """How much may be asked for."""

    waiting: int = 8
    """Jobs of one browser that wait."""
    waiting_of_program: int = 256
    """Jobs of one client of the API that wait."""
    waiting_in_all: int = 1024
    pictures: int = 0
    """That a client may ask for in an hour; 0: as many as it likes."""

    def check_waiting(self, client: Client, waiting: list[Client]) -> None:
        """Raise TooMany where one more job of the client cannot wait beside those of the clients in `waiting`."""
        if len(waiting) >= self.waiting_in_all:
            raise TooMany(f"{len(waiting)} jobs are waiting already, and no more fit; try again later.")
        mine = sum(other.id == client.id for other in waiting)
        if mine >= (self.waiting_of_program if client.program else self.waiting):
            raise TooMany(f"You have {mine} jobs waiting already; wait for one to end or interrupt one.")


class Quota:
    """Counts the pictures that clients ask for, of each id and of each address, and refuses those beyond the quota.

    pictures: of one client in an hour; 0: there is no quota. clock: seconds.
    """

    def __init__(self, pictures: int, clock: Callable[[], float] = time.monotonic):
        self.pictures, self._clock, self._lock = pictures, clock, Lock()
        self._asked: list[tuple[float, int, Client]] = []
        """(when, how many, by whom), of the last hour."""

    def take(self, client: Client, pictures: int) -> None:
        """Count pictures that a client asks for. Raises TooMany, and then they do not count."""
        if not self.pictures or client.owner:
            return
        with self._lock:
            now = self._clock()
            self._asked = [one for one in self._asked if one[0] > now - HOUR]
            for same in (lambda other: other.id == client.id, lambda other: client.address and other.address == client.address):
                self._check([(when, count) for when, count, other in self._asked if same(other)], pictures, now)
            self._asked.append((now, pictures, client))

    def _check(self, asked: list[tuple[float, int]], pictures: int, now: float) -> None:
        quota = f"A visitor may ask for {self.pictures} pictures an hour"
        if pictures > self.pictures:
            raise TooMany(f"{quota}, and this asks for {pictures}.")
        used = left = sum(count for _, count in asked)
        if used + pictures <= self.pictures:
            return
        for when, count in asked:
            left -= count
            if left + pictures <= self.pictures:
                break
        minutes = ceil((when + HOUR - now) / 60)
        raise TooMany(f"{quota}, and {used} were asked for already; there is room for {pictures} more "
                      f"in {minutes} minute{'s' if minutes > 1 else ''}.")

"""Logins by HTTP Basic, and how often one may guess."""

import base64
import binascii
import secrets
import time
from collections import deque
from collections.abc import Callable

from starlette.datastructures import Headers

Login = tuple[str, str]
"""User and password."""
GUESSES = 20
"""Wrong logins in a minute that come from one network; what comes after them is refused unread."""
MINUTE = 60.0
"""Seconds."""
NETWORKS = 10_000
"""How many are remembered."""


def login_in(headers: Headers) -> Login | None:
    """The login that a request carries, right or wrong."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if scheme.lower() == "basic" and colon else None


def among(login: Login | None, logins: list[Login]) -> bool:
    """Whether the login is one of them."""
    given = ":".join(login or ()).encode()
    matches = [secrets.compare_digest(given, ":".join(one).encode()) for one in logins]  # all, so that time tells nothing
    return any(matches)


class Guesses:
    """Counts wrong logins by network. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: dict[str, deque[float]] = {}
        """When, oldest first; at most GUESSES each."""

    def wait(self, network: str) -> int:
        """Seconds until the network may try again, 0: at once."""
        times = self._wrong.get(network, ())
        left = times[0] + MINUTE - self._clock() if len(times) == GUESSES else 0
        return max(int(left + 0.999), 0)

    def wrong(self, network: str) -> None:
        """It has guessed wrong."""
        times = self._wrong.pop(network, None) or deque(maxlen=GUESSES)
        times.append(self._clock())
        self._wrong[network] = times  # as the newest
        if len(self._wrong) > NETWORKS:
            del self._wrong[next(iter(self._wrong))]

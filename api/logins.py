"""HTTP Basic logins, and a limit on guesses."""

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
"""Wrong logins per minute and network; later ones are refused unread."""
MINUTE = 60.0
"""Seconds."""
NETWORKS = 10_000
"""Networks to remember."""


def login_in(headers: Headers) -> Login | None:
    """The login in a request, right or wrong; None if there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if scheme.lower() == "basic" and colon else None


def among(login: Login | None, logins: list[Login]) -> bool:
    """Whether the login is one of them."""
    given = ":".join(login or ()).encode()
    matches = [secrets.compare_digest(given, ":".join(one).encode()) for one in logins]  # compares all, so timing leaks nothing
    return any(matches)


class Guesses:
    """Counts wrong logins by network. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._wrong: dict[str, deque[float]] = {}
        """Network → times, oldest first; at most GUESSES each."""

    def wait(self, network: str) -> int:
        """Seconds until the network may try again; 0: now."""
        times = self._wrong.get(network, ())
        left = times[0] + MINUTE - self._clock() if len(times) == GUESSES else 0
        return max(int(left + 0.999), 0)

    def wrong(self, network: str) -> None:
        """Record a wrong login."""
        times = self._wrong.pop(network, None) or deque(maxlen=GUESSES)
        times.append(self._clock())
        self._wrong[network] = times  # as the newest
        if len(self._wrong) > NETWORKS:
            del self._wrong[next(iter(self._wrong))]

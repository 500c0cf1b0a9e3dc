"""The web server: reports when it answers, and shuts down cleanly."""

import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """Serves until it is stopped. started: called once it answers; ending: called before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, *, started: Callable[[], None], ending: Callable[[], None]):
        super().__init__(config)
        self._started, self._ending = started, ending

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl+C or SIGTERM stops the server cleanly and is not raised again afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        logging.getLogger("uvicorn.error").disabled = True  # connections that stay open to the end are not errors
        await super().shutdown(sockets)

"""Downloads pictures from public web addresses only, never from this machine or its network.

The connection goes to the very IP address that was checked, so a second DNS answer cannot redirect it, and each redirect
is checked like the first address.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from pipeline.errors import InvalidRequest

MAX_REDIRECTS = 5
SECONDS = 30
"""For a whole download."""
MAX_BYTES = 64 * 2**20
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
CARRIERS = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))
"""IPv6 networks that embed an IPv4 address, which may be a local one."""


NOT_PUBLIC = tuple(map(IPv6Network, ("fec0::/10", "::ffff:0:0:0/96")))
"""Networks that Python wrongly counts as global: site-local addresses, and translated IPv4 ones."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in (*CARRIERS, *NOT_PUBLIC)):
            return False
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Downloads pictures from http and https addresses.

    allowed: whether an IP address may be contacted; resolve: like socket.getaddrinfo.
    """

    def __init__(self, allowed: Callable[[str], bool] = is_public, resolve: Callable[..., list] = socket.getaddrinfo):
        self._allowed, self._resolve = allowed, resolve

    def fetch(self, url: str, field: str) -> bytes:
        """The content at an address, following redirects. Raises InvalidRequest naming `field`. Blocks."""
        deadline = time.monotonic() + SECONDS
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(url, field, deadline)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise InvalidRequest(field, f"{field}: the address redirects more than {MAX_REDIRECTS} times")

    def _ask(self, url: str, field: str, deadline: float) -> bytes | str:
        """The body, or the address to redirect to."""
        parts, host, port = split(url, field)
        address = self._address(host, port, field)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = http.client.HTTPConnection(host, port)  # ignores proxies
        try:
            connection.sock = connect(parts.scheme, host, address, port, deadline)
            timer = threading.Timer(max(deadline - time.monotonic(), 0), connection.sock.shutdown, [socket.SHUT_RDWR])
            timer.start()
            try:
                connection.request("GET", target, headers={"Host": parts.netloc.rpartition("@")[2], "Accept": "image/*"})
                response = connection.getresponse()
                if response.status in REDIRECTS and (location := response.getheader("Location")):
                    return location
                if response.status != 200:
                    raise InvalidRequest(field, f"{field}: the address answers with status {response.status}")
                return read(response, field)
            finally:
                timer.cancel()
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= deadline
            why = f"takes longer than {SECONDS} seconds" if late else f"cannot be read ({type(error).__name__})"
            raise InvalidRequest(field, f"{field}: the address {why}") from error
        finally:
            connection.close()

    def _address(self, host: str, port: int, field: str) -> str:
        """The IP address to connect to. Raises InvalidRequest if there is none, or any is not public."""
        try:
            found = [info[4][0] for info in self._resolve(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            raise InvalidRequest(field, f"{field}: unknown host") from error
        if not found or not all(map(self._allowed, found)):
            raise InvalidRequest(field, f"{field}: Request to local resource not allowed")
        return found[0]


def connect(scheme: str, host: str, address: str, port: int, deadline: float) -> socket.socket:
    """A connection to the IP address; with https, the certificate must be `host`'s. Raises OSError."""
    sock = socket.create_connection((address, port), max(deadline - time.monotonic(), 0.001))
    if scheme == "http":
        return sock
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def split(url: str, field: str) -> tuple[SplitResult, str, int]:
    """(parts, host, port) of an http or https address. Raises InvalidRequest."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS[parts.scheme]
        if host and not any(ord(letter) <= 32 or ord(letter) > 126 for letter in url):
            return parts, host, port
    except (KeyError, ValueError):
        pass
    raise InvalidRequest(field, f"{field}: must be an http or https address")


def read(response: http.client.HTTPResponse, field: str) -> bytes:
    """The whole body. Raises InvalidRequest if it is too large."""
    data = response.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InvalidRequest(field, f"{field}: the address returns more than {MAX_BYTES >> 20} MiB")
    return data

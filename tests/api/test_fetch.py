"""Pictures from addresses: public ones only, whatever names, redirects and DNS answers say."""

import http.server
import socket
import threading

import pytest

from api.fetch import MAX_REDIRECTS, Fetcher, is_public
from pipeline.errors import InvalidRequest


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::"])
def test_an_address_of_this_machine_or_network_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address):
    assert is_public(address)


class Site(http.server.BaseHTTPRequestHandler):
    asked: list

    def do_GET(self):
        self.asked.append((self.headers["Host"], self.path))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        else:
            self.send_response(200 if self.path == "/picture" else 404)
            self.end_headers()
            self.wfile.write(b"the picture")

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """(port, what it was asked for) of a web site on this machine."""
    asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Site", (Site,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


NAMES = {"public.example": "127.0.0.1", "private.example": "127.0.0.2", "both.example": ("127.0.0.1", "127.0.0.2")}


def resolve(host, port, **_):
    """A DNS in which 127.0.0.1 stands for a public address."""
    addresses = NAMES.get(host, host)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ([addresses] if isinstance(addresses, str) else addresses)]


@pytest.fixture
def fetcher():
    return Fetcher(allowed=lambda address: address == "127.0.0.1", resolve=resolve)


def test_a_picture_is_loaded_by_its_name(fetcher, site):
    port, asked = site
    assert fetcher.fetch(f"http://public.example:{port}/picture", "init_images") == b"the picture"
    assert asked == [(f"public.example:{port}", "/picture")]


@pytest.mark.parametrize("host", ["private.example", "both.example", "127.0.0.2", "user@private.example",
                                  "public.example@private.example"])
def test_a_host_with_any_private_address_is_refused(fetcher, site, host):
    port, asked = site
    with pytest.raises(InvalidRequest, match="init_images: Request to local resource not allowed"):
        fetcher.fetch(f"http://{host}:{port}/picture", "init_images")
    assert asked == []


def test_a_redirect_is_followed_and_checked_like_the_first_address(fetcher, site):
    port, asked = site
    assert fetcher.fetch(f"http://public.example:{port}/to//picture", "x") == b"the picture"
    with pytest.raises(InvalidRequest, match="local resource"):
        fetcher.fetch(f"http://public.example:{port}/to/http://private.example:{port}/picture", "x")
    assert [path for _, path in asked if path == "/picture"] == ["/picture"]


def test_the_address_that_was_checked_is_the_one_that_is_asked(site):
    port, asked = site
    answers = iter(["127.0.0.1", "127.0.0.2"])
    fetcher = Fetcher(allowed=lambda address: address == "127.0.0.1",
                      resolve=lambda host, port, **_: [(0, 0, 0, "", (next(answers), port))])
    assert fetcher.fetch(f"http://rebinding.example:{port}/picture", "x") == b"the picture"
    assert next(answers) == "127.0.0.2"  # was never asked for


@pytest.mark.parametrize("url", ["ftp://public.example/x", "file:///etc/passwd", "http://", "http://[::1",
                                 "http://public.example:99999/x",
                                 "http://public.example/a b", "http://public.example/\r\nX: y", "gopher://x"])
def test_what_is_no_address_of_the_web_is_refused(fetcher, url):
    with pytest.raises(InvalidRequest, match="must be an http or https address"):
        fetcher.fetch(url, "x")


@pytest.mark.parametrize("path, sentence", [("/nowhere", "status 404"), ("/loop", f"more than {MAX_REDIRECTS} times"),
                                            ("/to/file:///etc/passwd", "must be an http or https address")])
def test_what_leads_nowhere_is_told(fetcher, site, path, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        fetcher.fetch(f"http://public.example:{site[0]}{path}", "x")


def test_a_host_that_is_not_there_or_not_listening_is_told(fetcher):
    def nobody(*_, **__):
        raise socket.gaierror

    with pytest.raises(InvalidRequest, match="unknown host"):
        Fetcher(resolve=nobody).fetch("http://nobody.example/", "x")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        fetcher.fetch("http://public.example:1/", "x")


def test_too_large_an_answer_is_cut_off(fetcher, site, monkeypatch):
    monkeypatch.setattr("api.fetch.MAX_BYTES", 5)
    with pytest.raises(InvalidRequest, match="returns more than"):
        fetcher.fetch(f"http://public.example:{site[0]}/picture", "x")


def test_a_site_that_never_ends_is_given_up(fetcher, monkeypatch):
    monkeypatch.setattr("api.fetch.SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(InvalidRequest, match="takes longer than"):
            fetcher.fetch(f"http://public.example:{silent.getsockname()[1]}/picture", "x")


@pytest.mark.parametrize("address", ["fec0::1", "feff::1", "::ffff:0:127.0.0.1", "::ffff:0:7f00:1", "::ffff:0:8.8.8.8"])
def test_addresses_of_a_site_and_translated_ones_are_not_public(address):
    assert not is_public(address)

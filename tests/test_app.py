"""Flags, logins and ports."""

import base64
import socket
import time
import urllib.error
import urllib.request

import pytest

from app import credentials, find_model, free_port, parse_flags
from tests.ui.conftest import start


def test_without_flags_only_this_machine_can_come_in_and_no_login_is_asked():
    flags = parse_flags([])
    assert flags.host == "127.0.0.1" and credentials(flags) is None


@pytest.mark.parametrize("argv", [["--share"], ["--listen"], ["--host", "192.168.0.7"]])
def test_whoever_opens_the_page_to_others_gets_a_password_that_is_printed(argv, capsys):
    user, password = credentials(parse_flags(argv))
    assert len(password) >= 16 and password in capsys.readouterr().out
    assert credentials(parse_flags(argv)) != (user, password)


def test_the_login_asked_for_is_used():
    assert credentials(parse_flags(["--share", "--auth", "me:secret:with:colons"])) == ("me", "secret:with:colons")


@pytest.mark.parametrize("auth", ["me", "me:", ":secret", ""])
def test_half_a_login_is_refused(auth, capsys):
    with pytest.raises(SystemExit):
        parse_flags(["--auth", auth])
    assert "--auth must be USER:PASSWORD" in capsys.readouterr().err


def test_a_taken_port_is_passed_over_unless_it_was_asked_for():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"--port: {port} cannot be listened on"):
            free_port("127.0.0.1", port)
        assert free_port("127.0.0.1", None) != port


def test_a_missing_model_is_named():
    with pytest.raises(SystemExit, match='no folder "no-such-model"'):
        find_model("no-such-model", "models")


def test_a_model_is_found_by_its_name_in_the_models_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    assert find_model("mine", str(tmp_path)) == tmp_path / "mine"


def test_a_polite_kill_ends_the_app_in_good_order(tmp_path):
    for server in start(outputs=tmp_path / "outputs"):
        pass
    assert server.status == 0 and not any("Traceback" in line for line in server.output), server.output


def test_a_share_link_that_cannot_be_made_is_explained_and_the_page_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    for server in start("--share", outputs=tmp_path / "outputs"):
        deadline = time.monotonic() + 60
        while not any("could not be made" in line for line in server.output):
            assert time.monotonic() < deadline, server.output
            time.sleep(0.1)
        line = next(line for line in server.output if "asks for a login" in line)
        login = base64.b64encode(f"palimpsest:{line.rsplit(' ', 1)[1]}".encode()).decode()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(server.url)
        request = urllib.request.Request(server.url, headers={"Authorization": f"Basic {login}"})
        assert urllib.request.urlopen(request).status == 200

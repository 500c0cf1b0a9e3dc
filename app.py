"""Start Palimpsest: read the flags, load the model in the background, serve the page."""

import argparse
import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent
PORTS = range(7860, 7880)
"""Tried in turn where no port is asked for."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parse_flags(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Palimpsest, the diffusion image editor you run yourself.")
    parser.add_argument("--model", default=str(ROOT / "assets" / "demo-model"), help="a diffusers folder, or the name of one in --models-dir; default: the demo model")
    parser.add_argument("--models-dir", default="models", help="where models are looked for by name; default: %(default)s")
    parser.add_argument("--outputs-dir", default="outputs", help="where results are saved; default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine only")
    parser.add_argument("--listen", action="store_true", help="listen on all addresses of this machine: --host 0.0.0.0")
    parser.add_argument("--port", type=int, help=f"default: the first free one from {PORTS[0]}")
    parser.add_argument("--share", action="store_true", help="open a public link through Gradio's tunnel")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for this; without it, --share and --listen make a password up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: %(default)s")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16; default: %(default)s")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    flags = parser.parse_args(argv)
    if flags.listen:
        flags.host = "0.0.0.0"
    if flags.auth is not None and not all(flags.auth.partition(":")):
        parser.error(f"--auth must be USER:PASSWORD, got {flags.auth!r}")
    return flags


def credentials(flags: argparse.Namespace) -> tuple[str, str] | None:
    """(user, password) that visitors need: as asked, or made up where others than this machine can come in."""
    if flags.auth:
        user, _, password = flags.auth.partition(":")
        return user, password
    if flags.share or flags.host not in LOOPBACK:
        password = secrets.token_urlsafe(12)
        say(f"Others can reach this page, so it asks for a login: user palimpsest, password {password}")
        return "palimpsest", password
    return None


def find_model(name: str, models_dir: str) -> Path:
    """The folder of a model given as a path or as a name in the models folder."""
    for path in (Path(name), Path(models_dir) / name):
        if path.is_dir():
            return path
    sys.exit(f'--model: there is no folder "{name}", here or in "{models_dir}".')


def free_port(host: str, wanted: int | None) -> int:
    """A port that can be listened on: the wanted one, or the first free one of PORTS."""
    for port in PORTS if wanted is None else [wanted]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if os.name != "nt":  # Windows would let two programs have the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OverflowError:
                sys.exit(f"--port must be between 0 and 65535, got {port}.")
            except OSError:
                continue
            return probe.getsockname()[1]
    sys.exit(f"--port: {wanted or f'{PORTS[0]} to {PORTS[-1]}'} cannot be listened on at {host}; is it in use already?")


def announce(flags: argparse.Namespace, port: int) -> None:
    """Say where the page is, now that it answers, and open it."""
    host = "127.0.0.1" if flags.host == "0.0.0.0" else flags.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"Palimpsest is ready at {address}")
    if not flags.no_browser:
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    if flags.share:
        threading.Thread(target=share, args=[host, port], daemon=True).start()


def share(host: str, port: int) -> None:
    """Open a public link, or say why there is none."""
    from gradio.networking import setup_tunnel

    try:
        link = setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
        say(f"Public link: {link.replace('http://', 'https://')}")
    except Exception as error:  # the tunnel is somebody else's service and program: whatever it is, the page goes on
        say(f"The public link could not be made ({error}); the page goes on at its local address.")


def say(line: str) -> None:
    print(line, flush=True)


def main(argv: list[str] | None = None) -> None:
    flags = parse_flags(argv)
    # nothing leaves the machine unasked: read by these packages when they are imported
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    say("Palimpsest is starting.")
    from pipeline import families
    from pipeline.engine import Engine
    from pipeline.errors import PalimpsestError

    folder = find_model(flags.model, flags.models_dir)
    try:
        place = families.placement.choose(flags.device, flags.precision)
        info = families.describe(folder)
    except PalimpsestError as error:
        sys.exit(f"{error}.")
    engine = Engine(lambda: families.load(folder, place, info))

    import uvicorn

    from api import build_app
    from ui import build_ui, look

    login = credentials(flags)
    port = free_port(flags.host, flags.port)
    samples = ROOT / "assets" / "samples"
    page = build_ui(engine, info, outputs=Path(flags.outputs_dir), samples=samples)
    config = uvicorn.Config(build_app(page, login, allowed_paths=[str(samples)], **look()), host=flags.host, port=port,
                            log_level="warning", timeout_graceful_shutdown=1)

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Ctrl+C or a polite kill ends the server in good order, and is not raised again afterwards."""
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            yield
            for number, handler in before.items():
                signal.signal(number, handler)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce(flags, port)

    Server(config).run()
    engine.close(timeout=5)


if __name__ == "__main__":
    main()

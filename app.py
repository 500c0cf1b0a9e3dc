"""Start Palimpsest: read the flags, serve the page, load the model in the background."""

import argparse
import gc
import importlib.util
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import FastAPI

    from pipeline.engine import Engine
    from pipeline.families.base import Family
    from pipeline.job import Job
    from pipeline.journal import Journal
    from pipeline.loading import ModelStore
    from pipeline.models import Catalog, ModelFile
    from pipeline.options import Options
    from pipeline.ray_workers import Cluster
    from pipeline.settings import Settings
    from pipeline.styles import StyleDatabase
    from pipeline.worker import Worker

ROOT = Path(__file__).parent
DEMO_MODEL = ROOT / "assets" / "demo-model"
DEMO_NETWORKS = ROOT / "assets" / "demo-networks"
PORTS = range(7860, 7880)
"""Tried in order unless --port is given."""
MODELS_DIR, STORE = "PALIMPSEST_MODELS_DIR", "PALIMPSEST_STORE"
"""Environment variables by which `app.py node` tells the workers of its machine where its models are."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def parse_flags(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Palimpsest, the diffusion image editor you run yourself.",
                                     epilog="python app.py verify FILE.png makes a picture again and compares the two; python app.py node ADDRESS "
                                            "lends this machine to a Ray cluster; see verify --help and node --help.")
    parser.add_argument("--model", default=str(DEMO_MODEL), help="a file or folder; a name, title or hash in --models-dir; or owner/name on the Hugging Face Hub; default: the demo model")
    parser.add_argument("--models-dir", default="models", help="a folder with subfolders Stable-diffusion, VAE, Lora, embeddings and ControlNet, or an A1111 installation; default: %(default)s")
    parser.add_argument("--outputs-dir", default="outputs", help="where results are saved; default: %(default)s")
    parser.add_argument("--styles-file", default="styles.csv", help="A1111's file of prompt styles; a * in the name matches several files; default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine only")
    parser.add_argument("--listen", action="store_true", help="listen on all addresses of this machine: --host 0.0.0.0")
    parser.add_argument("--port", type=int, help=f"default: the first free one from {PORTS[0]}")
    parser.add_argument("--share", action="store_true", help="open a public link through Gradio's tunnel")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="login for the page; without it, --share and --listen generate a password")
    parser.add_argument("--visitor-quota", type=int, default=60, metavar="PICTURES", help="pictures per hour for each visitor of a shared page, 0: unlimited; default: %(default)s")
    parser.add_argument("--no-api", action="store_true", help="serve the page only, without A1111's HTTP API")
    parser.add_argument("--api-auth", metavar="USER:PASSWORD[,…]", help="further logins for the API, in addition to --auth")
    parser.add_argument("--api-urls", action="store_true", help="let requests load pictures from public http and https addresses")
    parser.add_argument("--lenient-scripts", action="store_true", help="leave out always-on scripts of extensions that are not known here, with a comment, instead of refusing the request")
    parser.add_argument("--api-max-body", type=int, default=256, metavar="MIB", help="largest request to the API; default: %(default)s")
    parser.add_argument("--cors-allow-origins", metavar="ORIGIN[,…]", help="other sites whose pages may send requests, such as https://example.org")
    parser.add_argument("--subpath", default="", metavar="PATH", help="the path under which a proxy serves this server, such as /palimpsest; default: the root")
    parser.add_argument("--tls-keyfile", metavar="FILE", help="private key in PEM, to serve https; needs --tls-certfile")
    parser.add_argument("--tls-certfile", metavar="FILE", help="certificate chain in PEM; needs --tls-keyfile")
    parser.add_argument("--settings-file", default="config.json", help="file that remembers changed options; default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: %(default)s")
    parser.add_argument("--devices", metavar="LIST", help="several workers, each a process of its own, on one queue: all, or a list such as cuda:0,cuda:1 or cpu*2; default: one worker, on --device")
    parser.add_argument("--ray", metavar="ADDRESS", help="a worker for each card of the Ray cluster at that address, such as 10.0.0.1:6379; start: of a Ray for this machine only; needs requirements-ray.txt")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16; default: %(default)s")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    flags = parser.parse_args(argv)
    if flags.listen:
        flags.host = "0.0.0.0"
    if flags.ray is not None:
        if flags.devices is not None:
            parser.error("--ray and --devices both say where the workers are; leave out one of them")
        if flags.ray != "start" and not re.fullmatch(r"[^/\s]+:\d+", flags.ray):
            parser.error(f"--ray must be start, or an address such as 10.0.0.1:6379, got {flags.ray!r}")
    if flags.visitor_quota < 0:
        parser.error(f"--visitor-quota must be 0 or more, got {flags.visitor_quota}")
    flags.subpath = flags.subpath and f"/{flags.subpath.strip('/')}".rstrip("/")
    if not re.fullmatch("(/[A-Za-z0-9._~-]+)*", flags.subpath):
        parser.error(f"--subpath must be a path such as /palimpsest, got {flags.subpath!r}")
    if bool(flags.tls_keyfile) != bool(flags.tls_certfile):
        parser.error("--tls-keyfile and --tls-certfile need each other")
    if flags.tls_certfile:
        if flags.share:
            parser.error("--share has its own certificate and connects to this server by plain HTTP; leave out --tls-certfile")
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(flags.tls_certfile, flags.tls_keyfile, lambda: "")
        except (OSError, ValueError) as error:
            parser.error(f"--tls-certfile and --tls-keyfile cannot be used: {error}")
    for name, logins in (("--auth", [flags.auth]), ("--api-auth", split(flags.api_auth))):
        for login in logins:
            if login is not None and not all(login.partition(":")):
                parser.error(f"{name} must be USER:PASSWORD, got {login!r}")
    for origin in split(flags.cors_allow_origins):
        if not re.fullmatch("https?://[^/*]+", origin):
            parser.error(f"--cors-allow-origins must be sites such as https://example.org, got {origin!r}")
    return flags


def parse_verify_flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py verify", description="Make a picture again from its receipt and say whether it "
                                     "is the same: status 0 identical, 1 different, 2 cannot be verified.")
    parser.add_argument("file", help="a PNG as Palimpsest saved it")
    parser.add_argument("--picture", action="append", default=[], metavar="FILE", help="its source picture, if the outputs folder no longer has it; repeat for several")
    parser.add_argument("--mask", action="append", default=[], metavar="FILE", help="its mask, likewise")
    parser.add_argument("--model", help="a checkpoint outside the models folder: a file, a folder, or owner/name on the Hugging Face Hub")
    parser.add_argument("--models-dir", default="models", help="default: %(default)s")
    parser.add_argument("--outputs-dir", default="outputs", help="default: %(default)s")
    parser.add_argument("--styles-file", default="styles.csv", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps; default: %(default)s")
    parser.add_argument("--precision", help="auto, float32, bfloat16 or float16; default: as the picture was made")
    return parser.parse_args(argv)


def parse_node_flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py node", description="Lend this machine's cards to a Ray cluster, for python app.py "
                                     "--ray there. Whoever can reach its ports and has its token can run anything on this machine.")
    parser.add_argument("address", metavar="ADDRESS", help="of the cluster, such as 10.0.0.1:6379; with --head: this machine's own, on which Ray then listens")
    parser.add_argument("--head", action="store_true", help="start the cluster here")
    parser.add_argument("--models-dir", default="models", help="this machine's models, which are used if they are the same files as there; default: %(default)s")
    parser.add_argument("--store", default="borrowed", help="a folder for models that are fetched from there; default: %(default)s")
    flags = parser.parse_args(argv)
    if not re.fullmatch(r"[^/\s]+:\d+", flags.address):
        parser.error(f"ADDRESS must be such as 10.0.0.1:6379, got {flags.address!r}")
    return flags


def split(listed: str | None) -> list[str]:
    """The parts of a comma-separated flag."""
    return [] if listed is None else [part.strip() for part in listed.split(",")]


def credentials(flags: argparse.Namespace) -> tuple[str, str] | None:
    """(user, password) that visitors need: as given, or generated if other machines can connect; None: no login."""
    if flags.auth:
        return login_of(flags.auth)
    if is_shared(flags):
        password = secrets.token_urlsafe(12)
        say(f"Others can reach this page, so it requires a login: user palimpsest, password {password}")
        return "palimpsest", password
    return None


def is_shared(flags: argparse.Namespace) -> bool:
    """Whether other machines can connect."""
    return flags.share or flags.host not in LOOPBACK


def login_of(text: str) -> tuple[str, str]:
    """(user, password) from "user:password"."""
    user, _, password = text.partition(":")
    return user, password


def find_model(wanted: str, catalog: "Catalog") -> "ModelFile":
    """The checkpoint for --model: a path, a name in the models folder, or a Hub model, which is downloaded.

    Raises UnknownName or ModelError.
    """
    from pipeline import hub
    from pipeline.errors import UnknownName

    path = Path(wanted)
    if path.is_file() or (path / "model_index.json").is_file():
        return catalog.add(path)
    try:
        return catalog.find_checkpoint(wanted)
    except UnknownName:
        if not hub.HUB_ID.fullmatch(wanted):
            raise
    say(f"Looking for {wanted} on the Hugging Face Hub.")
    return catalog.add(hub.download(wanted), wanted)


def settle_model(settings: "Settings", models: "ModelStore", *, asked: bool) -> None:
    """Undo a model choice from an earlier run if `--model` is given now, or if the chosen model is gone."""
    from pipeline.errors import PalimpsestError

    try:
        models.find(settings.options)
        if not asked:
            return
    except PalimpsestError as error:
        say(f"{error}. Using the model of --model.")
    settings.change({"sd_model_checkpoint": "", "sd_vae": "Automatic"}, remember=False)


def free_port(host: str, wanted: int | None) -> int:
    """A free port to listen on: the wanted one, or the first free one of PORTS."""
    for port in PORTS if wanted is None else [wanted]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if os.name != "nt":  # Windows would let two programs share the port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OverflowError:
                sys.exit(f"--port must be between 0 and 65535, got {port}.")
            except OSError:
                continue
            return probe.getsockname()[1]
    sys.exit(f"--port: {wanted or f'{PORTS[0]} to {PORTS[-1]}'} cannot be opened on {host}; is it in use already?")


def announce(flags: argparse.Namespace, port: int) -> None:
    """Print the page's address once it answers, and open it."""
    host = "127.0.0.1" if flags.host == "0.0.0.0" else flags.host
    scheme = "https" if flags.tls_certfile else "http"
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"Palimpsest is ready at {address}")
    if not flags.no_browser:
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    if flags.share:
        threading.Thread(target=share, args=[host, port], daemon=True).start()


def share(host: str, port: int) -> None:
    """Open a public link, or say why that failed."""
    from gradio.networking import setup_tunnel

    try:
        link = setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
        say(f"Public link: {link.replace('http://', 'https://')}")
    except Exception as error:  # the tunnel is an external service; whatever fails, the page stays up
        say(f"The public link could not be opened ({error}); the page stays available at its local address.")


def open_journal(folder: Path) -> "Journal | None":
    """The outputs folder's history; None, after saying why, if it cannot be kept."""
    from pipeline.journal import Journal

    try:
        journal = Journal(folder)
    except OSError as error:
        say(f"History cannot be kept in {folder}: {error}. Pictures are still saved.")
        return None
    if journal.others:
        say(f"Another Palimpsest is using {folder} too; they share its pictures and history.")
    return journal


def resume(engine: "Engine") -> None:
    """Go on with the jobs that ran when the last program was killed."""
    from pipeline.errors import PalimpsestError
    from pipeline.limits import Client

    for entry in [] if engine.journal is None else engine.journal.to_resume():
        try:
            engine.submit([engine.journal.to_continue(entry.id)], entry.id, Client(entry.client), entry.mode)
            say(f"Going on with a job that was interrupted: {entry.prompt[:60]}")
        except (PalimpsestError, OSError) as error:
            say(f"A job that was interrupted cannot go on: {error}")


def collect_after(loading: "Job") -> None:
    """Re-enable garbage collection once the model is loaded or has failed to; objects created before are exempt from it.

    After a minute at the latest, since preloading waits while pictures are being made.
    """
    latest = time.monotonic() + 60
    while loading.state != "done" and time.monotonic() < latest:
        time.sleep(0.1)
    gc.freeze()
    gc.enable()


def make_engine(models: "ModelStore", options: "Options", styles: "StyleDatabase",
                workers: "Mapping[str, Worker] | None" = None, **how: Any) -> "Engine":
    """An engine for the models, networks and embeddings in the models folder; how: further arguments of LocalEngine.

    workers: None: one, in this process.
    """
    from pipeline.engine import LocalEngine

    return LocalEngine(workers or make_worker(models), options, styles=styles, has_model=models.catalog.has_checkpoint, **how)


def start_workers(flags: argparse.Namespace) -> "dict[str, Worker] | None":
    """A process for each of --devices; None: they are not asked for. Exits with a sentence if they cannot be used."""
    if flags.devices is None:
        return None
    from pipeline.errors import PalimpsestError
    from pipeline.families import placement
    from pipeline.processes import ProcessWorker

    try:
        devices = placement.list_devices(flags.devices)
    except PalimpsestError as error:
        sys.exit(f"{error}.")
    return {name: ProcessWorker(name, worker_of, argparse.Namespace(**vars(flags) | {"device": device}))
            for name, device in devices.items()}


def join(flags: argparse.Namespace, models: "ModelStore") -> "tuple[Cluster, dict[str, Worker]]":
    """The Ray of --ray, and its workers. Exits with a sentence if there are none."""
    from pipeline.errors import PalimpsestError
    from pipeline.ray_workers import Cluster

    os.environ |= {MODELS_DIR: str(Path(flags.models_dir).absolute()), STORE: str(ROOT / "borrowed")}  # of workers on this machine
    try:
        cluster = Cluster(flags.ray)
    except PalimpsestError as error:
        sys.exit(f"{error}.")
    lender = cluster.lend(models.catalog.root, [DEMO_MODEL, models.default.path], [DEMO_NETWORKS])
    workers, refused = cluster.workers(cluster.seats(), "app:far_worker", models.default.rel, flags.precision, lender)
    for sentence in refused:
        say(f"{sentence}.")
    if not workers:
        cluster.close()
        sys.exit("--ray: no machine of the cluster has a worker that can be used.")
    say(f"Workers: {', '.join(workers)}")
    return cluster, workers


def far_worker(model: str, precision: str, lender: str) -> "Worker":
    """The worker of a machine of a Ray cluster. model: the checkpoint of --model, by its name there. lender: who has the models."""
    from pipeline import allocator, families
    from pipeline.borrowing import BorrowedCatalog
    from pipeline.families import placement
    from pipeline.loading import ModelStore
    from pipeline.models import Catalog
    from pipeline.ray_workers import Lent

    allocator.share_arena()
    own = Catalog(os.environ.get(MODELS_DIR, "models"), extra=[DEMO_MODEL], also=[DEMO_NETWORKS])
    store = Path(os.environ.get(STORE, ROOT / "borrowed"))
    catalog = BorrowedCatalog(Lent(lender), own, store, lender)
    default = next(file for file in catalog.checkpoints() if file.rel == model)
    models = ModelStore(catalog, placement.choose("auto", precision), default,
                        complete=lambda path, chosen, *offered: families.completed(path, chosen, *map(catalog.as_tried, offered)))
    return make_worker(models, fresh(models), far=True)


def worker_of(flags: argparse.Namespace) -> "Worker":
    """The worker of another process: with these flags, and whatever is in the models folder when it is asked."""
    models, _ = open_models(flags)
    return make_worker(models, fresh(models))


def fresh(models: "ModelStore") -> "Callable[[Options], Family]":
    """Loads a model after looking for new files: the page's process cannot tell another one that there are some."""
    def load(options: "Options") -> "Family":
        models.catalog.refresh()
        return models.load(options)

    return load


def make_worker(models: "ModelStore", load: "Callable[[Options], Family] | None" = None, **how: Any) -> "Worker":
    """A worker for the models, networks and embeddings in the models folder. load: None: that of models. how: more for DeviceWorker."""
    from pipeline.controlnet.store import ControlNets
    from pipeline.detectors import store as detectors
    from pipeline.device import DeviceWorker
    from pipeline.embeddings import EmbeddingShelf
    from pipeline.families import control_networks
    from pipeline.networks import LoraNames, Networks
    from pipeline.segmenters import FOLDER, Segmenters

    catalog = models.catalog
    worker = DeviceWorker(load or models.load, loaded=models.loaded, make_room=models.make_room, release=models.release, plan=models.plan,
                          networks=Networks(LoraNames(catalog).find, catalog.hash_of),
                          embeddings=EmbeddingShelf(catalog.embedding_paths),
                          segmenters=Segmenters(catalog.root / FOLDER, models.place.device),
                          control_networks=ControlNets(catalog.find_control_network, catalog.sha256, control_networks.load,
                                                       encoders=control_networks.encoders(catalog.clip_vision),
                                                       annotators=models.annotators),
                          detectors=detectors.Detectors(catalog.root / detectors.FOLDER, catalog.hash_of),
                          upscalers=catalog, device=models.place.device, **how)
    models.tell = worker.tell_loading
    return worker


def verify(argv: list[str]) -> int:
    """Verify a picture against its receipt; returns the exit status."""
    flags = parse_verify_flags(argv)
    from pipeline import verify
    from pipeline.errors import PalimpsestError
    from pipeline.families import placement
    from pipeline.loading import ModelStore
    from pipeline.models import Catalog
    from pipeline.originals import Originals
    from pipeline.styles import StyleDatabase

    try:
        claim = verify.read_claim(flags.file)
        catalog = Catalog(flags.models_dir, extra=[DEMO_MODEL], also=[DEMO_NETWORKS])
        if flags.model:
            find_model(flags.model, catalog)
        given = verify.read_given({"picture": flags.picture, "mask": flags.mask}, claim.receipt)
        originals = Originals(Path(flags.outputs_dir) / "originals")
        p = verify.request_again(claim.receipt, catalog, lambda name: given.get(name) or originals.open(name), thorough=True)
        place = placement.choose(flags.device, flags.precision or claim.receipt.precision.partition(",")[0])
        models = ModelStore(catalog, place, catalog.find_checkpoint(p.options.sd_model_checkpoint))
        engine = make_engine(models, p.options, StyleDatabase(flags.styles_file))
    except verify.Missing as error:
        verdict = verify.refusal(f"{error}; give its file with --{error.what}")
    except PalimpsestError as error:
        verdict = verify.refusal(error)
    else:
        *_, verdict = verify.verify(claim, p, engine)
        engine.close(timeout=5)
    say(verdict.sentence)
    return verdict.status


def lend(argv: list[str]) -> None:
    """Become a Ray node, until it is stopped."""
    flags = parse_node_flags(argv)
    from pipeline.ray_workers import node_command, node_environment

    if importlib.util.find_spec("ray") is None:
        sys.exit("app.py node needs Ray; install it with: pip install -r requirements-ray.txt")
    here = {MODELS_DIR: str(Path(flags.models_dir).absolute()), STORE: str(Path(flags.store).absolute())}
    sys.exit(subprocess.call(node_command(flags.address, head=flags.head), env=os.environ | node_environment() | here))


def say(line: str) -> None:
    print(line, flush=True)


def main(argv: list[str] | None = None) -> None:
    # no telemetry: these packages read this at import
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["verify"]:
        sys.exit(verify(argv[1:]))
    if argv[:1] == ["node"]:
        lend(argv[1:])
    flags = parse_flags(argv)
    say("Palimpsest is starting.")
    gc.disable()  # until page and model are ready: scanning the imports' permanent objects takes a fifth of the start
    try:
        serve(flags)
    finally:
        gc.enable()


def serve(flags: argparse.Namespace) -> None:
    """Serve the page until it is stopped."""
    from pipeline.limits import Limits
    from pipeline.settings import Settings

    if flags.devices is not None or flags.ray is not None:
        flags.device = "cpu"  # this process only looks at the models' files
    models, styles = open_models(flags)
    # after a model of the Hub has been downloaded once
    cluster, workers = (None, start_workers(flags)) if flags.ray is None else join(flags, models)
    settings = Settings(Path(flags.settings_file))
    settle_model(settings, models, asked=flags.model != str(DEMO_MODEL))
    engine = make_engine(models, settings.options, styles, workers, journal=open_journal(Path(flags.outputs_dir)),
                         limits=Limits(pictures=flags.visitor_quota if is_shared(flags) else 0))

    import uvicorn

    from api.server import Server

    port = free_port(flags.host, flags.port)
    # no proxy_headers: visitors through a tunnel could claim any address
    config = uvicorn.Config(application(flags, engine, models, settings), host=flags.host, port=port, log_level="warning",
                            timeout_graceful_shutdown=1, proxy_headers=False, ssl_keyfile=flags.tls_keyfile,
                            ssl_certfile=flags.tls_certfile)

    def started() -> None:
        announce(flags, port)
        resume(engine)
        loading = engine.preload()  # not earlier: loading would slow down the start
        threading.Thread(target=collect_after, args=[loading], daemon=True).start()

    # cancel the jobs first, so that waiting clients get an answer before the server stops
    Server(config, started=started, ending=partial(engine.close, timeout=0)).run()
    engine.close(timeout=5)
    for worker in (workers or {}).values():
        worker.close()
    if cluster is not None:
        cluster.close()


def code_folder() -> Path:
    """Where compiled networks are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "palimpsest" / "compiled"


def open_models(flags: argparse.Namespace) -> "tuple[ModelStore, StyleDatabase]":
    """The models and styles named by the flags. Exits with a sentence if they cannot be read."""
    from pipeline import allocator
    from pipeline.errors import PalimpsestError
    from pipeline.families import placement
    from pipeline.loading import ModelStore
    from pipeline.models import Catalog
    from pipeline.styles import StyleDatabase

    allocator.share_arena()
    try:
        place = placement.choose(flags.device, flags.precision)
        catalog = Catalog(flags.models_dir, extra=[DEMO_MODEL], also=[DEMO_NETWORKS])
        models = ModelStore(catalog, place, find_model(flags.model, catalog), code=code_folder())
        models.describe()
        return models, StyleDatabase(flags.styles_file)
    except PalimpsestError as error:
        sys.exit(f"{error}.")


def application(flags: argparse.Namespace, engine: "Engine", models: "ModelStore", settings: "Settings") -> "FastAPI":
    """The application with page and API, configured by the flags."""
    from api import Backend, Fetcher, build_app
    from pipeline.drafts import Drafts
    from pipeline.selecting import Selecting
    from ui import WEB, build_ui, look

    outputs, samples, shared = Path(flags.outputs_dir), ROOT / "assets" / "samples", is_shared(flags)
    drafts = Drafts()
    page = build_ui(engine, models, models.describe(), outputs=outputs, samples=samples, settings=settings, drafts=drafts, shared=shared)
    told = {name: value for name, value in vars(flags).items() if name not in ("auth", "api_auth")}
    backend = Backend(engine, models, settings, outputs, told, Fetcher() if flags.api_urls else None, flags.lenient_scripts)
    return build_app(page, credentials(flags), backend=None if flags.no_api else backend,
                     api_logins=map(login_of, split(flags.api_auth)), origins=split(flags.cors_allow_origins),
                     max_body=flags.api_max_body, allowed_paths=[str(samples)], shared=shared, subpath=flags.subpath,
                     drafts=drafts, selecting=Selecting(drafts, engine), web=WEB, **look())


if __name__ == "__main__":
    main()

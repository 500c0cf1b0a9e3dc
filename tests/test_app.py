"""Flags, logins and ports."""

import base64
import gc
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from app import collect_after, credentials, find_model, free_port, main, parse_flags, parse_node_flags, settle_model
from pipeline import families, hub
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.families import placement
from pipeline.job import Failed, Job
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.ray_workers import node_command, node_environment
from pipeline.settings import Settings
from tests.conftest import DEMO_MODEL, ROOT
from tests.ui.conftest import start


WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # as if it were not installed
import app
app.main(sys.argv[1:])
"""


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


def test_devices_become_workers():
    assert placement.list_devices("cpu*2") == {"cpu #1": "cpu", "cpu #2": "cpu"} and placement.list_devices("cpu") == {"cpu": "cpu"}
    assert len(placement.list_devices("all")) >= 1


@pytest.mark.parametrize("listed", ["", "gpu", "cuda:99", "cpu*0", "cpu*65", "cpu*x", "cpu,cpu"])
def test_devices_that_are_not_there_are_refused(listed):
    with pytest.raises(InvalidRequest, match="devices"):
        placement.list_devices(listed)


@pytest.mark.parametrize("argv, sentence", [
    (["--ray", "start", "--devices", "all"], "leave out one of them"), (["--ray", "10.0.0.1"], "--ray must be start, or an address such as 10.0.0.1:6379"),
    (["--ray", ""], "--ray must be start")])
def test_a_ray_is_an_address_and_says_alone_where_the_workers_are(argv, sentence, capsys):
    with pytest.raises(SystemExit):
        parse_flags(argv)
    assert sentence in capsys.readouterr().err
    assert parse_flags(["--ray", "10.0.0.1:6379"]).ray == "10.0.0.1:6379" and parse_flags([]).ray is None


def test_a_node_needs_an_address_and_tells_its_workers_where_models_are(capsys):
    with pytest.raises(SystemExit):
        parse_node_flags(["10.0.0.1"])
    assert "ADDRESS must be such as 10.0.0.1:6379, got '10.0.0.1'" in capsys.readouterr().err
    assert parse_node_flags(["10.0.0.1:6379"]).models_dir == "models"
    assert node_command("10.0.0.1:6379", head=False)[-1] == "--address=10.0.0.1:6379"
    assert {"--head", "--node-ip-address=10.0.0.1", "--port=6379", "--include-dashboard=false"} <= set(node_command("10.0.0.1:6379", head=True))
    assert node_environment()["RAY_AUTH_MODE"] == "token" and str(ROOT) in node_environment()["PYTHONPATH"]


def test_without_ray_installed_the_flag_says_what_to_install(tmp_path):
    for argv in (["--ray", "start"], ["node", "10.0.0.1:6379"]):
        run = subprocess.run([sys.executable, "-c", WITHOUT_RAY, *argv, *(["--no-browser"] if argv[0] == "--ray" else [])],
                             cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert run.returncode == 1 and run.stderr.strip().endswith("needs Ray; install it with: pip install -r requirements-ray.txt." if argv[0] == "--ray"
                                                                   else "needs Ray; install it with: pip install -r requirements-ray.txt")


def test_a_taken_port_is_passed_over_unless_it_was_asked_for():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"--port: {port} cannot be opened"):
            free_port("127.0.0.1", port)
        assert free_port("127.0.0.1", None) != port


@pytest.fixture
def catalog(tmp_path):
    """A models folder with one file, and the demo model."""
    (tmp_path / "models" / "Stable-diffusion" / "old").mkdir(parents=True)
    (tmp_path / "models" / "Stable-diffusion" / "old" / "mine.safetensors").write_bytes(b"weights")
    return Catalog(tmp_path / "models", extra=[DEMO_MODEL])


def test_without_a_model_the_demo_model_is_taken(catalog):
    assert find_model(parse_flags([]).model, catalog).path == DEMO_MODEL


@pytest.mark.parametrize("wanted", ["mine", "old/mine.safetensors", "old_mine", "{path}", "{hash}"])
def test_a_model_is_found_by_name_or_hash_in_the_models_folder_or_by_its_path(catalog, wanted):
    mine = catalog.find_checkpoint("mine")
    catalog.sha256(mine)
    assert find_model(wanted.format(path=mine.path, hash=catalog.find_checkpoint("mine").hash), catalog).path == mine.path


def test_a_model_that_lies_elsewhere_is_listed_from_then_on(catalog, tmp_path):
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(b"weights")
    assert find_model(str(elsewhere), catalog) in catalog.checkpoints()


@pytest.mark.parametrize("wanted", ["no-such-model", "../models", "a/b/c", str(DEMO_MODEL / "unet")])
def test_a_missing_model_is_named(catalog, wanted):
    with pytest.raises(UnknownName, match="mine.safetensors|demo-model"):
        find_model(wanted, catalog)


def test_a_model_of_the_hub_is_downloaded_and_goes_by_its_id(catalog, tmp_path, monkeypatch, capsys):
    snapshot = tmp_path / "0123abcd"
    (snapshot / "unet").mkdir(parents=True)
    monkeypatch.setattr(hub, "download", lambda hub_id: snapshot)
    model = find_model("owner/name", catalog)
    assert (model.rel, model.stem, model.path) == ("owner/name", "name", snapshot)
    assert model in catalog.checkpoints() and "owner/name" in capsys.readouterr().out


def test_a_hub_that_cannot_be_reached_is_one_sentence(catalog, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def download(hub_id):
        raise ModelError(f'"{hub_id}" has not been downloaded yet')

    monkeypatch.setattr(hub, "download", download)
    with pytest.raises(ModelError, match='"owner/name" has not been downloaded yet'):
        find_model("owner/name", catalog)


def test_a_model_that_cannot_be_used_ends_the_start_with_its_sentence(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\xff" * 64)
    with pytest.raises(SystemExit, match='"damaged.safetensors" cannot be read as safetensors'):
        main(["--model", str(damaged), "--device", "cpu", "--no-browser"])


@pytest.mark.parametrize("remembered, asked, used", [("mine", False, "mine"), ("gone", False, ""), ("mine", True, "")])
def test_the_model_of_an_earlier_run_is_used_while_it_is_there_and_no_other_is_asked_for(catalog, tmp_path, capsys, remembered,
                                                                                         asked, used):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"sd_model_checkpoint": remembered}))
    settings = Settings(path)
    models = ModelStore(catalog, placement.choose("cpu", "float32"), catalog.find_checkpoint("demo-model"))
    settle_model(settings, models, asked=asked)
    assert settings.options.sd_model_checkpoint == used
    assert ('no checkpoint called "gone"' in capsys.readouterr().out) == (remembered == "gone")


def test_the_page_and_the_api_need_nothing_that_only_models_need():
    imports = "import sys, api, ui, pipeline.engine, pipeline.loading, pipeline.embeddings, pipeline.verify\n"
    heavy = '{"diffusers", "transformers", "scipy", "torch._dynamo"}'
    run = subprocess.run([sys.executable, "-c", f"{imports}print(*{heavy} & set(sys.modules))"], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.returncode) == ("\n", 0), run


def test_garbage_is_collected_again_also_where_the_model_could_not_be_loaded():
    loading = Job()
    gc.disable()
    try:
        watching = threading.Thread(target=collect_after, args=[loading])
        watching.start()
        watching.join(0.2)
        assert watching.is_alive() and not gc.isenabled()
        loading.publish(Failed(ModelError("damaged")))
        watching.join(30)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_polite_kill_answers_who_waits_and_ends_the_app_in_good_order(tmp_path):
    for server in start(outputs=tmp_path / "outputs"):
        page = urllib.request.urlopen(f"{server.url}/gradio_api/heartbeat/x")  # a page that stays open
        waiting = http.client.HTTPConnection(urlsplit(server.url).netloc)
        waiting.request("POST", "/sdapi/v1/txt2img", '{"steps": 1000, "width": 64, "height": 64}',
                        {"Content-Type": "application/json"})
        deadline = time.monotonic() + 60
        while not json.load(urllib.request.urlopen(f"{server.url}/sdapi/v1/progress"))["state"]["job"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert waiting.getresponse().status == 409
    page.close()
    assert server.status == 0 and not any("Traceback" in line or "ERROR" in line for line in server.output), server.output


def test_a_share_link_that_cannot_be_made_is_explained_and_the_page_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nobody listens there
    for server in start("--share", outputs=tmp_path / "outputs"):
        deadline = time.monotonic() + 60
        while not any("could not be opened" in line for line in server.output):
            assert time.monotonic() < deadline, server.output
            time.sleep(0.1)
        line = next(line for line in server.output if "requires a login" in line)
        login = base64.b64encode(f"palimpsest:{line.rsplit(' ', 1)[1]}".encode()).decode()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(server.url)
        request = urllib.request.Request(server.url, headers={"Authorization": f"Basic {login}"})
        assert urllib.request.urlopen(request).status == 200


def test_without_a_subcommand_the_page_is_started_with_the_same_flags_as_ever():
    assert parse_flags([]).model == str(DEMO_MODEL) and "verify" not in vars(parse_flags([]))


def test_verify_says_its_verdict_and_ends_with_its_status(picture, tmp_path, capsys):
    model = families.load(DEMO_MODEL, placement.choose("cpu", "float32"))  # of its own: other tests merge LoRAs into theirs
    engine = local_engine(lambda options: model)
    p = StableDiffusionProcessingImg2Img(init_images=[picture], width=64, height=64, steps=2, seed=-1,
                                         outpath_samples=str(tmp_path / "made"))
    [result] = engine.submit([p]).result()
    engine.close()
    file, flags = result.paths[0], ["--models-dir", str(tmp_path), "--outputs-dir", str(tmp_path), "--device", "cpu"]
    picture.save(given := tmp_path / "picture.png")
    for more, status, sentence in (
            ([], 2, "was not found; give its file with --picture.\n"),
            (["--picture", str(given)], 0, "Identical: made again, it has the same pixels.\n"),
            (["--picture", str(given), "--precision", "bfloat16"], 1, "Changed since then: precision float32 → bfloat16.\n")):
        with pytest.raises(SystemExit) as ended:
            main(["verify", file, *flags, *more])
        assert ended.value.code == status and capsys.readouterr().out.endswith(sentence)

"""Receipts: what they name, that every picture has its own, and that they never differ where nothing does."""

import json
import re
import socket
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

from pipeline.embeddings import EmbeddingShelf
from pipeline.engine import local_engine
from pipeline.errors import UnknownName
from pipeline.fonts import FONT
from pipeline.infotext import RECEIPT
from pipeline.networks import Networks
from pipeline.networks.file import file_hash
from pipeline.options import Options
from pipeline.originals import digest
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.receipt import KINDS, Receipt, read_receipt
from pipeline.record import FILES, OF_LEGENDS, OUTSIDE_RUNS, UNSEEN, asked
from pipeline.styles import StyleDatabase
from tests.conftest import ROOT
from tests.networks.network_models import File

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler a", "prompt": "a forest"}


@pytest.fixture
def request_for(picture):
    """A function: fields → a small request."""
    return lambda **changes: StableDiffusionProcessingImg2Img(**SMALL | {"init_images": [picture]} | changes)


@pytest.fixture
def made(engine, request_for):
    """A function: fields → the pictures that the engine gives."""
    return lambda **changes: engine.submit([request_for(**changes)]).result()[0].images


def test_the_same_request_gives_the_same_file_wherever_it_is_saved(engine, request_for, tmp_path):
    files = []
    for number in range(2):
        p = request_for(outpath_samples=str(tmp_path / str(number)), batch_size=2, outpath_grids=str(tmp_path / str(number)))
        engine.submit([p], f"job {number}").result()
        files.append(sorted(file.read_bytes() for file in (tmp_path / str(number)).rglob("*.png")))
    assert files[0] == files[1] and len(files[0]) == 3


def test_a_receipt_says_nothing_of_the_machine_s_folders_or_names(engine, request_for, tmp_path):
    [result] = engine.submit([request_for(outpath_samples=str(tmp_path / "x"), force_task_id="mine")], "the job").result()
    text = result.images[0].info[RECEIPT]
    assert not any(word in text for word in (str(tmp_path), str(Path.cwd()), "the job", "mine", socket.gethostname()))


def test_a_receipt_names_what_the_pixels_depend_on(made, picture, mask):
    image = made(mask=mask, mask_blur=0, override_settings={"randn_source": "CPU"})[0]
    receipt = read_receipt(image)
    assert receipt.packages.keys() == {"torch", "diffusers", "transformers", "pillow"}
    assert (receipt.device[:3], receipt.precision, receipt.rng, receipt.checkpoint) == ("CPU", "float32", "CPU", "demo-model")
    assert receipt.request["init_images"] == [{"picture": digest(picture)}] and receipt.request["mask"] == {"picture": digest(mask)}
    assert receipt.pixels == digest(image) and (receipt.seed, receipt.drawn, receipt.interrupted) == (1, [], False)
    assert len(receipt.text) < 4000


@pytest.mark.parametrize("changes, numbers", [
    ({}, [0]), ({"n_iter": 2}, [2, 0, 1]), ({"batch_size": 2, "n_iter": 2}, [4, 0, 1, 2, 3]),
    ({"override_settings": {"return_mask": True, "return_mask_composite": True}}, [3, 0, 1, 2]),
    ({"script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"]}, [2, 0, 1]),
    ({"script_name": "Prompt matrix", "script_args": [False, False, "positive", "comma", 0], "prompt": "a|b"}, [2, 0, 1])])
def test_every_picture_has_a_receipt_of_its_own(made, mask, changes, numbers):
    images = made(**changes, mask=mask if "override_settings" in changes else None)
    receipts = [read_receipt(image) for image in images]
    assert [receipt.number for receipt in receipts] == numbers
    assert [receipt.pixels for receipt in receipts] == [digest(image) for image in images]
    assert len({json.dumps(receipt.request) for receipt in receipts}) == 1


def test_all_that_is_saved_has_one_masks_and_grids_too(engine, request_for, mask, tmp_path):
    engine.submit([request_for(mask=mask, n_iter=2, outpath_samples=str(tmp_path), outpath_grids=str(tmp_path),
                               override_settings={"return_mask": True, "return_mask_composite": True})]).result()
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 7
    for file in files:
        with Image.open(file) as image:
            assert read_receipt(image).pixels == digest(image)


def test_a_random_seed_is_in_the_receipt(made):
    receipt = read_receipt(made(seed=-1)[0])
    assert receipt.request["seed"] == receipt.seed and receipt.drawn == []


@pytest.mark.parametrize("strength, named", [(0, False), (0.5, True)])
def test_a_random_subseed_is_in_the_receipt_where_it_acts(made, strength, named):
    assert (read_receipt(made(subseed_strength=strength)[0]).request["subseed"] != -1) == named


@pytest.mark.parametrize("one, other", [
    ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, {"options": Options(CLIP_stop_at_last_layers=2)}),
    ({"override_settings": {"jpeg_quality": 50}}, {"options": Options(live_previews_enable=False)}),
    ({"do_not_save_grid": True}, {"force_task_id": "mine"}), ({"cfg_scale": 7}, {"cfg_scale": 7.0}), ({"steps": 2}, {"steps": "2"}),
    ({"mask_round": False}, {"mask_round": None}), ({"seed_enable_extras": True}, {"seed_enable_extras": False, "seed_resize_from_w": 8,
                                                                                  "seed_resize_from_h": 8}),
    ({"initial_noise_multiplier": None}, {"initial_noise_multiplier": 1})])
def test_how_the_same_was_asked_for_makes_no_difference(request_for, one, other):
    same = {"seed_resize_from_w": 0, "seed_resize_from_h": 0}
    assert json.dumps(asked(request_for(**same | one))) == json.dumps(asked(request_for(**same | other)))


def test_receipts_know_which_options_scripts_look_at_outside_their_runs():
    scripts = "".join(file.read_text("utf-8") for file in (ROOT / "pipeline" / "scripts").glob("*.py"))
    of_grids = {spec.name for spec in fields(Options) if spec.name.startswith("grid_")} | {"return_grid", "n_rows"} | OF_LEGENDS
    assert set(OUTSIDE_RUNS) == of_grids | {*re.findall(r"standing\.(\w+)", scripts)}


@pytest.mark.parametrize("changes", [{"cfg_scale": 7.5}, {"tiling": True}, {"mask_round": False}, {"prompt": "a fort"},
                                     {"override_settings": {"CLIP_stop_at_last_layers": 2}}, {"script_name": "Loopback"}])
def test_what_changes_the_picture_changes_the_receipt(request_for, changes):
    assert asked(request_for(**changes)) != asked(request_for())


def test_a_font_is_in_receipts_by_its_name_alone_and_only_where_a_script_may_write_with_it(request_for):
    font = {"font": str(FONT)}
    assert asked(request_for(override_settings=font)) == asked(request_for())
    receipt = asked(request_for(override_settings=font, script_name="Prompt matrix"))
    assert str(FONT.parent) not in json.dumps(receipt) and receipt["override_settings"] == {"font": FONT.name}
    standing = asked(request_for(options=Options(font=str(FONT)), script_name="Prompt matrix"))
    assert standing["options"]["font"] == FONT.name


def test_options_that_receipts_leave_out_are_there():
    assert FILES | UNSEEN | OF_LEGENDS <= {spec.name for spec in fields(Options)}


def test_receipts_hold_what_reading_them_asks_for():
    assert KINDS.keys() == {spec.name for spec in fields(Receipt)}


def test_networks_embeddings_and_styles_are_named_with_their_hashes(demo, request_for, tmp_path):
    weight, width = demo.modules["unet"].conv_out.weight, demo.text_encoders[0].width
    save_file({"lora_unet_conv_out.diff": weight.detach() * 0.1}, tmp_path / "ink.safetensors")
    save_file({"emb_params": weight.detach().flatten()[:width].reshape(1, width)}, tmp_path / "oak.safetensors")
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\nold,an old photo,\nnew,neon,\n")

    def find(name):
        if name != "ink":
            raise UnknownName("prompt", "LoRA", name, ["ink"])
        return File(tmp_path / "ink.safetensors")

    engine = local_engine(lambda options: demo, networks=Networks(find), styles=StyleDatabase(tmp_path / "styles.csv"),
                    embeddings=EmbeddingShelf(lambda: [tmp_path / "oak.safetensors"]))
    try:
        p = request_for(prompt="an oak<lora:ink:1><lora:nobody:1>", styles=["old"])
        files = read_receipt(engine.submit([p]).result()[0].images[0]).files
        assert {kind: list(hashes) for kind, hashes in files.items()} == {
            "style": ["old"], "LoRA": ["ink"], "embedding": ["oak"], "checkpoint": ["demo-model"]}
        assert files["LoRA"]["ink"] == file_hash(tmp_path / "ink.safetensors")
        assert files["embedding"]["oak"] == file_hash(tmp_path / "oak.safetensors")
        plain = read_receipt(engine.submit([request_for()]).result()[0].images[0]).files
        assert plain.keys() == {"checkpoint"}
    finally:
        engine.close()


def test_a_request_that_is_run_by_itself_writes_no_receipt(demo, request_for):
    p = request_for()
    p.sd_model = demo
    assert RECEIPT not in process_images(p).images[0].info


def test_a_picture_without_a_receipt_has_none(picture):
    assert read_receipt(picture) is None


@pytest.mark.parametrize("damage", [
    lambda values: [], lambda values: {}, lambda values: values | {"more": 1}, lambda values: values | {"number": "0"},
    lambda values: values | {"drawn": ["x"]}, lambda values: values | {"files": {"checkpoint": 1}}])
def test_a_damaged_receipt_is_a_value_error(made, damage):
    image = made()[0]
    for text in (json.dumps(damage(json.loads(image.info[RECEIPT]))), "{", "[" * 100_000, b"{}"):
        image.info[RECEIPT] = text
        with pytest.raises(ValueError):
            read_receipt(image)

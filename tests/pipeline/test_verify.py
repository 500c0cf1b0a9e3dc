"""Verifying: a picture is made again from its receipt alone, compared, and what has changed is named."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file

from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.hooks import Hooks
from pipeline.infotext import RECEIPT, png_info
from pipeline.journal import Journal
from pipeline.models import Catalog
from pipeline.networks import LoraNames, Networks
from pipeline.originals import digest
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.receipt import Receipts, read_receipt
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import (
    Claim, Missing, Search, Status, Unverifiable, Verdict, changed, compare, read_claim, read_given, request_again, verify)
from tests.conftest import DEMO_MODEL

SMALL = {"width": 64, "height": 64, "steps": 2, "seed": 1, "sampler_name": "Euler a", "prompt": "a forest"}
PLOT = ["Steps", "1,2", "", "Var. seed", "-1", "", "Nothing", "", "", True, False, False, True, False, False, False, 0, False]
"""X/Y/Z plot of 1 and 2 steps, each with a random seed of its own."""


@pytest.fixture
def request_for(picture):
    """A function: fields → a small request."""
    return lambda **changes: StableDiffusionProcessingImg2Img(**SMALL | {"init_images": [picture]} | changes)


@pytest.fixture
def catalog(tmp_path):
    (tmp_path / "models" / "Lora").mkdir(parents=True)
    return Catalog(tmp_path / "models", extra=[DEMO_MODEL])


@pytest.fixture
def engine(demo, catalog, tmp_path):
    """An engine that keeps history, with the demo model whatever is asked for."""
    journal = Journal(tmp_path / "outputs")
    engine = local_engine(lambda options: demo, journal=journal, networks=Networks(LoraNames(catalog).find, catalog.hash_of))
    yield engine
    engine.close()
    journal.close()


@pytest.fixture
def saved(engine, tmp_path):
    """A function: a request → the files of all its pictures, in the order that they were finished in."""
    def run(p) -> list[Path]:
        p.outpath_samples = p.outpath_grids = str(tmp_path / "outputs" / "pictures")
        engine.submit([p]).result()
        entry = engine.journal.search(limit=1)[0]
        return [picture.path for picture in entry.pictures]
    return run


@pytest.fixture
def verdict(engine, catalog):
    """A function: a file → what verifying it comes to."""
    def run(file, find=None):
        claim = read_claim(file)
        p = request_again(claim.receipt, catalog, find or engine.journal.originals.open, thorough=True)
        return list(verify(claim, p, engine))[-1]
    return run


def with_receipt(file: Path, **changes) -> Path:
    """A copy of a picture whose receipt says something else."""
    with Image.open(file) as image:
        receipt = replace(read_receipt(image), **changes)
        image.save(copy := file.with_name("changed.png"), pnginfo=png_info(None, {RECEIPT: receipt.text}))
    return copy


@pytest.mark.parametrize("changes, pictures", [
    ({}, 1), ({"seed": -1, "n_iter": 2}, 3), ({"batch_size": 2, "subseed_strength": 0.3}, 3), ({"seed": [5, 9], "n_iter": 2}, 3),
    ({"mask": "mask", "inpainting_fill": 2, "mask_blur": 2, "override_settings": {"return_mask": True}}, 3),
    ({"script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"], "seed": -1, "n_iter": 2}, 5),
    ({"script_name": "X/Y/Z plot", "script_args": PLOT, "seed": -1, "n_iter": 2}, 7),
    ({"script_name": "X/Y/Z plot", "script_args": PLOT, "seed": -1, "n_iter": 2, "do_not_save_grid": True}, 5),
    ({"script_name": "Prompts from file or textbox", "script_args": [False, False, "start", "a boat\n--prompt a mill --seed 4"],
      "seed": -1}, 2),
    ({"script_name": "SD upscale", "script_args": [None, 16, "Lanczos", 1.5], "seed": -1}, 1),
    ({"script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"], "override_settings": {"img2img_color_correction": True}}, 3),
    ({"prompt": "a mill, " * 30, "override_settings": {"pad_cond_uncond": True, "CLIP_stop_at_last_layers": 2}}, 1),
    ({"alwayson_scripts": {"Soft Inpainting": {"args": [True]}}, "mask": "mask"}, 1)])
def test_every_picture_of_a_request_is_made_again_as_it_was(saved, verdict, request_for, mask, changes, pictures):
    files = saved(request_for(**changes | ({"mask": mask} if "mask" in changes else {})))
    assert len(files) == pictures
    for file in {files[pictures // 2], files[-1]}:  # the grid is the last
        assert verdict(file) == Verdict(Status.IDENTICAL, "Identical: made again, it has the same pixels.")


def test_a_picture_from_noise_is_made_again(saved, verdict):
    assert verdict(saved(StableDiffusionProcessingTxt2Img(**SMALL))[0]).status is Status.IDENTICAL


def test_verifying_saves_nothing_and_is_not_in_history(engine, saved, verdict, request_for, tmp_path):
    file = saved(request_for(n_iter=2))[0]
    before = sorted(tmp_path.rglob("*.png"))
    verdict(file)
    assert sorted(tmp_path.rglob("*.png")) == before and len(engine.journal.search()) == 1


def test_a_run_ends_behind_the_picture_that_is_wanted(engine, catalog, saved, request_for, monkeypatch):
    claim = read_claim(saved(request_for(n_iter=3))[0])
    p = request_again(claim.receipt, catalog, engine.journal.originals.open, thorough=True)
    counted, seen = Receipts.stamp, []
    monkeypatch.setattr(Receipts, "stamp", lambda *args: (seen.append(args), counted(*args)))
    list(verify(claim, p, engine))
    assert len(seen) == 1


def test_another_picture_is_different_and_by_how_much_is_said(saved, verdict, request_for):
    file = saved(request_for())[0]
    receipt = read_claim(file).receipt
    lied = with_receipt(file, request=receipt.request | {"seed": 2}, precision="float64", packages=receipt.packages | {"torch": "1.0"})
    found = verdict(lied)
    assert found.status is Status.DIFFERENT
    assert found.sentence.startswith("Different: made again, ") and "% of its pixels differ, by at most " in found.sentence
    assert f"Changed since then: torch 1.0 → {receipt.packages['torch']}; precision float64 → float32." in found.sentence


def test_a_change_that_the_receipt_does_not_name_is_told_as_one(saved, verdict, request_for):
    file = saved(request_for())[0]
    lied = with_receipt(file, request=read_claim(file).receipt.request | {"seed": 2})
    assert verdict(lied).sentence.endswith(" dB). Nothing in its receipt has changed.")


def test_the_same_pixels_in_spite_of_changes_are_identical(saved, verdict, request_for):
    found = verdict(with_receipt(saved(request_for())[0], program="0.0.1"))
    assert found.status is Status.IDENTICAL and "although this has changed: Palimpsest 0.0.1 → " in found.sentence


@pytest.mark.parametrize("size, mode, shown", [((8, 4), "RGB", "it is 8x4 RGB, not 4x4 RGB"),
                                               ((4, 4), "L", "it is 4x4 L, not 4x4 RGB")])
def test_another_size_or_mode_is_named(saved, request_for, size, mode, shown):
    receipt = read_claim(saved(request_for())[0]).receipt
    again = Image.new(mode, size)
    again.info[RECEIPT] = replace(receipt, pixels=digest(again)).text
    assert shown in compare(Claim(Image.new("RGB", (4, 4)), receipt), again).sentence


@pytest.mark.parametrize("apart, shown", [(1, "0.02% of its pixels differ, by at most 1 of 255 (PSNR 89.0 dB)"),
                                          (255, "0.02% of its pixels differ, by at most 255 of 255 (PSNR 40.9 dB)")])
def test_the_distance_is_share_largest_difference_and_psnr(saved, request_for, apart, shown):
    receipt = read_claim(saved(request_for())[0]).receipt
    then, again = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64))
    again.putpixel((3, 5), (apart, 0, 0))
    again.info[RECEIPT] = replace(receipt, pixels=digest(again)).text
    assert shown in compare(Claim(then, receipt), again).sentence


@pytest.mark.parametrize("changes, named", [
    ({}, []), ({"program": "9"}, ["Palimpsest 9 → 0.1.0"]), ({"device": "NVIDIA H100"}, ["device NVIDIA H100 → CPU"]),
    ({"precision": "bfloat16"}, ["precision bfloat16 → float32"]), ({"packages": {}}, ["torch None → 2"]),
    ({"files": {"checkpoint": {"m": "b" * 64}}}, ['checkpoint "m" bbbbbbbbbb → aaaaaaaaaa']),
    ({"files": {"checkpoint": {"m": None}}}, []), ({"files": {"checkpoint": {"was called otherwise": "a" * 64}}}, []),
    ({"files": {"LoRA": {"ink": "b" * 64}}}, ['LoRA "ink" bbbbbbbbbb is missing']),
    ({"files": {"VAE": {"v": "b" * 64}, "style": {"s": "c" * 64}}}, ['VAE "v" bbbbbbbbbb is missing',
                                                                  'style "s" cccccccccc is missing'])])
def test_what_changed_is_named(made_receipt, changes, named):
    assert list(changed(replace(made_receipt, **changes), made_receipt)) == named


@pytest.fixture
def made_receipt(saved, request_for):
    receipt = read_claim(saved(request_for())[0]).receipt
    return replace(receipt, program="0.1.0", packages={"torch": "2"}, device="CPU", files={"checkpoint": {"m": "a" * 64}})


# --- what cannot be verified

def flip(image: Image.Image) -> None:
    image.putpixel((0, 0), (1, 2, 3))


@pytest.mark.parametrize("spoil, why", [
    (lambda image: image.info.clear(), "it has no receipt"), (flip, "its pixels were changed after it was made"),
    (lambda image: image.info.update({RECEIPT: "{}"}), "its receipt is damaged"),
    (lambda image: image.info.update({RECEIPT: replace(read_receipt(image), interrupted=True).text}), "it was interrupted"),
    (lambda image: image.thumbnail((32, 32)), "its pixels were changed")])
def test_a_file_that_cannot_be_verified_is_refused_with_a_sentence(saved, request_for, spoil, why):
    file = saved(request_for())[0]
    image = Image.open(file)
    image.load()
    spoil(image)
    image.save(file, pnginfo=png_info(None, image.info))
    with pytest.raises(Unverifiable, match=why):
        read_claim(file)


def test_a_file_that_is_no_picture_or_not_there_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "nothing.png"):
        with pytest.raises(InvalidRequest, match=name):
            read_claim(tmp_path / name)


def test_a_file_that_is_cut_short_is_refused(saved, request_for):
    file = saved(request_for())[0]
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(InvalidRequest, match="damaged or cut short"):
        read_claim(file)


class Ends(Hooks):
    """Interrupts or skips the first batch."""

    def __init__(self, how: str):
        self.how = how

    def on_mask_blend(self, p, mba):
        if p.iteration == 0 and not mba.is_final_blend:
            getattr(self.engine, self.how)()


@pytest.mark.parametrize("how, said", [("interrupt", [True]), ("skip", [True, True, False])])
def test_a_picture_that_is_cut_short_says_so_and_so_does_its_grid(demo, request_for, mask, how, said):
    ends = Ends(how)
    ends.engine = engine = local_engine(lambda options: demo, hooks=[ends])
    images = engine.submit([request_for(mask=mask, steps=4, n_iter=2)]).result()[0].images
    engine.close()
    assert [read_receipt(image).interrupted for image in images] == said


@pytest.mark.parametrize("field, what", [("init_images", "picture"), ("mask", "mask")])
def test_a_picture_that_is_gone_is_missed_by_name(engine, saved, verdict, request_for, mask, picture, field, what):
    file = saved(request_for(mask=mask))[0]
    gone = digest(picture if field == "init_images" else mask)
    engine.journal.originals.path(gone).unlink()
    with pytest.raises(Missing, match=f"{gone}.*was not found") as missing:
        verdict(file)
    assert missing.value.what == what


def test_a_picture_that_is_gone_can_be_given(engine, saved, verdict, request_for, picture, tmp_path):
    file = saved(request_for())[0]
    engine.journal.originals.path(digest(picture)).unlink()
    picture.save(tmp_path / "picture.png")
    given = read_given({"picture": [str(tmp_path / "picture.png")]}, read_claim(file).receipt)
    assert verdict(file, given.get).status is Status.IDENTICAL


def test_a_given_picture_must_be_the_one(saved, request_for, picture, tmp_path):
    receipt = read_claim(saved(request_for())[0]).receipt
    picture.save(tmp_path / "right.png")
    picture.rotate(90).save(tmp_path / "wrong.png")
    assert read_given({"picture": [str(tmp_path / "right.png")]}, receipt).keys() == {digest(picture)}
    for what, name in (("picture", "wrong.png"), ("mask", "right.png")):
        with pytest.raises(Unverifiable, match=f"{name} is not the {what} that it was made from: its SHA-256 is "):
            read_given({what: [str(tmp_path / name)]}, receipt)


@pytest.mark.parametrize("entry", [
    {"kind": "other"}, {"options": 1}, {"options": None}, {"init_images": [{"picture": "../../secret"}]}, {"prompt": None},
    {"init_images": [{"picture": 1}]}, {"steps": 10**9}, {"options": {"nobody": 1}}, {"script_name": 7}, {"styles": [[]]}])
def test_a_receipt_of_nonsense_does_no_harm(engine, saved, verdict, request_for, entry):
    file = saved(request_for())[0]
    lied = with_receipt(file, request=read_claim(file).receipt.request | entry)
    try:
        assert verdict(lied).status is Status.UNVERIFIABLE
    except PalimpsestError as error:
        assert len(str(error)) > 10


def test_a_receipt_cannot_have_pictures_saved(saved, verdict, request_for, tmp_path):
    file = saved(request_for())[0]
    bad = {"outpath_samples": str(tmp_path / "evil"), "do_not_save_samples": False, "samples_filename": "x", "sd_model": "x"}
    assert verdict(with_receipt(file, request=read_claim(file).receipt.request | bad)).status is Status.IDENTICAL
    assert not (tmp_path / "evil").exists()


# --- models by content

def test_a_model_that_is_not_there_is_missed_by_name(saved, verdict, request_for):
    file = saved(request_for())[0]
    with pytest.raises(Missing, match='the checkpoint "mine" .*is not in the models folder'):
        verdict(with_receipt(file, checkpoint="mine", files={"checkpoint": {"mine": "a" * 64}}))


@pytest.fixture
def ink(demo, catalog):
    """A LoRA in the models folder."""
    path = catalog.root / "Lora" / "ink.safetensors"
    save_file({"lora_unet_conv_out.diff": demo.modules["unet"].conv_out.weight.detach() * 0.5}, path)
    catalog.refresh()
    return path


def test_a_lora_is_found_under_another_name(saved, verdict, request_for, ink, catalog):
    file = saved(request_for(prompt="a forest<lora:ink:0.7>"))[0]
    ink.rename(ink.with_name("renamed.safetensors"))
    catalog.refresh()
    assert verdict(file).sentence == "Identical: made again, it has the same pixels."


def test_a_lora_of_the_name_with_other_content_is_used_and_named(saved, verdict, request_for, ink, demo, catalog):
    file = saved(request_for(prompt="a forest<lora:ink:0.7>"))[0]
    save_file({"lora_unet_conv_out.diff": demo.modules["unet"].conv_out.weight.detach() * -0.5}, ink)
    catalog.refresh()
    found = verdict(file)
    assert found.status is Status.DIFFERENT and 'Changed since then: LoRA "ink" ' in found.sentence


@pytest.mark.parametrize("name, thorough, found", [("a", False, "a"), ("gone", True, "b"), ("gone", False, None)])
def test_files_of_other_names_are_read_only_where_it_is_asked_for(tmp_path, name, thorough, found):
    folder = tmp_path / "models" / "Lora"
    folder.mkdir(parents=True)
    for stem in "ab":
        save_file({}, folder / f"{stem}.safetensors", {"name": stem})
    catalog = Catalog(tmp_path / "models")
    wanted = catalog.sha256(catalog.find_lora("b" if thorough else "a"))
    fresh = Catalog(tmp_path / "models", cache=tmp_path / "none.json")
    file = Search(fresh, thorough).find("LoRA", name, wanted)
    assert (file and file.stem) == found


@pytest.mark.parametrize("changes", [{"seed": 5}, {"seed": -1}, {"seed": [9, 4]}, {"seed": -1, "subseed_strength": 0.3, "n_iter": 2}])
def test_a_picture_with_a_mask_of_its_own_is_made_again(saved, request_for, verdict, picture, changes):
    masks = [Image.new("L", picture.size, 255), picture.convert("L")]
    files = saved(request_for(init_images=[picture, picture.rotate(90)], mask=masks, batch_size=2, **changes))
    assert len(files) == 2 * changes.get("n_iter", 1) + 1
    for file in files:
        assert verdict(file).status is Status.IDENTICAL

"""ADetailer in a request: which finds are redone, with what, and that each is an ordinary inpainting run."""

import numpy as np
import pytest
from PIL import Image

from pipeline import scripts
from pipeline.adetailer import infotext_of, prompts_for, read_details, read_pass, read_told, suffix
from pipeline.controlnet.store import ControlNets
from pipeline.detectors import Find
from pipeline.detectors.masks import masks_of
from pipeline.detectors.store import Detectors
from pipeline.device import DeviceWorker
from pipeline.errors import InvalidRequest, UnknownName
from pipeline.geometry import Size
from pipeline.families import control_networks
from pipeline.infotext import parse
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.originals import digest
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.receipt import read_receipt
from pipeline.styles import Style, StyleDatabase
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import request_again
from pipeline.worker import Keep, Wishes
from tests.conftest import DEMO_MODEL
from tests.detectors import onnx_files
from tests.families import tiny_controls
from tests.scripts.conftest import Watch

RED, GREEN = (16, 16, 32, 32), (48, 32, 64, 48)
FACE = {"ad_model": "face_yolov8n.pt", "ad_confidence": 0.9, "ad_mask_blur": 0, "ad_inpaint_only_masked_padding": 0}


@pytest.fixture(scope="session")
def detectors(tmp_path_factory):
    """A detector whose boxes are the cells of 16 pixels that are red or green."""
    folder = tmp_path_factory.mktemp("adetailer")
    (folder / "face_yolov8n.onnx").write_bytes(onnx_files.yolo())
    return Detectors(folder, lambda path: "feed")


@pytest.fixture
def squares():
    """A red and a green cell on dark grey, 64x64."""
    image = Image.new("RGB", (64, 64), (50, 50, 50))
    image.paste((255, 0, 0), RED)
    image.paste((0, 240, 0), GREEN)
    return image


@pytest.fixture
def asked(request_for, squares, detectors):
    """A function: (passes, switches, fields) → a request that details the squares themselves, unless told otherwise."""
    def make(*passes, switches=(True, True), kind=None, **fields):
        always = {"ADetailer": {"args": [*switches, *({**FACE, **one} for one in passes or ({},))]}} | fields.pop("always", {})
        p = request_for(**{"init_images": [squares], "alwayson_scripts": always} | ({} if kind else fields))
        if kind is not None:
            p = kind(**p.arguments() | {"init_images": []} | fields)
        p.detectors = detectors
        return p
    return make


@pytest.fixture
def inpainted(request_for):
    """A function: (picture, box of a find, fields) → that picture with the box redone by an ordinary request."""
    def make(image, box, **fields):
        mask, = masks_of([Find(box, 1.0)], Size(*image.size), grow=4)
        settings = {"init_images": [image], "mask": mask, "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": True,
                    "inpaint_full_res_padding": 0, "denoising_strength": 0.4}
        return scripts.run(request_for(**settings | fields)).images[0]
    return make


def pixels(image):
    return np.asarray(image.convert("RGB")).astype(int)


def same(one, other):
    return one.convert("RGB").tobytes() == other.convert("RGB").tobytes()


def changed(one, other):
    """(x1, y1, x2, y2) of the pixels that differ, right and lower exclusive; None if none do."""
    return Image.fromarray((np.abs(pixels(one) - pixels(other)).max(2) > 0).astype(np.uint8)).getbbox()


# --- what is redone

def test_each_find_is_inpainted_on_the_result_of_the_one_before_with_the_next_seed(asked, inpainted, squares):
    made = scripts.run(asked())
    first = inpainted(squares, RED, seed=1)
    assert same(made.images[0], inpainted(first, GREEN, seed=2)) and len(made.images) == 1
    assert changed(made.images[0], squares) is not None


def test_it_acts_on_the_picture_that_was_made_unless_img2img_is_skipped(asked, request_for, squares, detectors):
    plain = scripts.run(request_for(init_images=[squares], denoising_strength=0.05))
    made = scripts.run(asked({"ad_mask_k": 1, "ad_confidence": 0.3}, switches=(True,), denoising_strength=0.05))
    skipped = scripts.run(asked({"ad_mask_k": 1}))
    assert not same(made.images[0], plain.images[0]) and not same(skipped.images[0], made.images[0])
    left, top, right, bottom = changed(skipped.images[0], squares)
    # one find of 17 pixels, grown by 1 and 2
    assert left >= 15 and top >= 15 and right <= 35 and bottom <= 35
    assert parse(skipped.infotexts[0])["Steps"] == "2"


@pytest.mark.parametrize("args", [
    [], [False, False, FACE], [True, False, FACE | {"ad_model": "None", "ad_confidence": "nonsense"}], [True, False, FACE | {"ad_tab_enable": False}],
    [False, False, {"ad_model": "missing.pt", "ad_steps": "x"}], [True, False, {}]])
def test_what_is_off_changes_nothing(args, request_for, squares):
    on = scripts.run(request_for(init_images=[squares], alwayson_scripts={"ADetailer": {"args": args}}))
    off = scripts.run(request_for(init_images=[squares]))
    assert same(on.images[0], off.images[0]) and on.infotexts == off.infotexts


def test_a_list_may_begin_with_the_pass(asked, squares):
    p = asked(switches=())
    assert "ADetailer model" in scripts.run(p).infotexts[0]


def test_passes_follow_each_other_and_each_begins_with_the_pictures_seed(asked, inpainted, squares):
    made = scripts.run(asked({"ad_model_classes": "red"}, {"ad_model_classes": "green"}))
    assert same(made.images[0], inpainted(inpainted(squares, RED, seed=1), GREEN, seed=1))


def test_prompts_by_find(asked, inpainted, squares):
    made = scripts.run(asked({"ad_prompt": "a face [SEP] [PROMPT], red", "ad_negative_prompt": "blurry"}))
    first = inpainted(squares, RED, prompt="a face", negative_prompt="blurry")
    assert same(made.images[0], inpainted(first, GREEN, prompt=" a forest , red", negative_prompt="blurry", seed=2))


def test_a_find_that_is_skipped_still_counts(asked, inpainted, squares):
    made = scripts.run(asked({"ad_prompt": "[SKIP] [SEP] a hand"}))
    assert same(made.images[0], inpainted(squares, GREEN, prompt="a hand", seed=2))


def test_the_last_prompt_is_for_all_further_finds():
    assert prompts_for("", "a cat") == ["a cat"]
    assert prompts_for("x[SEP][SEP] [PROMPT] y", "a cat") == ["x", "a cat", " a cat  y"]


def test_all_finds_may_have_the_same_seed(asked, inpainted, squares):
    made = scripts.run(asked(override_settings={"ad_same_seed_for_each_tab": True, "ad_bbox_sortby": "Position (left to right)"}))
    assert same(made.images[0], inpainted(inpainted(squares, RED, seed=1), GREEN, seed=1))


def test_the_order_of_finds_is_an_option(asked, inpainted, squares):
    made = scripts.run(asked(override_settings={"ad_bbox_sortby": "Position (center to edge)"}))
    # centres at (24, 24) and (56, 40): 11.3 and 25.3 from the middle
    assert same(made.images[0], inpainted(inpainted(squares, RED, seed=1), GREEN, seed=2))
    by_area = scripts.run(asked({"ad_mask_k": 1, "ad_mask_filter_method": "Confidence"}))
    assert same(by_area.images[0], inpainted(squares, RED, seed=1))


def test_a_pass_has_settings_of_its_own(asked, inpainted, squares):
    own = {"ad_use_steps": True, "ad_steps": 5, "ad_use_cfg_scale": True, "ad_cfg_scale": 3, "ad_use_sampler": True, "ad_sampler": "Heun",
           "ad_scheduler": "Karras", "ad_use_noise_multiplier": True, "ad_noise_multiplier": 1.1, "ad_use_clip_skip": True, "ad_clip_skip": 2,
           "ad_use_inpaint_width_height": True, "ad_inpaint_width": 72, "ad_inpaint_height": 80, "ad_denoising_strength": 0.7, "ad_mask_k": 1}
    made = scripts.run(asked(own))
    alone = inpainted(squares, RED, steps=5, cfg_scale=3, sampler_name="Heun", scheduler="Karras", initial_noise_multiplier=1.1, width=72, height=80,
                      denoising_strength=0.7, override_settings={"CLIP_stop_at_last_layers": 2})
    assert same(made.images[0], alone)
    ignored = {name: value for name, value in own.items() if not name.startswith("ad_use")} | {"ad_denoising_strength": 0.4}
    assert same(scripts.run(asked(ignored)).images[0], inpainted(squares, RED))


def test_the_whole_picture_may_be_redone(asked, inpainted, squares):
    made = scripts.run(asked({"ad_mask_k": 1, "ad_inpaint_only_masked": False}))
    assert same(made.images[0], inpainted(squares, RED, inpaint_full_res=False))


def test_a_pass_may_name_another_checkpoint(asked, demo, monkeypatch):
    asked_for = []
    p = asked({"ad_use_checkpoint": True, "ad_checkpoint": "other", "ad_mask_k": 1})
    p.load_model = lambda options: asked_for.append(options.sd_model_checkpoint) or demo
    scripts.run(p)
    assert asked_for == ["other"]


def test_another_vae_is_taken_out_again(asked, demo):
    asked_for = []
    p = asked({"ad_use_vae": True, "ad_vae": "other.safetensors", "ad_mask_k": 1}, batch_size=2)
    p.load_model = lambda options: asked_for.append(options.sd_vae) or demo
    scripts.run(p)
    assert asked_for == ["other.safetensors", "Automatic"] * 2


def test_later_batches_still_wrap_around(asked):
    """A pass of a tiling picture ends, and the picture after it tiles as well as without."""
    batches = scripts.run(asked({"ad_confidence": 0.1, "ad_mask_k": 1}, switches=(True,), n_iter=2, tiling=True, prompt="x"))
    second = scripts.run(asked({"ad_confidence": 0.1, "ad_mask_k": 1}, switches=(True,), seed=2, tiling=True, prompt="x"))
    assert same(batches.images[-1], second.images[-1])


def test_with_a_mask_only_finds_that_it_touches_are_redone(asked, squares):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (56, 40, 60, 44))
    made = scripts.run(asked(mask=mask, inpaint_full_res=False, inpainting_fill=1))
    left, top, *_ = changed(made.images[0], squares)
    assert left >= 46 and top >= 30
    inverted = scripts.run(asked(mask=mask, inpaint_full_res=False, inpainting_mask_invert=1))
    assert changed(inverted.images[0], squares)[0] < 32


def test_masks_of_the_request_do_not_hide_what_was_found(asked, squares, request_for):
    """With Only masked, finds are looked for in the crop, and the source is put back around it."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (8, 8, 40, 40))
    p = asked({"ad_confidence": 0.3}, switches=(True,), mask=mask, inpaint_full_res=True, inpainting_fill=1, denoising_strength=0.05, mask_blur=0)
    plain = scripts.run(request_for(init_images=[squares], mask=mask, inpaint_full_res=True, inpainting_fill=1, denoising_strength=0.05, mask_blur=0))
    made = scripts.run(p)
    assert made.images[0].size == (64, 64) and not same(made.images[0], plain.images[0])
    left, top, right, bottom = changed(made.images[0], squares)
    assert left >= 8 and top >= 8 and right <= 40 and bottom <= 40


def test_each_picture_of_a_batch_is_detailed_by_its_own_seed(asked, inpainted, squares):
    made = scripts.run(asked({"ad_mask_k": 1}, batch_size=2, n_iter=2))
    assert made.all_seeds == [1, 2, 3, 4] and len(made.images) - made.index_of_first_image == 4
    for seed, image in zip(made.all_seeds, made.images[made.index_of_first_image:]):
        assert same(image, inpainted(squares, RED, seed=seed))


def test_styles_apply_to_the_pictures_prompt_again(asked, inpainted, squares):
    """As in the extension, whose passes get the prompt with its styles, and the styles too."""
    p = asked({"ad_mask_k": 1}, styles=["night"])
    p.style_database = StyleDatabase()
    p.style_database.styles["night"] = Style("night", "at night", "")
    assert same(scripts.run(p).images[0], inpainted(squares, RED, prompt="a forest, at night, at night"))


def test_txt2img_and_its_second_pass_are_detailed(asked, detectors):
    for hires in ({}, {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5}):
        fields = {"kind": StableDiffusionProcessingTxt2Img, "switches": (True, True), **hires}
        made = scripts.run(asked({"ad_confidence": 0.05, "ad_mask_k": 1, "ad_mask_max_ratio": 1}, **fields))
        plain = scripts.run(asked({"ad_model": "None"}, **fields))
        assert made.images[0].size == plain.images[0].size == ((96, 96) if hires else (64, 64))
        assert not same(made.images[0], plain.images[0])


def test_nothing_found_is_said(asked, squares):
    made = scripts.run(asked({"ad_confidence": 1.0}))
    assert same(made.images[0], squares) and made.comments == ['ADetailer: "face_yolov8n.pt" found nothing to work on.']


def test_what_stands_in_for_a_detector_is_said(asked, detectors, tmp_path):
    (tmp_path / "my_face.onnx").write_bytes(onnx_files.yolo())
    p = asked()
    p.detectors = Detectors(tmp_path)
    assert 'ADetailer: "face_yolov8n.pt" is not in models/adetailer; "my_face.onnx" was used in its place.' in scripts.run(p).comments


def test_a_missing_detector_is_refused_before_anything_is_sampled(asked, demo, monkeypatch):
    p = asked({"ad_model": "eyes.pt"}, switches=(True,))
    monkeypatch.setattr(demo, "denoise", lambda *args: pytest.fail("sampled"))
    with pytest.raises(InvalidRequest, match='no detector called "eyes.pt"; there is face_yolov8n.onnx'):
        scripts.run(p)


# --- with other scripts

def test_soft_inpainting_acts_in_the_passes(asked, inpainted, squares):
    soft = {"Soft Inpainting": {"args": [True]}}
    made = scripts.run(asked({"ad_mask_k": 1, "ad_mask_blur": 4}, always=soft))
    assert same(made.images[0], inpainted(squares, RED, mask_blur=4, alwayson_scripts=soft))


@pytest.fixture(scope="module")
def networks(demo, tmp_path_factory):
    """What loads a ControlNet for the demo model."""
    folder = tmp_path_factory.mktemp("models") / "ControlNet"
    tiny_controls.controlnet(demo._unet).save_pretrained(folder / "tile_edges", safe_serialization=True)
    catalog = Catalog(folder.parent)
    return ControlNets(catalog.find_control_network, catalog.sha256, control_networks.load)


def test_a_control_network_sees_a_find_if_its_pass_says_so(asked, request_for, networks, squares):
    unit = {"enabled": True, "model": "tile_edges", "module": "invert", "weight": 0.8, "pixel_perfect": True}
    main = {"ControlNet": {"args": [unit]}}

    def made(p):
        p.control_networks = networks
        return scripts.run(p).images[0]

    mask, = masks_of([Find(RED, 1.0)], Size(64, 64), grow=4)
    wanted = made(request_for(init_images=[squares], mask=mask, mask_blur=0, inpainting_fill=1, inpaint_full_res=True, inpaint_full_res_padding=0,
                              denoising_strength=0.4, alwayson_scripts=main))
    own = made(asked({"ad_mask_k": 1, "ad_controlnet_model": "tile_edges", "ad_controlnet_module": "invert", "ad_controlnet_weight": 0.8}))
    passed = made(asked({"ad_mask_k": 1, "ad_controlnet_model": "Passthrough"}, always=main))
    without = made(asked({"ad_mask_k": 1}, always=main))
    assert same(own, wanted) and same(passed, wanted) and not same(without, wanted)


def test_scripts_run_it_in_each_of_their_runs(asked, squares):
    plot = scripts.run(asked({"ad_mask_k": 1}, script_name="Prompt matrix", prompt="a|b", script_args=[False, False, "positive", "comma", 0]))
    assert len(plot.images) - plot.index_of_first_image == 2
    assert all("ADetailer model: face_yolov8n.pt" in text for text in plot.infotexts[plot.index_of_first_image:])


# --- progress, stopping, continuing

def test_passes_do_not_count_as_batches(asked):
    p = asked(n_iter=2)
    p.progress = Watch()
    scripts.run(p)
    assert p.progress.batches == [2] and p.progress.done == 2


class Interrupting(Watch):
    """Interrupts a sampling by its number."""

    def __init__(self, at):
        super().__init__()
        self.at, self.samplings = at, 0

    @property
    def stopped(self):
        return self.samplings >= self.at and self.partial

    def begin_sampling(self, steps):
        self.samplings, self.partial = self.samplings + 1, False

    def checkpoint(self):
        if self.samplings == self.at:
            self.interrupt_behind = self.done
        super().checkpoint()


def test_an_interrupt_keeps_what_is_done_and_marks_the_picture(asked, squares):
    p = asked(n_iter=2)
    p.progress = Interrupting(at=2)
    made = scripts.run(p)
    assert made.interrupted and len(made.images) == 1 and p.progress.samplings == 2
    # the red find is done, the green one was stopped at its first step
    assert changed(made.images[0], squares)[0] < 32


def test_a_picture_whose_sampling_was_stopped_is_not_detailed(asked, squares):
    p = asked(switches=(True,))
    p.progress = Interrupting(at=1)
    assert scripts.run(p).interrupted and p.progress.samplings == 1


def test_a_run_continues_to_the_same_pixels(asked, demo, detectors, monkeypatch):
    p, told, calls, ask = asked({"ad_confidence": 0.1, "ad_mask_k": 2}, switches=(True, False), seed=-1), [], [], demo.denoise
    p = StableDiffusionProcessingImg2Img(**p.arguments() | {"sd_model": None})
    monkeypatch.setattr(demo, "denoise", lambda *args: calls.append(args) or ask(*args))

    def run(tell, kept=b""):
        return DeviceWorker(lambda options: demo, detectors=detectors, keep_every=0.0).run(p, StyleDatabase(), tell, Wishes(), kept)

    whole = run(told.append)
    asked_for = len(calls)
    again = run(lambda news: None, b"".join(news.data for news in told if isinstance(news, Keep)))
    # the picture and its two finds: all calls are known
    assert same(whole.images[0], again.images[0]) and whole.infotexts == again.infotexts
    assert asked_for == 2 + 1 + 1 and len(calls) == asked_for


def test_a_receipt_makes_the_picture_again(asked, demo, squares, detectors, tmp_path):
    made = scripts.run(asked(seed=-1))
    receipt = read_receipt(made.images[0])
    assert receipt.files["detector"] == {"face_yolov8n.onnx": "feed"}
    (tmp_path / "Stable-diffusion").mkdir()
    catalog = Catalog(tmp_path, extra=[DEMO_MODEL])
    again = request_again(receipt, catalog, {digest(squares): squares}.get, thorough=False)
    assert again.alwayson_scripts["ADetailer"]["args"][2]["ad_model"] == "face_yolov8n.pt"
    assert again.replay.number == receipt.number == 2  # after the two finds
    found = DeviceWorker(lambda options: demo, detectors=detectors).run(again, StyleDatabase(), lambda news: None, Wishes()).found
    assert same(found, made.images[0])


# --- the fields

def test_earlier_names_null_and_unknown_ones():
    details = read_details([True, False, FACE | {"ad_mask_k_largest": 3, "ad_tap_enable": True, "ad_checkpoint": None, "is_api": [], "ad_new": 1}])
    assert details.passes[0].ad_mask_k == 3 and details.passes[0].ad_checkpoint == "Use same checkpoint"
    assert details.notes == ("ADetailer does not know ad_new, so it was left out.",)


@pytest.mark.parametrize("args, sentence", [
    ("x", "args must be a list"), ([FACE] * 16, "at most 15 passes, got 16"),
    ([FACE, FACE | {"ad_confidence": 2}], "pass 2: ad_confidence must be a number between 0 and 1, got 2"),
    ([FACE | {"ad_mask_merge_invert": "Both"}], "pass 1: ad_mask_merge_invert must be one of None, Merge, Merge and Invert, got 'Both'"),
    ([FACE | {"ad_prompt": 7}], "ad_prompt must be text, got 7"), ([FACE | {"ad_use_steps": "yes"}], "ad_use_steps must be true or false, got 'yes'"),
    ([FACE | {"ad_steps": float("nan")}], "ad_steps"), ([FACE | {"ad_use_sampler": True, "ad_sampler": "Eule"}], 'pass 1: .*did you mean "Euler"'),
    ([FACE | {"ad_controlnet_model": "x", "ad_controlnet_module": "nope"}], "pass 1: .*nope")])
def test_bad_values_are_refused_by_pass_and_field(args, sentence, request_for):
    with pytest.raises(InvalidRequest, match=f'^alwayson_scripts of "ADetailer".*{sentence}'):
        scripts.check(request_for(alwayson_scripts={"ADetailer": {"args": args}}))


def test_the_option_refuses_other_orders():
    with pytest.raises(UnknownName):
        Options().override({"ad_bbox_sortby": "Name"})


# --- infotext

def test_infotext_tells_a_pass_as_the_extension_does():
    told = infotext_of(read_details([True, False, {"ad_model": "face_yolov8n.pt"}, {"ad_model": "None"}, {
        "ad_model": "hand_yolov8n.pt", "ad_prompt": "a hand", "ad_mask_k": 2, "ad_mask_min_ratio": 0.1, "ad_x_offset": 3, "ad_inpaint_only_masked": False,
        "ad_use_steps": True, "ad_use_sampler": True, "ad_sampler": "Euler", "ad_cfg_scale": 3, "ad_controlnet_model": "tile", "ad_controlnet_weight": 0.5}]))
    assert list(told.items()) == [
        ("ADetailer model", "face_yolov8n.pt"), ("ADetailer confidence", 0.3), ("ADetailer dilate erode", 4), ("ADetailer mask blur", 4),
        ("ADetailer denoising strength", 0.4), ("ADetailer inpaint only masked", True), ("ADetailer inpaint padding", 32),
        ("ADetailer model 3rd", "hand_yolov8n.pt"), ("ADetailer prompt 3rd", "a hand"), ("ADetailer confidence 3rd", 0.3),
        ("ADetailer method to decide top k masks 3rd", "Area"), ("ADetailer mask only top k 3rd", 2), ("ADetailer mask min ratio 3rd", 0.1),
        ("ADetailer x offset 3rd", 3), ("ADetailer dilate erode 3rd", 4), ("ADetailer mask blur 3rd", 4), ("ADetailer denoising strength 3rd", 0.4),
        ("ADetailer inpaint only masked 3rd", False), ("ADetailer use separate steps 3rd", True), ("ADetailer steps 3rd", 28),
        ("ADetailer use separate sampler 3rd", True), ("ADetailer sampler 3rd", "Euler"), ("ADetailer ControlNet model 3rd", "tile"),
        ("ADetailer ControlNet weight 3rd", 0.5), ("ADetailer version", "25.3.0")]


def test_infotext_is_read_back(asked):
    own = {"ad_prompt": "a face, close: [SEP] b", "ad_mask_k": 1, "ad_use_steps": True, "ad_steps": 3, "ad_inpaint_only_masked": False}
    made = scripts.run(asked({}, own))
    (first, second), unread = read_told(parse(made.infotexts[0]))
    assert read_pass(first) == read_pass(FACE) and read_pass(second) == read_pass(FACE | own | {"ad_inpaint_only_masked_padding": 32})
    assert read_told({}) == ([], []) and not unread
    assert read_told({"ADetailer model": "x", "ADetailer confidence": "7"}) == ([], [
        "ADetailer pass 1 was left out: ad_confidence must be a number between 0 and 1, got '7'."])
    assert read_told({"ADetailer model 2nd": "x", "ADetailer mask only top k largest 2nd": "3"}) == ([{}, {"ad_model": "x", "ad_mask_k": "3"}], [])
    assert [suffix(index) for index in (0, 1, 2, 3, 10, 20)] == ["", " 2nd", " 3rd", " 4th", " 11th", " 21st"]

"""Nothing is computed twice, and nobody can tell by the pixels."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipeline import families, originals
from pipeline.caches import ENTRY, Cache, size_of
from pipeline.engine import local_engine
from pipeline.hooks import HookList, Hooks
from pipeline.journal import Journal
from pipeline.originals import digest
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from tests.families import tiny

# --- the store

KIB = 1024


def block(kib: int) -> torch.Tensor:
    return torch.zeros(kib * KIB, dtype=torch.uint8)


def test_a_value_is_made_once():
    cache, made = Cache(), []
    for key in "abab":
        cache.get(key, lambda: made.append(key))  # also one that is None
    assert made == ["a", "b"]


def test_it_holds_no_more_bytes_than_it_may():
    cache = Cache(100 * KIB)
    for number in range(50):
        cache.get(number, lambda: block(9))
        assert cache.size <= 100 * KIB
    assert cache.size == 10 * (9 * KIB + ENTRY)


def test_what_was_used_longest_ago_goes_first():
    cache, made = Cache(2 * (KIB + ENTRY)), []
    for key in "abacabc":
        cache.get(key, lambda: made.append(key) or block(1))
    assert "".join(made) == "abcbc"


def test_a_value_larger_than_all_of_it_is_given_but_not_kept_and_drives_nothing_out():
    cache, made = Cache(100 * KIB), []
    for key, kib in (("a", 50), ("large", 100), ("a", 50), ("large", 100)):
        assert len(cache.get(key, lambda: made.append(key) or block(kib))) == kib * KIB
    assert made == ["a", "large", "large"]


def test_what_could_not_be_made_is_not_kept():
    cache = Cache()
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 / 0)
    assert cache.get("a", lambda: "made") == "made"


def test_nothing_is_left_when_it_is_cleared():
    cache, made = Cache(), []
    for _ in range(2):
        cache.get("a", lambda: made.append("a") or block(1))
        cache.clear()
        assert cache.size == 0
    assert made == ["a", "a"]


@dataclass
class Pair:
    first: object
    second: object


@pytest.mark.parametrize("value, size", [
    (None, 0), ("text", 0), (torch.zeros(3, 5), 60), (np.zeros((3, 5)), 120), (Image.new("L", (6, 4)), 24),
    (Image.new("RGB", (6, 4)), 96), ([torch.zeros(2), (torch.zeros(3), 1)], 20), (Pair(torch.zeros(2), np.zeros(1)), 16),
    (torch.zeros(9)[:1], 36), ([whole := torch.zeros(9), whole[:1], whole[1:]], 36),
])
def test_the_bytes_of_a_value_are_those_of_its_pictures_tensors_and_arrays(value, size):
    assert size_of(value) == size


# --- a request's stages

class Counted:
    """A family, and how often each of its networks was asked."""

    def __init__(self, family):
        self.family, self.asked = family, []

    def __getattr__(self, name):
        return getattr(self.family, name)

    def encode_prompts(self, texts, how):
        self.asked.append("text")
        return self.family.encode_prompts(texts, how)

    def encode_image(self, pixels):
        self.asked.append("encode")
        return self.family.encode_image(pixels)

    def image_conditioning(self, *args, **settings):
        self.asked.append("condition")
        return self.family.image_conditioning(*args, **settings)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    """A tiny inpainting checkpoint."""
    folder, _ = tiny.make("sd1-inpainting", tmp_path_factory.mktemp("inpainting"))
    return families.load(folder, families.placement.choose("cpu", "float32"))


@pytest.fixture
def family(demo):
    return Counted(demo)


@pytest.fixture
def run(family, picture, mask):
    """A small request with these fields and this cache → what it gives. mask="given" is the fixture's."""
    def run(cache, hooks=(), model=None, **fields):
        fields = {"init_images": [picture], "width": 64, "height": 64, "steps": 1, "seed": 1, "sampler_name": "Euler",
                  "prompt": "a forest", "mask_blur": 2, "inpaint_full_res_padding": 4} | fields
        if fields.get("mask") == "given":
            fields["mask"] = mask
        p = StableDiffusionProcessingImg2Img(model or family, **fields)
        p.cache, p.scripts = cache, HookList(hooks)
        return process_images(p)
    return run


def seen(result):
    return [(image.mode, image.size, image.tobytes()) for image in result.images], result.infotexts


WIDE = {"width": 96}
MASKED = {"mask": "given", "inpaint_full_res": False, "inpainting_fill": 1}
SHOWN = {"return_mask": True, "return_mask_composite": True}
CORRECTED = {"img2img_color_correction": True}
WAYS = [
    {}, *({"resize_mode": mode} | WIDE for mode in range(4)), *(MASKED | {"resize_mode": mode} | WIDE for mode in range(4)),
    *(MASKED | {"inpainting_fill": content} for content in range(4)),
    *(MASKED | {"inpainting_fill": content, "inpaint_full_res": True} for content in range(4)),
    MASKED | {"inpainting_mask_invert": 1}, MASKED | {"mask_round": False}, MASKED | {"override_settings": SHOWN},
    MASKED | {"mask": Image.new("L", (64, 64)), "inpaint_full_res": True}, {"override_settings": CORRECTED},
    {"tiling": True}, {"batch_size": 2}, MASKED | {"batch_size": 2, "n_iter": 2, "inpainting_fill": 2},
    {"prompt": "a [forest:house:0.5] AND a tree", "negative_prompt": "rain", "steps": 3},
    {"init_images": [Image.new("RGBA", (64, 64), (9, 99, 200, 60))]},
    {"init_images": [Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")], "batch_size": 2},
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way) or "plain")
def test_a_rerun_with_another_seed_asks_for_the_unet_and_the_decoder_only_and_gives_the_same_pixels(run, family, way):
    cache = Cache()
    run(cache, **way)
    family.asked.clear()
    again = run(cache, **way | {"seed": 2})
    assert family.asked == []
    assert seen(again) == seen(run(Cache(), **way | {"seed": 2}))


@pytest.mark.parametrize("way", [{}, MASKED, MASKED | {"inpaint_full_res": True, "inpainting_fill": 0}],
                         ids=["plain", "whole", "masked"])
def test_the_same_holds_for_an_inpainting_checkpoint(run, inpainting, way):
    cache, model = Cache(), Counted(inpainting)
    run(cache, model=model, **way)
    model.asked.clear()
    again = run(cache, model=model, **way | {"seed": 2})
    assert model.asked == []
    assert seen(again) == seen(run(Cache(), model=model, **way | {"seed": 2}))


def with_pixel(image: Image.Image, at: tuple[int, int]) -> Image.Image:
    image = image.copy()
    image.putpixel(at, 255 - image.getpixel(at) if image.mode == "L" else tuple(255 - value for value in image.getpixel(at)))
    return image


BEFORE = MASKED | {"inpainting_fill": 0}
CHANGES = [
    {"mask_blur": 5}, {"mask_blur": 0}, {"inpainting_mask_invert": 1}, {"inpainting_fill": 1}, {"inpainting_fill": 3},
    {"inpaint_full_res": True}, {"inpaint_full_res": True, "inpaint_full_res_padding": 9}, WIDE, WIDE | {"resize_mode": 1},
    {"mask_round": False}, {"override_settings": CORRECTED}, {"tiling": True},
    {"prompt": "a house"}, {"negative_prompt": "a house"}, {"override_settings": {"CLIP_stop_at_last_layers": 2}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(change))
def test_another_way_of_doing_it_is_not_answered_from_the_cache(run, change):
    cache = Cache()
    before = run(cache, **BEFORE)
    after = seen(run(cache, **BEFORE | change))
    assert after == seen(run(Cache(), **BEFORE | change)) and after[0] != seen(before)[0]


def test_neither_is_another_pixel_of_the_source_the_mask_or_the_latent_mask(run, picture, mask):
    cache = Cache()
    run(cache, **BEFORE)
    for change in ({"init_images": [with_pixel(picture, (3, 3))]}, {"mask": with_pixel(mask, (60, 60))},
                   {"mask": mask, "latent_mask": ImageOps.invert(mask)}, {"init_images": [picture.convert("RGBA").rotate(9)]}):
        assert seen(run(cache, **BEFORE | change)) == seen(run(Cache(), **BEFORE | change))


def test_neither_is_another_background_of_transparent_parts(run, picture):
    cache, clear = Cache(), picture.convert("RGBA").rotate(30)
    first, second = (run(cache, init_images=[clear], override_settings={"img2img_background_color": colour})
                     for colour in ("#ff0000", "#00ff00"))
    assert seen(first)[0] != seen(second)[0]


def test_an_inpainting_checkpoint_looks_anew_where_the_mask_or_its_weight_has_changed(run, inpainting, mask):
    cache, model = Cache(), Counted(inpainting)
    run(cache, model=model, **MASKED)
    for change in ({"mask": with_pixel(mask, (60, 60))}, {"mask_blur": 0},
                   {"override_settings": {"inpainting_mask_weight": 0.5}}):
        model.asked.clear()
        assert seen(run(cache, model=model, **MASKED | change)) == seen(run(Cache(), model=model, **MASKED | change))
        assert model.asked[0] == "condition"  # the picture itself is known


def test_another_autoencoder_is_asked_also_where_it_goes_by_the_same_name(run, inpainting):
    cache, model, own = Cache(), Counted(inpainting), inpainting.autoencoder.module
    run(cache, model=model)
    other = deepcopy(own)
    other.encoder.conv_in.weight.mul_(2)
    try:
        inpainting.take_vae(other, inpainting.info)
        model.asked.clear()
        run(cache, model=model)
        assert model.asked == ["encode", "condition"]
    finally:
        inpainting.take_vae(own, inpainting.info)


def test_so_is_the_same_one_in_another_precision(run, inpainting):
    cache, model, autoencoder = Cache(), Counted(inpainting), inpainting.autoencoder.module
    autoencoder.bfloat16()
    run(cache, model=model)
    autoencoder.float()  # what an overflow leads to
    model.asked.clear()
    run(cache, model=model)
    assert model.asked == ["encode", "condition"]


def test_and_another_model(run, demo, inpainting):
    cache = Cache()
    run(cache)
    assert seen(run(cache, model=inpainting)) == seen(run(Cache(), model=inpainting))


def test_another_mask_over_the_original_does_not_encode_the_picture_again(run, family, mask):
    cache = Cache()
    run(cache, **MASKED)
    family.asked.clear()
    run(cache, **MASKED | {"mask": with_pixel(mask, (60, 60))})
    assert "encode" not in family.asked


class Scribbling(Hooks):
    """Writes on everything that a hook is given or can reach."""

    def process_before_every_sampling(self, p, *, x, noise, c, uc):
        tensors = [x, noise, p.init_latent, p.mask, p.nmask, p.image_conditioning]
        tensors += [cond.tokens for part in c[0] for _, cond in part.timeline] + [cond.tokens for _, cond in uc[0]]
        for tensor in tensors:
            tensor.fill_(0.5)
        p.color_corrections[0].fill(7)

    def postprocess_maskoverlay(self, p, oa):
        for image in (oa.overlay_image, oa.mask_for_overlay, p.mask_for_overlay, *p.overlay_images):
            image.paste(image.getpixel((0, 0)), (0, 0, 64, 32))


@pytest.mark.parametrize("fields", [{}, {"batch_size": 2}])
def test_hooks_may_write_on_what_they_are_given(run, inpainting, fields):
    cache, way = Cache(), MASKED | fields | {"override_settings": CORRECTED}
    spoilt = run(cache, [Scribbling()], model=inpainting, **way)
    after = run(cache, model=inpainting, **way)
    assert seen(after) == seen(run(Cache(), model=inpainting, **way)) and seen(spoilt)[0] != seen(after)[0]


# --- in the engine

@pytest.fixture
def counting(family, tmp_path):
    """An engine around the counted model, with a journal."""
    engine = local_engine(lambda options: family, journal=Journal(tmp_path))
    yield engine
    engine.close()


def request(picture, folder, **fields):
    return StableDiffusionProcessingImg2Img(**{"init_images": [picture], "width": 64, "height": 64, "steps": 2, "seed": 1,
                                               "sampler_name": "Euler", "outpath_samples": str(folder)} | fields)


def test_jobs_share_what_they_have_in_common(counting, family, picture, tmp_path):
    counting.submit([request(picture, tmp_path)]).result()
    family.asked.clear()
    counting.submit([request(picture.copy(), tmp_path, seed=2)]).result()
    assert family.asked == []


def test_scripts_and_batches_share_it_too(counting, family, picture, tmp_path):
    counting.submit([request(picture, tmp_path, n_iter=2, prompt="a|b", script_name="Prompt matrix",
                             script_args=[False, False, "positive", "comma", 0])]).result()
    assert family.asked.count("encode") == 1


def test_when_memory_runs_out_all_of_it_is_let_go_of(counting, family, picture, tmp_path):
    def fail(*args):
        del family.denoise
        raise torch.OutOfMemoryError("CUDA out of memory")

    counting.submit([request(picture, tmp_path)]).result()
    for failing in (True, False):
        if failing:
            family.denoise = fail
        family.asked.clear()
        counting.submit([request(picture, tmp_path)]).result()
        assert "encode" in family.asked  # and what was made in tiles does not stay


def test_a_requests_picture_is_read_once_for_journal_receipt_and_cache(counting, picture, mask, tmp_path, monkeypatch):
    digested = []
    monkeypatch.setattr(originals, "digest", lambda image: digested.append(image) or digest(image))
    counting.submit([request(picture, tmp_path, mask=mask, inpainting_fill=1)]).result()
    assert [sum(image is given for image in digested) for given in (picture, mask)] == [1, 1]


def test_the_same_places_in_another_list_of_colours_are_another_picture():
    one, other = (Image.new("P", (2, 2)) for _ in range(2))
    one.putpalette([0, 0, 0])
    other.putpalette([9, 9, 9])
    assert one.tobytes() == other.tobytes() and digest(one) != digest(other)

import json
import random
import time

import pytest

from pipeline.infotext import (
    apply_backcompat, exif_bytes, infotext, ordered, parameters_line, parse, png_info, quote, split,
)

# Written by AUTOMATIC1111 v1.10.1 for requests to /sdapi/v1/img2img.
PLAIN = (
    "a red circle, a blue square, green and yellow background\nNegative prompt: noisy, blurry\n"
    "Steps: 8, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1234, Size: 128x128, "
    "Model hash: 86d7d2d1e1, Model: tiny-sd1, Denoising strength: 0.6, Version: v1.10.1"
)
END = (
    "\nNegative prompt: noisy, blurry\nSteps: 8, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1234, "
    "Size: 128x128, Model hash: 86d7d2d1e1, Model: tiny-sd1"
)
A1111_TEXTS = [
    PLAIN,
    "Steps: 8, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 99, Size: 128x128, "
    "Model hash: 86d7d2d1e1, Model: tiny-sd1, Denoising strength: 0.75, Version: v1.10.1",
    (END + ", Denoising strength: 0.6, Version: v1.10.1").strip(),
    "a red circle" + END + ", Denoising strength: 0.6",
    "time 12:30, ratio 3:1, (red:1.2:1.3)" + END + ", Denoising strength: 0.6, Version: v1.10.1",
    "[a (red:1.4) circle:a [blue|green] square:0.5]" + END + ", Denoising strength: 0.6, Version: v1.10.1",
    r"a red \(circle\) \[blue\] square" + END + ", Denoising strength: 0.6, Version: v1.10.1",
    "a red circle AND noisy :-0.5" + END + ", Denoising strength: 0.6, Version: v1.10.1",
    "a red circle <lora:tinylora:0.4><lora:tinylocon:0.5>" + END + ", Denoising strength: 0.6, "
    'Lora hashes: "tinylora: 2fa01ac736b1, tinylocon: bc9ce2404c58", Version: v1.10.1',
    "a red circle" + END + ", Variation seed: 5, Variation seed strength: 0.2, Seed resize from: 64x192, "
    "Denoising strength: 0.6, Version: v1.10.1",
    "a red circle" + END + "-inpaint, Denoising strength: 0.6, Conditional mask weight: 1.0, "
    "Mask mode: Inpaint not masked, Mask blur: 4, Inpaint area: Only masked, Masked area padding: 0, Version: v1.10.1",
    "a red circle" + END + ", Denoising strength: 0.6, Soft inpainting enabled: True, "
    "Soft inpainting schedule bias: 1, Soft inpainting preservation strength: 0.5, "
    "Soft inpainting transition contrast boost: 4, Soft inpainting mask influence: 0, "
    "Soft inpainting difference threshold: 0.5, Soft inpainting difference contrast: 2, Mask blur: 16, "
    "Inpaint area: Only masked, Masked area padding: 16, Version: v1.10.1",
    "a red circle" + END + ", Denoising strength: 0.3, SD upscale overlap: 16, SD upscale upscaler: Lanczos, "
    "Version: v1.10.1",
]


# writing


def test_values_that_would_end_early_are_quoted():
    assert [quote(value) for value in (7, 7.0, True, "Euler a")] == ["7", "7.0", "True", "Euler a"]
    assert quote('é: "b", c\n') == '"é: \\"b\\", c\\n"'


def test_the_line_skips_none_and_writes_a_key_that_is_its_own_value_once():
    params = {"Steps": 20, "VAE": None, "Hires": "Hires", "Tiling": True}
    assert parameters_line(params) == "Steps: 20, Hires, Tiling: True"


def test_the_text_has_no_line_for_an_empty_negative_prompt():
    assert infotext("a", "", {"Steps": 20}) == "a\nSteps: 20"
    assert infotext("", "b", {}) == "Negative prompt: b"


def test_a_repeated_key_keeps_its_place_and_takes_the_new_value():
    core = {"Steps": 20, "Schedule type": "Automatic", "RNG": None}
    params = ordered(core, {"Mask blur": 4, "Schedule type": "Karras"}, {"Version": "v1.10.1"})
    assert parameters_line(params) == "Steps: 20, Schedule type: Karras, Mask blur: 4, Version: v1.10.1"


def test_the_text_is_a1111s_for_a_requests_values():
    core = {"Steps": 8, "Sampler": "Euler", "Schedule type": "Automatic", "CFG scale": 7.0, "Image CFG scale": None,
            "Seed": 1234, "Size": "128x128", "Model hash": "86d7d2d1e1", "Model": "tiny-sd1"}
    params = ordered(core, {"Denoising strength": 0.6}, {"Version": "v1.10.1"})
    assert infotext("a red circle, a blue square, green and yellow background", "noisy, blurry", params) == PLAIN


# reading


@pytest.mark.parametrize("text", A1111_TEXTS)
def test_a_text_that_is_taken_apart_goes_together_again(text):
    assert infotext(*split(text)) == text


def test_any_values_survive_being_written_and_read():
    rnd = random.Random(3)
    letters = 'ab7 é🎨,:"\\\n-/()[]{}<>'
    for _ in range(1000):
        def word(length):
            return "".join(rnd.choice(letters) for _ in range(length)).strip().strip('"').strip()
        params = {f"Key {i}": word(rnd.randint(1, 12)) for i in range(rnd.randint(3, 6))} | {"Version": "v1.10.1"}
        prompt = "\n".join(line.strip() for line in f"p {word(20)}".split("\n"))
        negative_prompt = "\n".join(line.strip() for line in f"n {word(20)}".split("\n"))
        written = infotext(prompt, negative_prompt, params)
        assert split(written) == (prompt, negative_prompt, params), written


def test_parsing_splits_sizes_and_fills_in_what_a1111_leaves_out():
    params = parse(A1111_TEXTS[9])
    assert params["Prompt"] == "a red circle" and params["Negative prompt"] == "noisy, blurry"
    assert (params["Size-1"], params["Size-2"]) == ("128", "128") and "Size" not in params
    assert (params["Seed resize from-1"], params["Seed resize from-2"]) == ("64", "192")
    assert params["Clip skip"] == "1" and params["RNG"] == "GPU" and params["Masked area padding"] == "32"
    assert all(isinstance(value, str) for value in params.values())


def test_a_value_that_is_written_beats_the_default():
    params = parse(A1111_TEXTS[10])
    assert params["Mask mode"] == "Inpaint not masked" and params["Masked area padding"] == "0"


def test_a_quoted_value_is_decoded_and_a_broken_one_kept():
    assert parse(A1111_TEXTS[8])["Lora hashes"] == "tinylora: 2fa01ac736b1, tinylocon: bc9ce2404c58"
    assert split(r'Steps: 1, Seed: 2, Model: "a\x, b", Size: 8x8')[2]["Model"] == r'"a\x, b"'


def test_prompts_may_have_several_lines():
    prompt, negative_prompt, params = split("a\n  b\n\nNegative prompt:c\nd\nSteps: 1, Seed: 2, Size: 8x8")
    assert (prompt, negative_prompt) == ("a\nb\n", "c\nd") and len(params) == 3


@pytest.mark.parametrize("text", ["", "just a prompt", "a cat, mood: dark, light: low", "a\nb: 1"])
def test_a_last_line_with_fewer_than_three_parameters_belongs_to_the_prompt(text):
    assert split(text) == (text, "", {})


def test_emphasis_is_original_where_a_prompt_has_weights():
    assert parse("a (red:1.2) circle")["Emphasis"] == "Original"
    assert parse("a\nNegative prompt: [b]")["Emphasis"] == "Original"
    assert parse("(another program's:1.2.3)")["Emphasis"] == "Original"
    assert parse("(a)\nEmphasis: No norm, Steps: 1, Seed: 2")["Emphasis"] == "No norm"
    assert "Emphasis" not in parse(r"a \(red\) circle BREAK b")


def test_a_hypernet_becomes_a_tag_in_the_prompt():
    assert parse("a\nHypernet: h, Hypernet strength: 0.5, Steps: 1")["Prompt"] == "a<hypernet:h:0.5>"


def test_the_old_first_pass_size_becomes_the_size_and_the_size_the_resize():
    params = parse("a\nSteps: 1, Size: 1024x768, First pass size: 512x384")
    assert (params["Size-1"], params["Size-2"]) == ("512", "384")
    assert (params["Hires resize-1"], params["Hires resize-2"]) == ("1024", "768")
    assert parse("a\nSteps: 1, Size: 1024x768, First pass size: 0x0")["Size-1"] == "1024"


@pytest.mark.parametrize("version, changed", [
    ("v1.5.2", {"Old prompt editing timelines", "Pad conds v0", "Downcast alphas_cumprod",
                "Refiner switch by sampling steps"}),
    ("1.6.0", {"Downcast alphas_cumprod", "Refiner switch by sampling steps"}),
    ("v1.7.0-224-gabcdef12", {"Downcast alphas_cumprod", "Refiner switch by sampling steps"}),
    ("v1.7.0-225-gabcdef12", {"Refiner switch by sampling steps"}),
    ("v1.8.0-RC", {"Refiner switch by sampling steps"}),
    ("v1.8.0", set()),
    ("v1.10.1", set()),
    ("f2.0.1v1.10.1-previous", set()),
    ("ComfyUI", set()),
])
def test_an_old_version_brings_back_what_it_did(version, changed):
    params = parse(f"[a:b:0.5]\nSteps: 9, Sampler: DDIM, Refiner: x, Version: {version}")
    new = apply_backcompat(params)
    assert {key for key in new if new[key] != params.get(key)} == changed
    assert all(new[key] == "True" for key in changed)


def test_nothing_is_brought_back_without_a_version():
    params = parse("[a:b:0.5]\nSteps: 9, Sampler: DDIM, Refiner: x")
    assert apply_backcompat(params) == params


# Length 200,000 each.
HOSTILE = ["a" * 200_000, "a b " * 50_000, "x" + " " * 200_000 + "y", 'kk: "' * 40_000, 'kk: "x,' * 28_000,
           'kk: "' + '\\"' * 100_000, ":" * 200_000, "kk:" * 66_000, "kk:" + " " * 200_000, "a\n" * 100_000,
           "Negative prompt:\n" * 12_000, "(" * 200_000]


def test_no_text_takes_quadratic_time():
    for text in HOSTILE:
        start = time.process_time()
        parse(f"{text}, Steps: 1, Seed: 2, Size: 8x8")
        parse(f"{text}\nSteps: 1, Seed: 2, Size: 8x8")
        assert time.process_time() - start < 6, text[:20]  # under 1 s here; quadratic takes minutes


def test_exif_has_piexifs_unicode_form():
    assert exif_bytes("hi").endswith(b"UNICODE\0\0h\0i")


@pytest.mark.parametrize("name", ["", "猫", "a\0b", "x" * 80])
def test_what_png_cannot_have_as_a_name_is_left_out(name):
    assert png_info("a", {name: "text"}).chunks == png_info("a").chunks

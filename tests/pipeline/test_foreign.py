"""What other programs write into pictures, as infotext."""

import gzip
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from pipeline.infotext import exif_bytes, parse, png_info
from pipeline.foreign import HIDING
from pipeline.metadata import read_metadata

INFOTEXT = "a cat, 猫\nSteps: 7, Sampler: Euler, Seed: 4242, Size: 64x48"


def written(texts, size=(64, 48)):
    """A PNG with these texts, of which one may be called parameters."""
    file = io.BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(file, "PNG", pnginfo=png_info(texts.get("parameters"), texts))
    return file.getvalue()


def read(texts, size=(64, 48)):
    return read_metadata(written({name: text if isinstance(text, str) else json.dumps(text) for name, text in texts.items()}, size),
                         "image")


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def link(key):
    return [key, 0]


SIMPLE = {
    "3": node("KSampler", seed=4242, steps=7, cfg=5.5, sampler_name="euler_ancestral", scheduler="karras", denoise=1.0,
              model=link("10"), positive=link("6"), negative=link("7"), latent_image=link("5")),
    "4": node("CheckpointLoaderSimple", ckpt_name="sdxl\\some_xl.safetensors"),
    "10": node("LoraLoader", model=link("4"), clip=link("4"), lora_name="ink.safetensors", strength_model=0.8, strength_clip=1),
    "5": node("EmptyLatentImage", width=320, height=256, batch_size=1),
    "6": node("CLIPTextEncode", text="a red house", clip=link("10")), "7": node("CLIPTextEncode", text="fog", clip=link("10")),
    "8": node("VAEDecode", samples=link("3"), vae=link("4")), "9": node("SaveImage", images=link("8"), filename_prefix="x")}
SIMPLE_TEXT = ("a red house<lora:ink:0.8>\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Schedule type: Karras, CFG scale: 5.5, "
               "Seed: 4242, Size: 320x256, Model: some_xl")


# ComfyUI

def test_a_comfyui_workflow_tells_how_its_picture_was_made_and_stays_readable():
    found = read({"prompt": SIMPLE, "workflow": {"nodes": []}})
    assert (found.infotext, found.program) == (SIMPLE_TEXT, "ComfyUI")
    assert json.loads(found.items["prompt"]) == SIMPLE and found.items["workflow"] == '{"nodes": []}'


def test_the_first_of_several_samplers_speaks_for_the_picture():
    second = node("KSampler", seed=9, steps=3, cfg=2, sampler_name="ddim", scheduler="simple", denoise=0.4, model=link("4"),
                  positive=link("6"), negative=link("7"), latent_image=link("12"))
    graph = {"1": second, "12": node("LatentUpscale", samples=link("3"), width=640, height=512)} | SIMPLE
    assert read({"prompt": graph}).infotext == SIMPLE_TEXT


def test_prompts_are_found_through_what_changes_them_and_seeds_through_what_holds_them():
    graph = SIMPLE | {
        "3": SIMPLE["3"] | {"inputs": SIMPLE["3"]["inputs"] | {"seed": link("20"), "positive": link("21"), "negative": ["21", 1]}},
        "20": node("PrimitiveInt", value=77),
        "21": node("ControlNetApplyAdvanced", positive=link("22"), negative=link("7"), strength=1),
        "22": node("ConditioningSetArea", conditioning=link("23"), width=8, height=8),
        "23": node("CLIPTextEncode", text=link("24"), clip=link("4")), "24": node("StringLiteral", string="from elsewhere")}
    params = parse(read({"prompt": graph}).infotext)
    assert params["Prompt"] == "from elsewhere<lora:ink:0.8>" and params["Negative prompt"] == "fog" and params["Seed"] == "77"


def test_samplers_in_parts_are_read():
    graph = {
        "1": node("SamplerCustomAdvanced", noise=link("2"), guider=link("3"), sampler=link("4"), sigmas=link("5"),
                  latent_image=link("6")),
        "2": node("RandomNoise", noise_seed=5), "3": node("BasicGuider", model=link("7"), conditioning=link("8")),
        "4": node("KSamplerSelect", sampler_name="dpmpp_2m_sde_gpu"),
        "5": node("BasicScheduler", scheduler="beta", steps=9, denoise=0.5, model=link("7")),
        "6": node("EmptySD3LatentImage", width=64, height=48), "7": node("UNETLoader", unet_name="flux/dev.safetensors"),
        "8": node("FluxGuidance", guidance=3.5, conditioning=link("9")), "9": node("CLIPTextEncode", text="a boat")}
    assert read({"prompt": graph}).infotext == ("a boat\nSteps: 9, Sampler: DPM++ 2M SDE, Schedule type: Beta, Seed: 5, Size: 64x48, "
                                                "Model: dev, Denoising strength: 0.5")


def test_a_negative_prompt_that_counts_for_nothing_is_none():
    graph = SIMPLE | {"7": node("ConditioningZeroOut", conditioning=link("6"))}
    assert parse(read({"prompt": graph}).infotext)["Negative prompt"] == ""


def test_a_loader_that_holds_both_prompts_gives_each():
    loader = node("Efficient Loader", ckpt_name="a.ckpt", positive="day", negative="night")
    graph = {"1": node("KSampler (Efficient)", seed=1, steps=2, cfg=3, sampler_name="euler", scheduler="normal", positive=link("2"),
                       negative=["2", 1]), "2": loader}
    params = parse(read({"prompt": graph}).infotext)
    assert (params["Prompt"], params["Negative prompt"], params["Model"]) == ("day", "night", "a")


def test_a_workflow_that_does_not_say_it_is_shown_all_the_same():
    for texts in ({"workflow": {"nodes": []}}, {"prompt": {"1": node("LoadImage", image="x.png")}}):
        found = read(texts)
        assert found.program == "ComfyUI" and found.infotext is None and found.items.keys() == texts.keys()


def test_comfyuis_webp_is_read():
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = "prompt:" + json.dumps(SIMPLE), "workflow:{}"
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "WEBP", exif=exif)
    assert read_metadata(file.getvalue(), "image").infotext == SIMPLE_TEXT


def test_a_workflow_beside_an_infotext_does_not_replace_it():
    found = read({"parameters": INFOTEXT, "prompt": SIMPLE})
    assert found.infotext == INFOTEXT and found.program is None


# InvokeAI

def test_invokeai_is_read():
    said = {"positive_prompt": "a red house", "negative_prompt": "fog", "seed": 4242, "steps": 7, "cfg_scale": 5.5,
            "scheduler": "dpmpp_2m_sde_k", "width": 320, "height": 256, "app_version": "5.4",
            "model": {"key": "x", "name": "some_xl", "base": "sdxl"}}
    found = read({"invokeai_metadata": said, "invokeai_graph": {}})
    assert found.infotext == ("a red house\nNegative prompt: fog\nSteps: 7, Sampler: DPM++ 2M SDE, Schedule type: Karras, "
                              "CFG scale: 5.5, Seed: 4242, Size: 320x256, Model: some_xl")
    assert found.program == "InvokeAI" and json.loads(found.items["invokeai_metadata"]) == said


def test_older_invokeai_is_read():
    image = {"prompt": [{"prompt": "a red house [fog]", "weight": 1}], "steps": 7, "cfg_scale": 5.5, "seed": 42, "sampler": "k_lms",
             "width": 64, "height": 48}
    assert read({"sd-metadata": {"model_weights": "sd-1.5", "image": image}}).infotext == (
        "a red house\nNegative prompt: fog\nSteps: 7, Sampler: LMS, CFG scale: 5.5, Seed: 42, Size: 64x48, Model: sd-1.5")
    command = '"a red house [fog]" -s 7 -S 42 -W 64 -H 48 -C 5.5 -A k_euler_a'
    assert read({"Dream": command}).infotext == (
        "a red house\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, CFG scale: 5.5, Seed: 42, Size: 64x48")


# Fooocus, SwarmUI, NovelAI

FOOOCUS = {"prompt": "a red house", "negative_prompt": "fog", "steps": 7, "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras",
           "seed": "4242", "guidance_scale": 5.5, "resolution": "(320, 256)", "base_model": "some_xl", "base_model_hash": "ab12",
           "version": "Fooocus v2.5.5"}
FOOOCUS_TEXT = ("a red house\nNegative prompt: fog\nSteps: 7, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 5.5, "
                "Seed: 4242, Size: 320x256, Model hash: ab12, Model: some_xl")


def test_fooocus_is_read_also_from_jpeg():
    found = read({"parameters": FOOOCUS, "fooocus_scheme": "fooocus"})
    assert (found.infotext, found.program) == (FOOOCUS_TEXT, "Fooocus") and json.loads(found.items["parameters"]) == FOOOCUS
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "JPEG", exif=exif_bytes(json.dumps(FOOOCUS)))
    assert read_metadata(file.getvalue(), "image").infotext == FOOOCUS_TEXT


def test_swarmui_is_read():
    said = {"sui_image_params": {"prompt": "a red house", "negativeprompt": "fog", "model": "sdxl/some_xl.safetensors", "seed": 4242,
                                 "steps": 7, "cfgscale": 5.5, "width": 320, "height": 256, "sampler": "euler", "scheduler": "normal",
                                 "loras": ["ink"], "loraweights": ["0.5"], "swarm_version": "0.9"}}
    found = read({"parameters": said})
    assert found.program == "SwarmUI" and found.infotext == (
        "a red house<lora:ink:0.5>\nNegative prompt: fog\nSteps: 7, Sampler: Euler, Schedule type: Normal, CFG scale: 5.5, "
        "Seed: 4242, Size: 320x256, Model: some_xl")


def novelai(comment):
    return read({"parameters": "", "Software": "NovelAI", "Description": "a cat", "Comment": comment}, (16, 16))


@pytest.mark.parametrize("sampler, name", [
    ("k_euler", "Euler"), ("k_euler_ancestral", "Euler a"), ("nai_smea", "Euler a"),
])
def test_novelai_metadata_becomes_an_infotext(sampler, name):
    comment = json.dumps({"uc": "bad", "steps": 28, "scale": 11.0, "seed": 5, "sampler": sampler})
    assert novelai(comment).infotext == (
        f"a cat\nNegative prompt: bad\nSteps: 28, Sampler: {name}, CFG scale: 11.0, Seed: 5, Size: 16x16, "
        "Clip skip: 2, ENSD: 31337"
    )


@pytest.mark.parametrize("comment", ["{}", "[]", "no json", "[" * 100_000])
def test_a_picture_merely_signed_novelai_is_read_as_any_other(comment):
    assert not novelai(comment).infotext


# hidden in pixels

def stealth(text, signature=b"stealth_pnginfo", channels="A", size=(64, 48), length=None):
    """A PNG that hides a text in the lowest bits of its channels, column by column."""
    data = gzip.compress(text.encode()) if signature.endswith(b"comp") else text.encode()
    length = len(data) * 8 if length is None else length
    bits = np.unpackbits(np.frombuffer(signature + length.to_bytes(4, "big") + data, np.uint8))
    pixels = np.full((size[1], size[0], 4), 254, np.uint8)
    which = {"A": [3], "RGB": [0, 1, 2]}[channels]
    flat = np.zeros(size[0] * size[1] * len(which), np.uint8)
    flat[:len(bits)] = bits[:len(flat)]
    pixels[..., which] |= flat.reshape(size[0], size[1], len(which)).transpose(1, 0, 2)
    file = io.BytesIO()
    Image.fromarray(pixels if channels == "A" else pixels[..., :3]).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("signature, channels", [(b"stealth_pnginfo", "A"), (b"stealth_pngcomp", "A"), (b"stealth_rgbinfo", "RGB"),
                                                 (b"stealth_rgbcomp", "RGB")])
@pytest.mark.parametrize("size", [(64, 48), (1, 4000), (4000, 1)])
def test_stealth_text_is_read(signature, channels, size):
    found = read_metadata(stealth(INFOTEXT, signature, channels, size), "image")
    assert found.infotext == INFOTEXT and found.program == HIDING


def test_what_novelai_hides_is_read_as_what_it_writes():
    texts = {"Software": "NovelAI", "Description": "a cat",
             "Comment": json.dumps({"uc": "bad", "steps": 28, "scale": 11.0, "seed": 5, "sampler": "k_euler"})}
    found = read_metadata(stealth(json.dumps(texts), b"stealth_pngcomp"), "image")
    assert found.program == "NovelAI" and found.infotext.startswith("a cat\nNegative prompt: bad\nSteps: 28")


@pytest.mark.parametrize("data", [stealth("x", length=2**32 - 1), stealth("x", b"stealth_pngcomp", length=8),
                                  stealth(INFOTEXT, size=(64, 2), length=8 * 5000), stealth("x", b"stealth_pngnone"),
                                  stealth("\x00" * (3 << 20), b"stealth_pngcomp", size=(200, 200))])
def test_hidden_text_that_cannot_be_read_does_no_harm(data):
    read_metadata(data, "image")


# whatever is written

VALUES = [None, True, 1e999, -1, "x" * 1000, [], {}, [["6", 0]], {"a": {"b": []}}, "\ud800", 10**4000]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_of_another_kind_are_passed_over(value):
    for key in SIMPLE["3"]["inputs"]:
        read({"prompt": SIMPLE | {"3": SIMPLE["3"] | {"inputs": SIMPLE["3"]["inputs"] | {key: value}}}}).infotext.encode()
    for key in FOOOCUS:
        (read({"parameters": FOOOCUS | {key: value}}).infotext or "").encode()
    for name in ("sui_image_params", "image", "model", "prompt", "invokeai_metadata"):
        for text in ("parameters", "sd-metadata", "invokeai_metadata", "prompt", "workflow", "Dream"):
            (read({text: {name: value}}).infotext or "").encode()


@pytest.mark.parametrize("graph", [
    {"1": node("KSampler", seed=link("1"), positive=link("1"), negative=link("1"), model=link("1"))},
    {str(n): node("KSampler", seed=n, positive=link(str(n + 1)), negative=link(str(n + 1))) for n in range(9000)},
    {str(n): node("KSampler", seed=1, positive="x", **{str(m): link(str(m)) for m in range(150)}) for n in range(300)}])
def test_graphs_without_end_are_read_in_time(graph):
    start = time.process_time()
    read({"prompt": graph})
    assert time.process_time() - start < 5  # 0.3 s here


@pytest.mark.parametrize("prompt", ["[" * 500_000, " " * 500_000 + "x", "[a" * 250_000, "]" * 500_000])
def test_prompts_without_end_are_read_in_time(prompt):
    start = time.process_time()
    read({"sd-metadata": {"image": {"prompt": prompt, "steps": 1}}})
    read({"Dream": f'"{prompt}" -s 1'})
    assert time.process_time() - start < 5  # 0.1 s here

"""Tags in a request's prompt, from the text to the picture and its infotext."""

from copy import copy, deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from network_models import File, Model

from pipeline import processing
from pipeline.caches import Cache
from pipeline.errors import Cancelled, Interrupted, ModelError, UnknownName
from pipeline.families.sd import asked
from pipeline.networks import NetworkFile, NetworkRequest, Networks, hashes_text
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.progress import Progress
from pipeline.prompts import encode_empty

UNET, TEXT = "lora_unet_conv_out.diff", "lora_te_text_model_final_layer_norm.w_norm"


@pytest.fixture
def loras(demo, write):
    """One file for the UNet and one for the text encoder, by name."""
    out, norm = demo.modules["unet"].conv_out.weight, demo.modules["text_encoder"].get_submodule("final_layer_norm").weight
    torch.manual_seed(0)
    return {"unet": write("unet", {UNET: torch.randn(out.shape) * out.std()}),
            "text": write("text", {TEXT: torch.randn(norm.shape), TEXT.replace("w_", "b_"): torch.zeros(norm.shape)})}


@pytest.fixture
def networks(demo, loras):
    def find(name) -> File:
        if name not in loras:
            raise UnknownName("prompt", "LoRA", name, loras)
        return loras[name]

    networks = Networks(find)
    yield networks
    networks.apply(demo, [])


@pytest.fixture
def draw(demo, networks, picture):
    """Runs a small request with a prompt; all share one cache of encoded prompts."""
    cache = Cache()

    def run(prompt, **fields):
        p = StableDiffusionProcessingImg2Img(demo, prompt=prompt, init_images=[picture], width=32, height=32, steps=1, seed=1,
                                             sampler_name="Euler", **fields)
        p.networks, p.cache = networks, cache
        return process_images(p)
    return run


def pixels(result):
    return np.asarray(result.images[0]).astype(int)


def differ(one, other):
    return not np.array_equal(pixels(one), pixels(other))


def test_networks_change_the_picture_and_leave_nothing_behind(draw):
    plain = draw("a boat")
    assert differ(plain, draw("a boat<lora:unet:1>"))
    assert differ(plain, draw("a boat<lora:text:1>"))
    assert not differ(plain, draw("a boat"))


def test_te_and_unet_act_on_their_part_only(draw):
    plain = draw("a boat")
    assert not differ(plain, draw("a boat<lora:unet:1:0>")) and not differ(plain, draw("a boat<lora:text:0:1>"))
    assert not differ(draw("a boat<lora:unet:0:1><lyco:text:1:0>"), draw("a boat<lora:unet><lora:text>"))


def test_infotext_keeps_the_tags_and_has_the_hashes(draw, loras):
    result = draw("a boat<lora:unet:0.5><lora:text>")
    hashes = ", ".join(f"{name}: {NetworkFile(loras[name].path).short_hash}" for name in ("unet", "text"))
    assert result.info.startswith("a boat<lora:unet:0.5><lora:text>\n")
    assert f'Lora hashes: "{hashes}"' in result.info
    assert result.comments == []


def test_separators_are_dropped_from_names_in_the_infotext():
    assert hashes_text({"a,b:c": "0" * 12, "d": "1" * 12}) == "abc: 000000000000, d: 111111111111"


def test_a_tag_in_the_negative_prompt_is_text(draw):
    result = draw("a boat", negative_prompt="<lora:text:1>")
    assert result.comments == [] and "Lora hashes" not in result.info
    assert differ(result, draw("a boat"))


def test_an_unknown_name_is_told_once_and_the_job_goes_on(draw):
    result = draw("a boat<lora:nobody><lora:nobody><lora:unet>", n_iter=2)
    assert result.comments == ["Lora not found: nobody."]
    assert differ(result, draw("a boat", n_iter=2))


def test_kinds_of_tags_that_nobody_knows_are_told(draw):
    assert draw("a boat<hypernet:x:1>").comments == ['"<hypernet:x>" in the prompt was left out: unknown kind of network.']


def test_a_damaged_file_fails_the_job_and_the_next_one_works(draw, loras):
    plain, good = draw("a boat"), loras["unet"].path.read_bytes()
    loras["unet"].path.write_bytes(good[:100])
    with pytest.raises(ModelError, match='"unet.safetensors" cannot be read as safetensors'):
        draw("a boat<lora:unet>")
    assert not differ(plain, draw("a boat"))
    loras["unet"].path.write_bytes(good)
    assert differ(plain, draw("a boat<lora:unet>"))


def test_a_file_that_has_changed_is_read_anew(draw, loras, write):
    before = draw("a boat<lora:unet>")
    shape = NetworkFile(loras["unet"].path).parts("lora_unet_conv_out", torch.device("cpu"))["diff"].shape
    write("unet", {UNET: torch.zeros(shape), "lora_unet_elsewhere.diff": torch.zeros(1)})
    after = draw("a boat<lora:unet>")
    assert differ(before, after) and before.info != after.info
    assert after.comments == ['LoRA "unet": 1 of its 2 layers do not fit this model and were left out.']


def test_two_models_have_networks_of_their_own(demo, networks, loras):
    other = Model({"unet": deepcopy(demo.modules["unet"])})
    weight = demo.modules["unet"].conv_out.weight
    own = weight.clone()
    networks.apply(other, [NetworkRequest("unet")])
    assert torch.equal(weight, own)
    networks.apply(demo, [NetworkRequest("unet")])
    assert torch.equal(weight, other.modules["unet"].conv_out.weight)
    networks.apply(other, [])
    assert torch.equal(own, other.modules["unet"].conv_out.weight) and not torch.equal(weight, own)


def test_networks_can_be_left_out_while_their_tags_stay_in_the_infotext(draw):
    result = draw("a boat<lora:unet>", disable_extra_networks=True)
    assert not differ(result, draw("a boat")) and result.info.startswith("a boat<lora:unet>\n") and "Lora hashes" not in result.info


def test_the_lora_of_the_options_joins_every_prompt_that_does_not_name_it(draw):
    options = {"sd_lora": "unet", "extra_networks_default_multiplier": 0.5}
    result = draw("a boat", override_settings=options, n_iter=2)
    assert not differ(result, draw("a boat<lora:unet:0.5>", n_iter=2))
    assert result.all_prompts == ["a boat<lora:unet:0.5>"] * 2
    assert not differ(draw("a boat<lora:unet:1>", override_settings=options), draw("a boat<lora:unet:1>"))
    assert draw("a boat", override_settings={"sd_lora": "nobody"}).all_prompts == ["a boat"]


def test_the_hashes_can_be_left_out_of_the_infotext(draw):
    assert "Lora hashes" not in draw("a boat<lora:unet>", override_settings={"lora_add_hashes_to_infotext": False}).info


def test_networks_act_on_the_refiner_too(demo, draw, loras, monkeypatch):
    refiner = copy(demo)
    monkeypatch.setattr("pipeline.processing.load_model", lambda p, options: refiner)
    refiner._modules = deepcopy(demo.modules)
    refiner._unet = refiner._modules["unet"]
    refined = {"refiner_checkpoint": "other", "refiner_switch_at": None}
    assert not differ(draw("a boat<lora:unet>", **refined), draw("a boat<lora:unet>"))


@pytest.mark.parametrize("lora", ["unet", "text"])
def test_a_refiner_of_another_config_runs_without_networks(demo, draw, monkeypatch, tmp_path, lora):
    """A .yaml beside makes a config of its own; prompts encoded without networks are not taken for those with."""
    refiner = copy(demo)
    monkeypatch.setattr("pipeline.processing.load_model", lambda p, options: refiner)
    refiner._modules = deepcopy(demo.modules)
    refiner._unet, refiner.info = refiner._modules["unet"], replace(demo.info, path=str(tmp_path / "other.safetensors"))
    (tmp_path / "other.yaml").write_text("")
    refiner.text_encoders = [copy(encoder) for encoder in demo.text_encoders]
    refiner.text_encoders[0].model = refiner._modules["text_encoder"]
    refiner._network = refiner._ask_unet = asked(refiner._unet)  # of the copy, not of what it was copied from
    refined = {"refiner_checkpoint": "other", "refiner_switch_at": None}
    assert not differ(draw(f"a boat<lora:{lora}>", **refined), draw("a boat"))
    (tmp_path / "other.yaml").unlink()
    assert not differ(draw(f"a boat<lora:{lora}>", **refined), draw(f"a boat<lora:{lora}>"))


@pytest.mark.parametrize("tag, key", [("lbw=INALL", "lbw"), ("lbw=1,0,0,1", "lbw"), ("start=3", "start"), ("1:1:lbw=OUTD", "lbw")])
def test_what_a_tag_asks_for_in_vain_is_told(draw, tag, key):
    comments = draw(f"a boat<lora:unet:{tag}>").comments
    assert comments == [f'"{tag[tag.index(key):]}" of the LoRA "unet" was not applied: a tag may set te, unet and dyn.']


class Stopping(Progress):
    """Is stopped when it is asked for the `at`-th time."""

    def __init__(self, at, error=Interrupted):
        self._left, self._error = at, error

    def checkpoint(self):
        self._left -= 1
        if self._left <= 0:
            self.stopped = self._error is Interrupted
            raise self._error


@pytest.mark.parametrize("at", [1, 2, 5, 40])
def test_merging_ends_when_the_job_is_interrupted(demo, networks, picture, loras, at):
    before = demo.modules["unet"].conv_out.weight.clone()
    p = StableDiffusionProcessingImg2Img(demo, prompt="a boat" + "<lora:unet:0.01>" * 1000, init_images=[picture], width=32,
                                         height=32, steps=1, sampler_name="Euler")
    p.networks, p.progress = networks, Stopping(at)
    result = process_images(p)
    assert result.images == [] and result.interrupted
    assert torch.equal(demo.modules["unet"].conv_out.weight, before)


def test_merging_ends_when_nobody_waits_any_more(demo, networks, picture):
    p = StableDiffusionProcessingImg2Img(demo, prompt="a boat<lora:unet>", init_images=[picture], width=32, height=32)
    p.networks, p.progress = networks, Stopping(3, Cancelled)
    with pytest.raises(Cancelled):
        process_images(p)


def test_a_file_is_opened_once_however_often_it_is_named(draw, networks, monkeypatch):
    opened = []
    monkeypatch.setattr("pipeline.networks.NetworkFile", lambda path: opened.append(path) or NetworkFile(path))
    draw("a boat" + "<lora:unet:0.01>" * 300 + "<lora:text:0.01>" * 300, n_iter=2)
    assert sorted(path.stem for path in opened) == ["text", "unet"]


def test_prompts_are_padded_with_the_empty_prompt_of_the_model_without_networks_and_overrides(draw, demo, monkeypatch):
    asked = []
    monkeypatch.setattr(processing, "encode_empty", lambda p, family: asked.append(encode_empty(p, family)) or asked[-1])
    for prompt, skip in (("a house", 1), ("a house<lora:text>", 1), ("a house<lora:text>", 2)):
        draw(prompt, override_settings={"pad_cond_uncond": True, "CLIP_stop_at_last_layers": skip})
    draw("a house", options=Options(pad_cond_uncond=True, CLIP_stop_at_last_layers=2))
    assert torch.equal(asked[0].tokens, asked[1].tokens) and torch.equal(asked[0].tokens, asked[2].tokens)
    assert not torch.equal(asked[0].tokens, asked[3].tokens)


def test_an_embedding_can_travel_in_a_network_file(draw, loras, demo, write):
    encoder = demo.text_encoders[0]
    word = encoder.model.get_input_embeddings().weight[encoder.tokens.encode(["forest"])[0]]
    loras["both"] = write("both", {UNET: torch.zeros_like(demo.modules["unet"].conv_out.weight), "bundle_emb.zzz.string_to_param.*": word})
    result = draw("a zzz<lora:both>")
    assert not differ(result, draw("a forest")) and differ(result, draw("a zzz"))
    assert "TI hashes: zzz: both" in result.info.replace('"', "") and "TI hashes" not in draw("a zzz").info


@pytest.mark.parametrize("odd, said", [
    ({"emb_params": torch.ones(2, 160), "other": torch.ones(2, 160)}, "it must hold one tensor"),
    ({"emb_params": torch.full((2, 160), torch.nan)}, "hold NaN"),
    ({"emb_params": torch.ones(100, 160)}, "1 to 75 vectors"),
    ({"emb_params": torch.ones(2, 160, dtype=torch.int32)}, "1 to 75 vectors"),
])
def test_an_embedding_that_travels_along_fails_no_job(draw, loras, demo, write, odd, said):
    layers = {UNET: torch.zeros_like(demo.modules["unet"].conv_out.weight)}
    loras["both"] = write("both", layers | {f"bundle_emb.zzz.{name}": tensor for name, tensor in odd.items()})
    comment, = draw("a zzz<lora:both>").comments
    assert comment.startswith('The embedding "zzz" in the LoRA "both" was not used: ') and said in comment


def test_of_an_embedding_that_travels_along_the_input_vectors_are_used(draw, loras, demo, write):
    """As OneTrainer bundles them, which trains output vectors too."""
    encoder = demo.text_encoders[0]
    word = encoder.model.get_input_embeddings().weight[encoder.tokens.encode(["forest"])[0]]
    layers = {UNET: torch.zeros_like(demo.modules["unet"].conv_out.weight)}
    loras["both"] = write("both", layers | {"bundle_emb.zzz.clip_l": word, "bundle_emb.zzz.clip_l_out": torch.ones_like(word)})
    result = draw("a zzz<lora:both>")
    assert not differ(result, draw("a forest")) and result.comments == []

"""FLUX.1: what is its own."""

import gzip
import json
from base64 import b64decode
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from api.backend import Backend
from pipeline import families
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest
from pipeline.families import flux1, t5
from pipeline.families.checkpoint import Stored
from pipeline.families.cond import Encoding
from pipeline.geometry import Size
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.networks import NetworkRequest, Networks
from pipeline.settings import Settings
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import Status, read_claim, read_given, request_again, verify
from pipeline.weights import Weights
from tests.api.conftest import base64_of, client_of
from tests.families import flow_runs, tiny_flow
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import MASK, REFERENCES, SOURCE, made, pixels
from tests.families.test_refusals import refusal
from tests.families.test_z_image import assert_changes
from tests.ui.conftest import controls  # a fixture
from ui.restore import settings_in

WITH_MARKS = "a (red:1.2) fox,  Ünïcode </s> <extra_id_0> 123\n new"
T5_IDS = flow_runs.T5_IDS | {WITH_MARKS: [3, 9, 41, 1271, 10, 10917, 61, 3, 20400, 6, 3, 14858, 29, 2, 4978, 1, 32099, 3, 14574, 126, 1]}


@pytest.fixture(scope="session")
def model(flow_model):
    """variant → the model."""
    return lambda variant="dev": flow_model(f"flux1-{variant}", "component files")


@pytest.mark.parametrize("text", T5_IDS)
def test_t5_reads_the_published_tokens(text):
    assert Tokenizer.from_buffer(gzip.decompress(t5.TOKENIZER.read_bytes())).encode(text).ids == T5_IDS[text]


def test_features_are_those_that_diffusers_takes(model, flow_files):
    loaded = model()
    with torch.inference_mode():
        ours = loaded.encode_prompts([flow_runs.PROMPT, flow_runs.NEGATIVE], Encoding())
        theirs = [flow_runs.flux1_texts(flow_files("flux1-dev"), text, 512) for text in (flow_runs.PROMPT, flow_runs.NEGATIVE)]
    for mine, expected in zip((ours.tokens, ours.extra["pooled"]), zip(*theirs)):
        torch.testing.assert_close(mine, torch.cat(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant, sees", [("dev", "nothing"), ("schnell", "nothing"), ("fill", "masked source"), ("kontext", "reference")])
def test_each_is_told_from_the_others(variant, sees, flow_files, flow_model):
    for layout in flow_runs.LAYOUTS:
        loaded = flow_model(f"flux1-{variant}", layout)
        assert (loaded.name, loaded.sees) == (f"flux1-{variant}", sees)
    assert families.describe(flow_files(f"flux1-{variant}").folder).family == f"flux1-{variant}"


def test_the_shift_grows_with_the_picture(model):
    shifts = [model().prediction(Size(side, side)).shift for side in (256, 1024)]
    assert shifts == pytest.approx([np.exp(0.5), np.exp(1.15)])
    assert model("schnell").prediction(Size(1024, 1024)).shift == 1


@pytest.mark.parametrize("width, height", [(56, 72), (64, 88)])
@pytest.mark.parametrize("variant", ["dev", "fill", "kontext"])
def test_sides_need_only_be_multiples_of_8(model, variant, width, height):
    assert made(model(variant), mask=MASK, width=width, height=height, inpaint_full_res=False).images[0].size == (width, height)


@pytest.mark.parametrize("variant", ["dev", "fill", "kontext"])
def test_of_a_masked_picture_only_the_mask_changes(model, variant):
    for fields in ({"inpaint_full_res": True}, {"inpaint_full_res": False}, {"alwayson_scripts": {"soft inpainting": {"args": [True]}}}):
        for fill in (0, 1, 2, 3):
            result = made(model(variant), mask=MASK, mask_blur=0, inpainting_fill=fill, **fields)
            changed = (pixels(result) != np.asarray(SOURCE, np.int16)).any(axis=-1)
            assert changed[24:-24, 24:-24].any() and not changed[:8].any() and not changed[:, :8].any()


def test_fill_sees_the_mask_pixel_by_pixel(model, flow_files):
    pipe = flow_runs.flux1_pipeline(flow_files("flux1-fill"), "FluxFillPipeline")
    loaded, odd = model("fill"), torch.zeros(1, 1, 96, 64)
    odd[..., 13:57, 9:50] = 1
    source = pipe.image_processor.preprocess(SOURCE).contiguous()
    with torch.inference_mode(), flow_runs.told("flux.pipeline_flux_fill", torch.zeros(1)):
        mask, masked = pipe.prepare_mask_latents(odd, source * (1 - odd), 1, 16, 1, 96, 64, torch.float32, torch.device("cpu"), None)
        ours = loaded.image_conditioning(source, torch.zeros(1, 16, 12, 8), odd, mask_weight=1.0)
    torch.testing.assert_close(flux1.patches(ours).flatten(2).transpose(1, 2), torch.cat([masked, mask], dim=2), rtol=0, atol=2e-5)


def test_kontext_sees_the_source_beside_the_noise_where_there_is_one(model):
    seen, cells = [], 4 * 6
    handle = model("kontext").modules["transformer"].register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs["hidden_states"].shape[1]), with_kwargs=True)
    made(model("kontext"))
    made(model("kontext"), override_settings={"source_as_reference": False})
    made(model("kontext"), kind=StableDiffusionProcessingTxt2Img)
    handle.remove()
    assert [count for count, before in zip(seen, [None, *seen]) if count != before] == [2 * cells, cells]


def test_kontexts_references_have_the_sizes_that_diffusers_gives_them(model):
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    assert sorted(zip(flux1.SIDES, reversed(flux1.SIDES))) == sorted(PREFERRED_KONTEXT_RESOLUTIONS)
    for width, height in ((80, 70), (1200, 1000), (4000, 3000), (500, 1100)):
        nearest = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)[1:]
        assert model("kontext").fit_reference(Size(width, height)) == (Size(*nearest), Size(*nearest))
    assert model("kontext").fit_reference(Size(640, 80))[0] == Size(2896, 368)  # longer ones are not squeezed


def test_references_of_kontext_change_the_picture_by_their_order_and_dev_takes_none(model):
    with flow_runs.small_kontext_references():
        one, other = REFERENCES
        plain, there, back = (made(model("kontext"), reference_images=pictures) for pictures in ([], [one, other], [other, one]))
    assert (pixels(there) != pixels(plain)).any() and (pixels(there) != pixels(back)).any()
    assert "Reference images: 2" in there.infotexts[0]
    with pytest.raises(InvalidRequest, match='^reference_images: "transformer" takes no reference pictures, got 1; '
                                             'if it is a model that edits by instruction, set sd_model_kind to "Edits by instruction"$'):
        made(model(), reference_images=[one])


def test_weights_of_words_are_read_as_they_stand_and_that_is_said(model):
    assert made(model(), prompt="a (red:1.2) fox").comments == ["transformer knows no weights of words, so (red:1.2) was read as it stands."]


@pytest.mark.parametrize("variant, most", [("dev", 512), ("schnell", 256)])
def test_too_long_a_prompt_is_refused_with_numbers(model, variant, most):
    with pytest.raises(InvalidRequest, match=f"^prompt: takes {2 * most + 1} tokens; this model takes at most {most}$"):
        made(model(variant), prompt="a " * most)


# --- guidance as an input

def test_distilled_guidance_changes_the_picture_and_is_written_as_forge_writes_it(model):
    low, high = (made(model(), distilled_cfg_scale=scale) for scale in (1, 30))
    assert (pixels(low) != pixels(high)).any()
    assert ", CFG scale: 1, Distilled CFG Scale: 30, Seed: 1, " in high.infotexts[0]


def test_the_second_pass_of_hires_fix_may_have_its_own_guidance_under_forge_s_names(model):
    def hires(**fields):
        return made(model(), StableDiffusionProcessingTxt2Img, enable_hr=True, hr_scale=1.5, denoising_strength=0.9, **fields)

    same, given, other = hires(), hires(hr_cfg=1, hr_distilled_cfg=3.5), hires(hr_distilled_cfg=30)
    assert (pixels(same) == pixels(given)).all() and (pixels(same) != pixels(other)).any()
    assert "Hires CFG Scale: 1, Hires Distilled CFG Scale: 3.5" in given.infotexts[0]
    assert "Hires Distilled CFG Scale: 30" in other.infotexts[0] and "Hires CFG" not in other.infotexts[0] and "Hires D" not in same.infotexts[0]
    assert (pixels(hires(hr_cfg=4)) != pixels(same)).any()
    for field, sentence in (("hr_cfg", "between -100 and 1000"), ("hr_distilled_cfg", "between 0 and 100")):
        with pytest.raises(InvalidRequest, match=f"^{field} must be a number {sentence}, got 'much'$"):
            hires(**{field: "much"})


def test_networks_without_it_do_not_see_it(model):
    low, high = (made(model("schnell"), distilled_cfg_scale=scale) for scale in (1, 30))
    assert (pixels(low) == pixels(high)).all() and "Distilled" not in high.infotexts[0]


@pytest.mark.parametrize("value", [None, -1, 101, "much"])
def test_other_values_are_refused(model, value):
    with pytest.raises(InvalidRequest, match="^distilled_cfg_scale must be a number between 0 and 100, got "):
        made(model(), distilled_cfg_scale=value)


@pytest.fixture
def served(flow_files, tmp_path, request):
    """(a client of the API, the catalog, the engine) with FLUX.1 Fill, or the variant of the test's parameter, in files of their own."""
    files = flow_files(f"flux1-{getattr(request, 'param', 'fill')}")
    for folder, listed in (("Stable-diffusion", [files.transformer]), ("VAE", [files.vae]), ("text_encoder", [files.text_encoder, *files.more_encoders])):
        (tmp_path / "models" / folder).mkdir(parents=True)
        for file in listed:
            (tmp_path / "models" / folder / file.name).symlink_to(file)
    catalog = Catalog(tmp_path / "models")
    models = ModelStore(catalog, FLOAT32, catalog.checkpoints()[0])
    engine = local_engine(models.load, loaded=models.loaded, release=models.release)
    yield client_of(Backend(engine, models, Settings(tmp_path / "config.json"), tmp_path / "outputs", flags={"port": 7860})), catalog, engine
    engine.close()


def test_it_fills_through_the_api_and_its_infotext_and_receipt_say_how(served, tmp_path):
    client, catalog, engine = served
    request = {"prompt": "a fox", "seed": 1, "steps": 2, "sampler_name": "Euler", "scheduler": "Beta", "width": 64, "height": 96, "cfg_scale": 1,
               "denoising_strength": 1, "init_images": [base64_of(SOURCE)], "mask": base64_of(MASK)}
    answer = client.post("/sdapi/v1/img2img", json=request | {"distilled_cfg_scale": 30})
    assert answer.status_code == 200, answer.text
    (text,) = json.loads(answer.json()["info"])["infotexts"]
    assert "Distilled CFG Scale: 30.0" in text and "encoder.safetensors" in text and "t5xxl.safetensors" in text
    (tmp_path / "made.png").write_bytes(b64decode(answer.json()["images"][0]))
    claim = read_claim(tmp_path / "made.png")
    given = {"picture": [str(tmp_path / "source.png")], "mask": [str(tmp_path / "mask.png")]}
    SOURCE.save(*given["picture"])
    MASK.save(*given["mask"])
    *_, verdict = verify(claim, request_again(claim.receipt, catalog, read_given(given, claim.receipt).get, thorough=True), engine)
    assert verdict.status is Status.IDENTICAL, verdict


FORGE = ("a fox\nSteps: 2, Sampler: Euler, Schedule type: Beta, CFG scale: 1, Distilled CFG Scale: 4.5, Seed: 7, Size: 64x96, "
         "Model: transformer, Denoising strength: 0.9, Hires Module 1: Use same choices, Hires CFG Scale: 1.5, Hires Distilled CFG Scale: 5.5, "
         "Hires upscale: 1.5, Hires upscaler: Latent, Beta schedule alpha: 0.6, Beta schedule beta: 0.6, Diffusion in Low Bits: Automatic (fp16 LoRA), "
         "Version: f2.0.1v1.10.1-previous-636-gb835f24a, Module 1: ae, Module 2: encoder, Module 3: t5xxl")
"""As Forge writes it under a picture of FLUX.1 dev with hires fix."""


@pytest.mark.parametrize("served", ["dev"], indirect=True)
def test_forge_s_infotext_pastes_in_the_page_and_the_api(served, controls):
    client, catalog, engine = served
    values, notes = settings_in(FORGE, controls, catalog, engine.options, engine.styles)
    assert notes == [] and {name: values[name] for name in (
        "sampler_name", "scheduler", "steps", "cfg_scale", "distilled_cfg_scale", "seed", "width", "height", "sd_vae", "sd_text_encoders")} == {
        "sampler_name": "Euler", "scheduler": "Beta", "steps": 2, "cfg_scale": 1.0, "distilled_cfg_scale": 4.5, "seed": 7, "width": 64, "height": 96,
        "sd_vae": "ae.safetensors", "sd_text_encoders": ["encoder.safetensors", "t5xxl.safetensors"]}
    answer = client.post("/sdapi/v1/txt2img", json={"infotext": FORGE, "prompt": "a fox", "width": 64, "height": 96, "cfg_scale": 1})
    assert answer.status_code == 200, answer.text
    (text,) = json.loads(answer.json()["info"])["infotexts"]
    for said in ("Sampler: Euler, Schedule type: Beta", "Hires CFG Scale: 1.5, Hires Distilled CFG Scale: 5.5", "Module 1: ae, Module 2: encoder, Module 3: t5xxl"):
        assert said in text


@pytest.mark.parametrize("served", ["dev"], indirect=True)
def test_a_file_is_treated_as_kontext_where_the_request_says_so_and_its_receipt_does_too(served, tmp_path):
    """Its tensors are dev's, and its name says nothing."""
    client, catalog, engine = served
    request = {"prompt": "make the sky red", "seed": 1, "steps": 2, "sampler_name": "Euler", "scheduler": "Simple", "width": 64, "height": 96,
               "cfg_scale": 1, "denoising_strength": 1, "init_images": [base64_of(SOURCE)], "reference_images": [base64_of(REFERENCES[0])]}
    refused = client.post("/sdapi/v1/img2img", json=request)
    assert refused.status_code == 422 and 'set sd_model_kind to "Edits by instruction"' in refused.json()["detail"]
    refused = client.post("/sdapi/v1/img2img", json=request | {"override_settings": {"sd_model_kind": "Kontext"}})
    assert refused.status_code == 422 and "valid: Automatic, Draws, Edits by instruction" in refused.json()["detail"]
    with flow_runs.small_kontext_references():
        answer = client.post("/sdapi/v1/img2img", json=request | {"override_settings": {"sd_model_kind": "Edits by instruction"}})
        assert answer.status_code == 200, answer.text
        assert "Kind of model: Edits by instruction" in answer.json()["info"] and "Reference images: 1" in answer.json()["info"]
        (tmp_path / "made.png").write_bytes(b64decode(answer.json()["images"][0]))
        claim = read_claim(tmp_path / "made.png")
        given = {"picture": [str(tmp_path / "source.png"), str(tmp_path / "reference.png")]}
        SOURCE.save(given["picture"][0])
        REFERENCES[0].save(given["picture"][1])
        *_, verdict = verify(claim, request_again(claim.receipt, catalog, read_given(given, claim.receipt).get, thorough=True), engine)
    assert verdict.status is Status.IDENTICAL, verdict


# --- files

def test_all_names_of_the_original_code_become_those_of_diffusers(tmp_path):
    """At the published widths, which its converter takes for granted; but each matrix has one column only."""
    with torch.device("meta"):
        network = FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True)
    expected = {name: torch.randn(len(tensor), *[1] * (tensor.ndim - 1)) for name, tensor in network.state_dict().items()}
    save_file(published := tiny_flow.flux1_names(expected), tmp_path / "flux.safetensors")
    weights, ours = Weights(tmp_path / "flux.safetensors"), {}
    for name in weights:
        ours |= {new: stored.read(torch.device("cpu"), torch.float32) for new, stored in flux1.NAMES.converted(Stored(weights, name), name).items()}
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(published))
    assert ours.keys() == theirs.keys() == expected.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_transformer_by_diffusers_names_is_read_too(flow_files, model, tmp_path):
    files = flow_files("flux1-dev")
    save_file({f"transformer.{name}": tensor.half().contiguous() for name, tensor in files.modules["transformer"].state_dict().items()},
              tmp_path / "mine.safetensors")
    components = families.Components(files.vae, (files.text_encoder, *files.more_encoders))
    ours = families.load(tmp_path / "mine.safetensors", FLOAT32, components=components).modules["transformer"].state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in model().modules["transformer"].state_dict().items())


def test_kontext_is_known_by_its_metadata_too(flow_files, tmp_path):
    state = load_file(flow_files("flux1-dev").transformer)
    save_file(state, tmp_path / "mine.safetensors", {"modelspec.title": "FLUX.1 Kontext [dev]"})
    assert families.describe(tmp_path / "mine.safetensors").family == "flux1-kontext"


def test_what_its_file_is_may_be_said(flow_files, tmp_path):
    dev, kontext = (flow_files(f"flux1-{variant}") for variant in ("dev", "kontext"))
    for files in (dev, kontext):
        for path in (files.transformer, files.folder):
            for edits, family in ((True, "flux1-kontext"), (False, "flux1-dev")):
                info = families.describe(path, families.Components(edits=edits))
                assert (info.family, info.may_edit, info.references) == (family, True, 4 if edits else 0)
    for variant in ("fill", "schnell"):
        assert families.describe(flow_files(f"flux1-{variant}").transformer, families.Components(edits=True)).family == f"flux1-{variant}"


def test_files_that_fit_are_told_from_those_that_do_not(flow_files):
    flux, other = flow_files("flux1-dev"), flow_files("z-image")
    encoders = [other.text_encoder, *flux.more_encoders, flux.text_encoder]
    found = families.completed(flux.transformer, families.Components(), [flow_files("flux2-klein").vae, flux.vae], encoders)
    assert found.vae == flux.vae and set(found.text_encoders) == {flux.text_encoder, *flux.more_encoders}


def test_what_is_missing_or_does_not_fit_is_said(flow_files, tmp_path):
    flux, other = flow_files("flux1-dev"), flow_files("z-image")
    clip, words = flux.text_encoder, flux.more_encoders[0]
    assert refusal(flux.transformer, components=families.Components(flux.vae, (clip,))) == \
        '"transformer.safetensors" is not a complete model: it needs the text encoder T5-XXL in models/text_encoder too'
    assert refusal(flux.transformer, components=families.Components(flux.vae, (clip, other.text_encoder))) == (
        '"encoder.safetensors" is Qwen3, the text encoder of Z-Image and FLUX.2 klein; "transformer.safetensors" is flux1-dev and needs '
        "the text encoder CLIP-L and the text encoder T5-XXL")
    save_file({name: torch.cat([tensor, tensor], dim=-1) if name == "shared.weight" else tensor for name, tensor in load_file(words).items()},
              tmp_path / "wide.safetensors")
    assert refusal(flux.transformer, components=families.Components(flux.vae, (clip, tmp_path / "wide.safetensors"))) == \
        '"transformer.safetensors" cannot be used with this text encoder 2: it needs the text encoder T5-XXL'
    assert refusal(words) == '"t5xxl.safetensors" is a text encoder, which belongs in the text_encoder folder'
    state = load_file(flux.transformer)
    save_file(state | {"img_in.weight": torch.zeros(64, 128)}, tmp_path / "depth.safetensors")
    assert refusal(tmp_path / "depth.safetensors", components=families.Components(flux.vae, (clip, words))) == \
        '"depth.safetensors" is FLUX.1 Canny or Depth, which is not supported'


# --- LoRA

def lora(name, rows, columns, *, down="lora_down", up="lora_up"):
    generator = torch.Generator().manual_seed(1)
    return {f"{name}.{down}.weight": torch.randn(2, columns, generator=generator), f"{name}.{up}.weight": torch.randn(rows, 2, generator=generator)}


@pytest.mark.parametrize("name, rows, columns", [
    ("double_blocks_0_img_attn_qkv", 192, 64), ("double_blocks_1_txt_attn_qkv", 192, 64), ("double_blocks_0_txt_attn_proj", 64, 64),
    ("double_blocks_0_img_mlp_0", 256, 64), ("double_blocks_0_img_mod_lin", 384, 64), ("single_blocks_1_linear1", 448, 64),
    ("single_blocks_1_linear2", 64, 320), ("single_blocks_0_modulation_lin", 192, 64)])
def test_a_lora_changes_what_diffusers_would_change(model, tmp_path, name, rows, columns):
    """By kohya's names, and Black Forest Labs' for the same layers."""
    state = lora(f"lora_unet_{name}", rows, columns)
    theirs = converted(state)
    paths = {key.removeprefix("transformer.").rpartition(".lora_")[0] for key in theirs}
    deltas = {path: theirs[f"transformer.{path}.lora_B.weight"] @ theirs[f"transformer.{path}.lora_A.weight"] for path in paths}
    assert_changes(model(), tmp_path, state, deltas)
    dotted = name.replace("blocks_", "blocks.").replace("_0_", ".0.").replace("_1_", ".1.").replace("attn_", "attn.").replace("mlp_", "mlp.") \
        .replace("mod_", "mod.").replace("modulation_", "modulation.")
    assert_changes(model(), tmp_path, lora(f"diffusion_model.{dotted}", rows, columns, down="lora_A", up="lora_B"), deltas)


def converted(state):
    """By diffusers' converter, which takes the published widths for granted: 48 times as many rows."""
    wide = {name: tensor.repeat_interleave(48, dim=0) if ".lora_up." in name else tensor for name, tensor in state.items()}
    return {name: tensor[::48] if ".lora_B." in name else tensor for name, tensor in _convert_kohya_flux_lora_to_diffusers(wide).items()}


@pytest.mark.parametrize("prefix", ["transformer.", "diffusion_model.", "base_model.model."])
def test_a_lora_by_diffusers_names_changes_the_same_layer(model, tmp_path, prefix):
    for path, rows in (("single_transformer_blocks.0.proj_mlp", 256), ("transformer_blocks.1.attn.add_k_proj", 64)):
        state = lora(f"{prefix}{path}", rows, 64, down="lora_A", up="lora_B")
        up, down = (state[f"{prefix}{path}.lora_{part}.weight"] for part in "BA")
        assert_changes(model(), tmp_path, state, {path: up @ down})


def test_a_lora_of_kontext_leaves_out_what_fill_lacks(model, tmp_path):
    save_file(lora("lora_unet_img_in", 64, 64) | lora("lora_unet_double_blocks_0_img_attn_proj", 64, 64), tmp_path / "edit.safetensors")
    networks = Networks(lambda name: SimpleNamespace(path=tmp_path / "edit.safetensors"))
    comments = networks.apply(model("fill"), [NetworkRequest("edit", 1.0, 1.0, None)]).comments
    networks.apply(model("fill"), [])
    assert len(comments) == 1 and "1 of its 2 layers do not fit" in comments[0]


def test_a_lora_may_change_clip(model, tmp_path):
    save_file(lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 32), tmp_path / "words.safetensors")
    weight = model().modules["text_encoder"].state_dict
    before = {name: tensor.clone() for name, tensor in weight().items()}
    networks = Networks(lambda name: SimpleNamespace(path=tmp_path / "words.safetensors"))
    assert networks.apply(model(), [NetworkRequest("words", 1.0, 1.0, None)]).comments == []
    changed = [name for name, tensor in weight().items() if not torch.equal(tensor, before[name])]
    networks.apply(model(), [])
    assert [name.removeprefix("text_model.") for name in changed] == ["encoder.layers.0.mlp.fc1.weight"]

"""FLUX.2 klein: what is its own."""

from base64 import b64decode
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_flux2_lora_to_diffusers
from PIL import Image
from safetensors.torch import load_file, save_file

from api.backend import Backend
from pipeline import families
from pipeline.engine import local_engine
from pipeline.errors import InvalidRequest
from pipeline.families.cond import Encoding
from pipeline.loading import ModelStore
from pipeline.images import to_tensor
from pipeline.models import Catalog
from pipeline.previews import latent_to_rgb
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.settings import Settings
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import Status, read_claim, read_given, request_again, verify
from tests.api.conftest import base64_of, client_of
from tests.conftest import ROOT
from tests.families import flow_runs
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import MASK, REFERENCES, SOURCE, pixels
from tests.families.test_refusals import refusal
from tests.families.test_z_image import assert_changes

made = partial(flow_runs.made, prompt="make the sky red")


@pytest.fixture(scope="session")
def model(flow_model):
    return flow_model("flux2-klein", "single file")


def tokens_seen(model, monkeypatch, **fields):
    """Tokens of pictures in each call of the network."""
    seen, transformer = [], model.modules["transformer"]
    handle = transformer.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs["hidden_states"].shape[1]), with_kwargs=True)
    made(model, **fields)
    handle.remove()
    return set(seen)


def test_features_are_those_that_diffusers_takes(model, flow_files):
    with torch.inference_mode():
        ours = model.encode_prompts([flow_runs.PROMPT, flow_runs.NEGATIVE], Encoding()).tokens
        theirs = [flow_runs.klein_texts(flow_files("flux2-klein"), text) for text in (flow_runs.PROMPT, flow_runs.NEGATIVE)]
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=0, atol=flow_runs.CLOSE)  # after 27 layers


def test_the_network_sees_the_source_beside_the_noise_where_there_is_one(model, monkeypatch):
    cells = 4 * 6
    assert tokens_seen(model, monkeypatch) == {2 * cells}
    assert tokens_seen(model, monkeypatch, override_settings={"source_as_reference": False}) == {cells}
    assert tokens_seen(model, monkeypatch, kind=StableDiffusionProcessingTxt2Img) == {cells}


def test_within_a_mask_the_rest_stays_bit_for_bit(model):
    for fields in ({"inpaint_full_res": False}, {"inpaint_full_res": True}):
        for fill in (0, 1, 2, 3):
            changed = (pixels(made(model, mask=MASK, mask_blur=0, inpainting_fill=fill, **fields)) != np.asarray(SOURCE, np.int16)).any(axis=-1)
            assert changed[24:-24, 24:-24].any() and not changed[:8].any() and not changed[:, :8].any()


@pytest.mark.parametrize("kind", [StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img])
def test_sides_must_be_multiples_of_16(model, kind):
    with pytest.raises(InvalidRequest, match='^width and height must be multiples of 16 with "all-in-one", got 72x96$'):
        made(model, kind, width=72)


def test_previews_show_what_the_linear_fit_shows_of_the_autoencoders_own_latent(model):
    from pipeline.families.flux2 import RGB_BIAS, RGB_FACTORS

    own = torch.randn(1, 32, 8, 12, generator=torch.Generator().manual_seed(1)).repeat_interleave(2, -1).repeat_interleave(2, -2)
    shown = np.asarray(latent_to_rgb(model.latent_format.into(own)[0], model.latent_format), np.int16)
    expected = torch.einsum("chw,cr->hwr", own[0, :, ::2, ::2], torch.tensor(RGB_FACTORS)) + torch.tensor(RGB_BIAS)
    assert abs(shown - ((expected.clamp(-1, 1) + 1) * 127.5).numpy()).max() <= 1


def test_it_edits_through_the_api_from_files_of_their_own_and_can_be_verified(flow_files, tmp_path):
    files = flow_files("flux2-klein")
    for folder, file in (("Stable-diffusion", files.transformer), ("VAE", files.vae), ("text_encoders", files.text_encoder)):
        (tmp_path / "models" / folder).mkdir(parents=True)
        (tmp_path / "models" / folder / file.name).symlink_to(file)
    catalog = Catalog(tmp_path / "models")
    models = ModelStore(catalog, FLOAT32, catalog.checkpoints()[0])
    engine = local_engine(models.load, loaded=models.loaded, release=models.release)
    client = client_of(Backend(engine, models, Settings(tmp_path / "config.json"), tmp_path / "outputs", flags={"port": 7860}))
    request = {"prompt": "make the sky red", "seed": 1, "steps": 2, "sampler_name": "Euler", "scheduler": "Beta", "width": 64, "height": 96,
               "cfg_scale": 1, "denoising_strength": 1, "init_images": [base64_of(SOURCE)], "mask": base64_of(MASK), "reference_images": [base64_of(REFERENCES[0])]}
    answer = client.post("/sdapi/v1/img2img", json=request)
    assert answer.status_code == 200, answer.text
    (tmp_path / "made.png").write_bytes(b64decode(answer.json()["images"][0]))
    claim = read_claim(tmp_path / "made.png")
    given = {"picture": [str(tmp_path / "source.png"), str(tmp_path / "reference.png")], "mask": [str(tmp_path / "mask.png")]}
    SOURCE.save(given["picture"][0])
    REFERENCES[0].save(given["picture"][1])
    MASK.save(*given["mask"])
    *_, verdict = verify(claim, request_again(claim.receipt, catalog, read_given(given, claim.receipt).get, thorough=True), engine)
    assert "VAE: ae.safetensors" in answer.json()["info"] and "Text encoders: encoder.safetensors" in answer.json()["info"]
    assert verdict.status is Status.IDENTICAL, verdict
    assert "Module 1: ae, Module 2: encoder" in answer.json()["info"]
    for modules, status, said in (
            (["/home/somebody/models/VAE/ae.safetensors", "C:\\models\\encoder"], 200, "Module 1: ae, Module 2: encoder"),
            (["encoder", "../../gone"], 422, '; valid: ae.safetensors, encoder.safetensors'),
            (["ae", "ae.safetensors"], 422, "forge_additional_modules takes one VAE, got ae.safetensors and ae.safetensors"),
            ("ae", 422, "forge_additional_modules must be a list of names, got 'ae'")):
        asked = client.post("/sdapi/v1/img2img", json=request | {"override_settings": {"forge_additional_modules": modules}})
        assert asked.status_code == status and said in asked.text
    assert client.post("/sdapi/v1/options", json={"forge_additional_modules": ["encoder.safetensors"]}).status_code == 200
    chosen = client.get("/sdapi/v1/options").json()
    assert (chosen["sd_vae"], chosen["sd_text_encoders"]) == ("Automatic", "encoder.safetensors")
    refused = client.post("/sdapi/v1/img2img", json=request | {"override_settings": {"sd_text_encoders": "ae"}})
    assert refused.status_code == 422 and 'no text encoder called "ae"; valid: encoder.safetensors' in refused.json()["detail"]
    for fields, sentence in (({"reference_images": [base64_of(SOURCE)] * 5}, "at most 4 pictures are possible, got 5"),
                             ({"reference_images": [base64_of(Image.new("RGB", (1, 1)))]}, "picture 1 must have at least 64x64 pixels, got 1x1"),
                             ({"reference_images": ["bm9uZQ=="]}, "")):
        for route in ("img2img", "txt2img"):
            refused = client.post(f"/sdapi/v1/{route}", json=request | fields)
            assert refused.status_code == 422 and refused.json()["detail"].startswith(f"reference_images: {sentence}"), refused.text
    engine.close()


def test_flux_2_dev_and_other_parts_are_refused(flow_files, tmp_path):
    files, dev = flow_files("flux2-klein"), tmp_path / "dev.safetensors"
    save_file(load_file(files.transformer) | {"guidance_in.in_layer.weight": torch.zeros(2, 2)}, dev)
    assert refusal(dev) == '"dev.safetensors" is FLUX.2 dev, which is not supported; FLUX.2 klein is'
    assert refusal(files.transformer, components=families.Components(flow_files("z-image").vae, (files.text_encoder,))) == \
        '"transformer.safetensors" cannot be used with this vae: it needs FLUX.2\'s VAE'
    assert refusal(files.transformer, components=families.Components(files.vae, (flow_files("z-image").text_encoder,))).startswith(
        '"transformer.safetensors" cannot be used with this text encoder: it needs its text encoder')


def test_files_that_fit_are_told_from_those_that_do_not(flow_files):
    klein, other = flow_files("flux2-klein"), flow_files("z-image")
    vaes, encoders = [other.vae, klein.vae], [other.text_encoder, klein.text_encoder]
    assert families.completed(klein.transformer, families.Components(), vaes, encoders) == families.Components(klein.vae, (klein.text_encoder,))
    assert families.completed(other.transformer, families.Components(), vaes, encoders) == families.Components(other.vae, (other.text_encoder,))


def test_another_vae_brings_its_own_statistics(model, flow_files, tmp_path):
    files, before = flow_files("flux2-klein"), model.latent_format
    state = load_file(files.vae)
    save_file(state | {"bn.running_mean": state["bn.running_mean"] + 1}, tmp_path / "other.safetensors")
    families.change_vae(model, files.file, model.info, families.Components(tmp_path / "other.safetensors"))
    assert model.latent_format.mean[0] == pytest.approx(before.mean[0] + 1, abs=1e-3)
    families.change_vae(model, files.file, model.info, families.Components())
    assert model.latent_format == before


@pytest.mark.parametrize("name, rows", [
    ("double_blocks.0.img_attn.qkv", 96), ("double_blocks.1.txt_attn.qkv", 96), ("double_blocks.0.txt_attn.proj", 32),
    ("single_blocks.1.linear1", None), ("img_in", None), ("transformer_blocks.0.attn.to_k", 32)])
@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
def test_a_lora_changes_what_diffusers_would_change(model, tmp_path, name, rows, prefix):
    """By ai-toolkit's and Black Forest Labs' names, and kohya's for the same layers."""
    transformer = dict(model.modules["transformer"].named_parameters())
    shapes = {"single_blocks.1.linear1": "single_transformer_blocks.1.attn.to_qkv_mlp_proj", "img_in": "x_embedder"}
    shape = (rows, 32) if rows else tuple(transformer[f"{shapes[name]}.weight"].shape)
    down, up = torch.randn(2, shape[1], generator=torch.Generator().manual_seed(1)), torch.randn(shape[0], 2, generator=torch.Generator().manual_seed(2))
    theirs = _convert_non_diffusers_flux2_lora_to_diffusers({f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up})
    paths = {key.removeprefix("transformer.").rpartition(".lora_")[0] for key in theirs}
    deltas = {path: theirs[f"transformer.{path}.lora_B.weight"] @ theirs[f"transformer.{path}.lora_A.weight"] for path in paths}
    ours = f"diffusion_model.{name}" if prefix == "diffusion_model." else prefix + name.replace(".", "_")
    assert_changes(model, tmp_path, {f"{ours}.lora_down.weight": down, f"{ours}.lora_up.weight": up}, deltas)


def test_references_that_cannot_be_used_are_refused_with_a_sentence(model, flow_model):
    small, long, reference = Image.new("RGB", (1, 1)), Image.new("RGB", (64, 640)), Image.new("RGB", (64, 64))
    for pictures, sentence in (
            ([small], "picture 1 must have at least 64x64 pixels, got 1x1"),
            ([reference, long], "picture 2 must be at most 8 times as long as it is wide, got 64x640"),
            ([reference] * 5, "at most 4 pictures are possible, got 5")):
        with pytest.raises(InvalidRequest, match=f"^reference_images: {sentence}$"):
            made(model, reference_images=pictures)
    with pytest.raises(InvalidRequest, match='^reference_images: "all-in-one" takes no reference pictures, got 1$'):
        made(flow_model("z-image", "single file"), reference_images=[reference])


def test_references_change_the_picture_by_their_order_and_are_told_in_infotext(model):
    one, other = flow_runs.REFERENCES
    plain, there, back = (made(model, reference_images=pictures) for pictures in ([], [one, other], [other, one]))
    assert (pixels(there) != pixels(plain)).any() and (pixels(there) != pixels(back)).any()
    assert "Reference images: 2" in there.infotexts[0] and "Reference images" not in plain.infotexts[0]


def test_references_act_within_a_mask_and_in_both_passes_of_hires_fix(model):
    one, other = flow_runs.REFERENCES
    for fields in ({"mask": MASK}, {"kind": StableDiffusionProcessingTxt2Img, "enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.9}):
        assert (pixels(made(model, reference_images=[one], **fields)) != pixels(made(model, reference_images=[other], **fields))).any()


@pytest.mark.parametrize("whole", [True, False])
def test_an_edit_is_aligned_and_the_rest_stays_bit_for_bit(model, monkeypatch, whole):
    source = Image.open(ROOT / "assets" / "samples" / "city-car.png").convert("RGB").resize((128, 128))
    mask = Image.new("L", source.size)
    mask.paste(255, (48, 48, 96, 96))
    drawn = cv2.warpAffine(np.asarray(source), np.float32([[1, 0, 4], [0, 1, 2]]), source.size, borderMode=cv2.BORDER_REPLICATE)
    drawn[60:80, 60:80] = 255
    monkeypatch.setattr(model, "decode", lambda latent: to_tensor(Image.fromarray(drawn))[None])
    result = made(model, init_images=[source], mask=mask, mask_blur=0, inpaint_full_res=False, width=128, height=128,
                  override_settings={"edit_freely": whole, "fit_colors": True})
    changed = (pixels(result) != np.asarray(source)).any(axis=-1)
    assert not changed[np.asarray(mask) == 0].any()
    assert any(said.startswith("The edit did not lie on its surroundings, so it was moved: -4.0, -2.0 pixels") for said in result.comments)
    inside = np.abs(pixels(result) - np.asarray(source))[50:55, 50:94]
    assert inside.mean() < 4
    assert ("Edit freely: True" in result.infotexts[0]) == whole and "Fit colours: True" in result.infotexts[0]


def test_a_free_edit_lets_the_network_draw_the_whole_picture(model):
    seen = []
    for free in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "decode", lambda latent: seen.append(latent.clone()) or type(model).decode(model, latent))
            result = made(model, mask=MASK, mask_blur=0, inpaint_full_res=False, inpainting_fill=1, override_settings={"edit_freely": free})
        changed = (pixels(result) != np.asarray(SOURCE, np.int16)).any(axis=-1)
        assert changed.any() and not changed[np.asarray(MASK) == 0].any()
    source = model.encode_image(to_tensor(SOURCE)[None])
    pinned, free = ((latent - source).abs()[:, :, 0].max() for latent in seen)
    assert pinned < 1e-4 < free

"""img2img and txt2img over HTTP: fields, coercions, nulls, what is refused and how, and what an answer holds."""

import json
from functools import cache

import numpy as np
import pytest
from PIL import Image

from api.convert import drop_unknown_checkpoint
from api.models import Img2ImgRequest, Txt2ImgRequest
from pipeline.infotext import png_info
from pipeline.metadata import metadata_of
from tests.api.conftest import base64_of, image_of

IMG2IMG, TXT2IMG = "/sdapi/v1/img2img", "/sdapi/v1/txt2img"


def info_of(answer):
    assert answer.status_code == 200, answer.text[:500]
    return json.loads(answer.json()["info"])


def test_an_answer_has_the_picture_the_request_and_what_was_done(shared, body):
    answer = shared.post(IMG2IMG, json=body)
    info = info_of(answer)
    image = image_of(answer.json()["images"][0])
    assert image.size == (64, 64) and image.format == "PNG"
    assert image.info["parameters"] == info["infotexts"][0] and "Steps: 2, Sampler: Euler" in info["infotexts"][0]
    assert answer.json()["parameters"]["steps"] == 2 and answer.json()["parameters"]["init_images"] is None
    assert (info["seed"], info["all_seeds"], info["width"], info["cfg_scale"]) == (1, [1], 64, 7.0)
    assert info["extra_generation_params"]["Denoising strength"] == 0.75


def test_every_field_of_the_answers_info_is_there(shared, body):
    assert set(info_of(shared.post(IMG2IMG, json=body))) == {
        "prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed", "all_subseeds",
        "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size", "restore_faces",
        "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash", "seed_resize_from_w",
        "seed_resize_from_h", "denoising_strength", "extra_generation_params", "index_of_first_image", "infotexts", "styles",
        "job_timestamp", "clip_skip", "is_using_inpainting_conditioning", "version", "comments"}


@pytest.mark.parametrize("field, sent, understood", [
    ("steps", "2", 2), ("steps", 2.9, 2), ("width", 64.0, 64), ("cfg_scale", "5.5", 5.5), ("cfg_scale", 5, 5.0),
    ("prompt", 5, "5"),
    ("send_images", "no", False), ("send_images", 0, False), ("nobody_knows_this", 1, None), ("mask_round", None, None),
    ("eta", None, None), ("styles", None, None), ("override_settings", None, None), ("sampler_name", None, None),
    ("script_args", None, None), ("alwayson_scripts", None, None), ("image_cfg_scale", 1.5, 1.5), ("firstpass_image", "x", "x"),
    ("inpaint_full_res", None, None), ("subseed_strength", 0, 0), ("seed", -1, -1), ("alwayson_scripts", "", {}),
    ("override_settings", [], {}), ("override_settings", [["s_churn", 2]], {"s_churn": 2}), ("comments", [], {}),
    ("alwayson_scripts", {"Hypertile": {"args": []}}, {"Hypertile": {"args": []}})])
def test_what_a1111_takes_is_taken(shared, body, field, sent, understood):
    answer = shared.post(IMG2IMG, json=body | {field: sent})
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"].get(field) == understood


@pytest.mark.parametrize("field, stands_for", [
    ("resize_mode", 2), ("inpainting_fill", 0), ("inpainting_mask_invert", 0), ("inpaint_full_res", False),
    ("mask_round", False), ("image_cfg_scale", None), ("mask_blur", None), ("initial_noise_multiplier", 1)])
def test_what_null_does(shared, body, mask, field, stands_for):
    masked = body | {"mask": base64_of(mask), "width": 64, "height": 48, "inpaint_full_res": False}
    answers = [shared.post(IMG2IMG, json=masked | {field: value}) for value in (None, stands_for)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert answers[0].json()["images"] == answers[1].json()["images"] and answers[0].json()["parameters"][field] is None


def test_null_for_the_padding_of_only_masked_is_none(shared, body, mask):
    body |= {"mask": base64_of(mask), "inpaint_full_res": True}
    images = [shared.post(IMG2IMG, json=body | {"inpaint_full_res_padding": value}).json()["images"] for value in (None, 0, 16)]
    assert images[0] == images[1] != images[2]


@pytest.mark.parametrize("field", ["mask_blur_x", "mask_blur_y"])
def test_null_of_what_belongs_to_masks_is_refused_with_one_only(shared, body, mask, field):
    assert shared.post(IMG2IMG, json=body | {field: None}).status_code == 200
    answer = shared.post(IMG2IMG, json=body | {field: None, "mask": base64_of(mask)})
    assert answer.status_code == 422 and f"{field} must be" in answer.json()["detail"]


@pytest.mark.parametrize("field, sent, sentence", [
    ("steps", 0, "steps must be a whole number between 1 and"), ("steps", None, "steps must be"), ("steps", -3, "got -3"),
    ("cfg_scale", None, "cfg_scale must be"), ("width", 0, "width must be"), ("width", -128, "width must be"),
    ("width", 100_000, "width must be"), ("batch_size", 0, "batch_size must be"), ("batch_size", 10**6, "batch_size must be"),
    ("denoising_strength", 1.5, "denoising_strength must be"), ("seed", 2**70, "seed must be"),
    ("resize_mode", 9, "resize_mode must be"),
    ("prompt", None, "prompt must be text"), ("prompt", "\ud800", "lone surrogate"),
    ("inpainting_fill", 9, "inpainting_fill must be"),
    ("init_images", [], "no picture is given"), ("init_images", [None], "init_images must be a picture in base64"),
    ("init_images", ["aGVsbG8gd29ybGQ="], "not a picture that can be read"), ("init_images", ["!!!!!"], "init_images"),
    ("init_images", ["data:image/png"], "the file is empty"), ("mask", "data:image/png,", "mask: the file is empty"),
    ("init_images", ["http://127.0.0.1:9/x.png"], "Requests not allowed"), ("latent_mask", "x", "latent_mask"),
    ("override_settings", {"no_such_option": 1}, 'no option called "no_such_option"'),
    ("override_settings", {"CLIP_stop_at_last_layers": "two"}, "CLIP_stop_at_last_layers must be"),
    ("override_settings", {"samples_format": "bmp"}, 'samples_format: no value called "bmp"'),
    ("override_settings", {"sd_vae": "nope"}, 'no VAE called "nope"'),
    ("restore_faces", True, "restore_faces"),
    ("infotext", "x\nSteps: many, Subseed: 1, Sampler: Euler, Size: 1x1, Variation seed: ?", "infotext: subseed cannot be read"),
    ("script_name", "nope", "Script 'nope' not found"), ("alwayson_scripts", {"nope": {"args": [1]}}, "Script 'nope' not found; known always-on scripts: Soft Inpainting, ControlNet"),
    ("alwayson_scripts", {"Loopback": {"args": []}}, "Cannot have a selectable script in the always on scripts params")])
def test_what_makes_no_sense_is_one_sentence(shared, body, field, sent, sentence):
    answer = shared.post(IMG2IMG, content=json.dumps(body | {field: sent}), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and sentence in answer.json()["detail"], answer.text
    assert set(answer.json()) == {"error", "detail", "body", "errors"}


@pytest.mark.parametrize("field, sent, kind", [
    ("seed", "x", "type_error.integer"), ("styles", "x", "type_error.list"), ("cfg_scale", "x", "type_error.float"),
    ("send_images", "perhaps", "type_error.bool"), ("override_settings", ["x"], "type_error.dict"),
    ("prompt", [], "type_error.str")])
def test_a_wrong_type_is_told_as_fastapi_tells_it(shared, body, field, sent, kind):
    answer = shared.post(IMG2IMG, json=body | {field: sent})
    assert answer.status_code == 422
    assert [(error["loc"], error["type"]) for error in answer.json()["detail"]] == [(["body", field], kind)]


@pytest.mark.parametrize("text, status", [
    ('{"cfg_scale": NaN}', 422), ('{"cfg_scale": Infinity}', 422), ('{"script_args": [1e999]}', 422), ("{", 422), ("null", 422),
    ("[]", 422), ('"x"', 422), ("", 422), ("[" * 100_000, 400), ('{"seed": ' + "9" * 5000 + "}", 400), ("\udcff", 400)])
def test_what_is_no_request_at_all_is_refused(shared, text, status):
    answer = shared.post(IMG2IMG, content=text.encode("utf-8", "surrogateescape"), headers={"Content-Type": "application/json"})
    assert answer.status_code == status


@pytest.mark.parametrize("change", [{}, {"init_images": None}])
def test_without_a_picture_the_answer_is_404_as_clients_know_it(shared, body, change):
    del body["init_images"]
    answer = shared.post(IMG2IMG, json=body | change)
    assert answer.status_code == 404
    assert answer.json() == {"error": "HTTPException", "detail": "Init image not found", "body": "", "errors": ""}


def test_without_a_content_type_the_body_is_json(shared, body):
    request = shared.build_request("POST", IMG2IMG, content=json.dumps(body))
    request.headers.pop("content-type", None)
    assert shared.send(request).status_code == 200


@pytest.mark.parametrize("fields, sampler, note", [
    ({"sampler_name": "NoSuch"}, "DPM++ 2M", 'Unknown sampler "NoSuch"'), ({"sampler_name": None}, "Euler", None),
    ({"sampler_name": ""}, "Euler", None), ({"sampler_name": None, "sampler_index": "DDIM"}, "DDIM", None),
    ({"scheduler": "NoSuch"}, "Euler", 'Unknown schedule type "NoSuch"'),
    ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", None)])
def test_unknown_samplers_and_schedules_stand_for_the_defaults(shared, body, fields, sampler, note):
    info = info_of(shared.post(IMG2IMG, json=body | fields))
    assert info["sampler_name"] == sampler
    assert note is None or any(note in comment for comment in info["comments"])


@pytest.mark.parametrize("sampler_name, scheduler, said", [
    ("Euler Karras", None, "Karras"), ("Euler Karras", "", "Karras"), ("Euler Karras", "Exponential", "Exponential"),
    ("Euler Karras", "automatic", "Automatic"), ("NoSuch Exponential", None, "Exponential")])
def test_a_schedule_that_is_asked_for_beats_the_one_in_the_sampler_s_name(shared, body, sampler_name, scheduler, said):
    info = info_of(shared.post(IMG2IMG, json=body | {"sampler_name": sampler_name, "scheduler": scheduler}))
    assert f"Schedule type: {said}," in info["infotexts"][0]


@pytest.mark.parametrize("name", [None, ""])
def test_no_checkpoint_in_override_settings_is_the_current_one(backend, name):
    overrides = {"sd_model_checkpoint": name, "s_churn": 2}
    assert drop_unknown_checkpoint(overrides, backend) == [] and overrides == {"s_churn": 2}


def test_an_unknown_checkpoint_is_passed_over_and_told(shared, body):
    info = info_of(shared.post(IMG2IMG, json=body | {"override_settings": {"sd_model_checkpoint": "nope"}}))
    assert any('no checkpoint called "nope"' in comment for comment in info["comments"])


@pytest.mark.parametrize("form, name", [("png", "PNG"), ("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_the_format_asked_for_with_their_infotext(client, body, form, name):
    client.post("/sdapi/v1/options", json={"samples_format": form})
    answer = client.post(IMG2IMG, json=body)
    picture = answer.json()["images"][0]
    assert image_of(picture).format == name
    read = client.post("/sdapi/v1/png-info", json={"image": picture}).json()
    assert read["info"] == info_of(answer)["infotexts"][0] and read["parameters"]["Seed"] == "1"


def test_png_info_says_what_an_old_version_did_otherwise(shared, picture):
    text = "a [b:c:2]\nSteps: 2, Sampler: DDIM, Seed: 9, Version: v1.5.2"
    sent = base64_of(picture, pnginfo=png_info(text))
    said = shared.post("/sdapi/v1/png-info", json={"image": sent}).json()["parameters"]
    assert said["Old prompt editing timelines"] == said["Pad conds v0"] == said["Downcast alphas_cumprod"] == "True"


def test_infotext_can_be_left_out_of_pictures(client, body):
    client.post("/sdapi/v1/options", json={"enable_pnginfo": False})
    answer = client.post(IMG2IMG, json=body)
    assert "parameters" not in image_of(answer.json()["images"][0]).info


def test_a_format_in_override_settings_ends_before_pictures_are_encoded(shared, body):
    answer = shared.post(IMG2IMG, json=body | {"override_settings": {"samples_format": "jpg"}})
    assert image_of(answer.json()["images"][0]).format == "PNG"


def test_no_pictures_are_sent_or_saved_unless_asked_for(client, body, backend):
    assert client.post(IMG2IMG, json=body | {"send_images": False}).json()["images"] == []
    assert not backend.outputs.exists()
    client.post(IMG2IMG, json=body | {"save_images": True, "do_not_save_samples": True})
    assert len(list(backend.outputs.glob("img2img-images/*/*.png"))) == 1


def test_a_grid_comes_first_where_it_is_saved(client, body):
    many = body | {"n_iter": 2}
    alone = client.post(IMG2IMG, json=many)
    saved = client.post(IMG2IMG, json=many | {"save_images": True})
    assert [image_of(image).size for image in alone.json()["images"]] == [(64, 64)] * 2
    assert len(saved.json()["images"]) == 3 and info_of(saved)["index_of_first_image"] == 1


def test_init_images_and_mask_are_repeated_where_asked_for(shared, body, mask):
    sent = body | {"mask": base64_of(mask), "include_init_images": True}
    parameters = shared.post(IMG2IMG, json=sent).json()["parameters"]
    assert parameters["init_images"] == body["init_images"] and parameters["mask"] == sent["mask"]


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:image/jpeg;charset=x;base64,", ""])
def test_pictures_may_be_data_uris(shared, body, prefix):
    plain = shared.post(IMG2IMG, json=body).json()["images"]
    body["init_images"] = [prefix + body["init_images"][0]]
    assert shared.post(IMG2IMG, json=body).json()["images"] == plain


def test_a_mask_changes_only_what_is_white(shared, body, picture, mask):
    answer = shared.post(IMG2IMG, json=body | {"mask": base64_of(mask), "mask_blur": 0, "inpaint_full_res": False})
    image = image_of(answer.json()["images"][0])
    assert image.getpixel((2, 2)) == picture.getpixel((2, 2)) and image.crop((24, 24, 40, 40)) != picture.crop((24, 24, 40, 40))


def test_mask_blur_sets_both_directions(shared, body, mask):
    masked = body | {"mask": base64_of(mask), "inpaint_full_res": False}
    both = shared.post(IMG2IMG, json=masked | {"mask_blur": 2, "mask_blur_x": 9, "mask_blur_y": 9}).json()["images"]
    assert both == shared.post(IMG2IMG, json=masked | {"mask_blur_x": 2, "mask_blur_y": 2}).json()["images"]


def test_overrides_hold_for_one_request_unless_it_says_otherwise(client, body):
    def clip_skip(**fields):
        return info_of(client.post(IMG2IMG, json=body | fields))["clip_skip"]

    overrides = {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    assert clip_skip(**overrides) == 2 and clip_skip() == 1
    assert clip_skip(**overrides, override_settings_restore_afterwards=False) == 2 and clip_skip() == 2


@pytest.mark.parametrize("name, value", [("save_images_add_number", False), ("tiling", False), ("token_merging_ratio", 0),
                                         ("sd_unet", "Automatic")])
def test_options_that_only_a1111_heeds_may_be_overridden(shared, body, name, value):
    assert shared.post(IMG2IMG, json=body | {"override_settings": {name: value}}).status_code == 200


def test_an_option_that_would_change_pixels_elsewhere_is_not_passed_over(shared, body):
    answer = shared.post(IMG2IMG, json=body | {"override_settings": {"sd_unet": "mine"}})
    assert answer.status_code == 422 and "sd_unet cannot be changed" in answer.json()["detail"]


def test_infotext_fills_the_fields_that_are_left_out(shared, body):
    text = "a cat\nSteps: 7, Sampler: DDIM, CFG scale: 5, Seed: 99, Size: 128x128, " \
           "Denoising strength: 0.5, Clip skip: 2, ENSD: 31337"
    for name in ("steps", "sampler_name", "seed"):
        del body[name]
    answer = shared.post(IMG2IMG, json=body | {"infotext": text})
    info, parameters = info_of(answer), answer.json()["parameters"]
    assert (info["steps"], info["sampler_name"], info["seed"], info["clip_skip"]) == (7, "DDIM", 99, 2)
    assert (info["prompt"], info["cfg_scale"], info["denoising_strength"], info["width"]) == ("", 7.0, 0.75, 64)
    assert parameters["override_settings"] == {"CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 31337}


@pytest.mark.parametrize("text, sampler, schedule", [
    ("x\nSteps: 2, Seed: 9, Size: 64x64", "DPM++ 2M", "Karras"),
    ("x\nSteps: 2, Sampler: Euler Exponential, Seed: 9", "Euler", "Exponential"),
    ("x\nSteps: 2, Sampler: Euler, Schedule type: Karras, Seed: 9, Refiner: nope [0123456789]", "Euler", "Karras")])
def test_infotext_names_sampler_schedule_and_refiner_or_stands_for_the_default(shared, body, text, sampler, schedule):
    del body["sampler_name"]
    info = info_of(shared.post(IMG2IMG, json=body | {"infotext": text}))
    assert info["sampler_name"] == sampler and f"Schedule type: {schedule}," in info["infotexts"][0]


@pytest.mark.parametrize("said, sampler, schedule", [
    ("Sampler: DPM++ 2M, Schedule type: Karras", "Euler a", "Automatic"),
    ("Sampler: DPM++ 2M Karras", "Euler", "Automatic"),
    ("Sampler: nobody's, Schedule type: Karras", "Euler", "Automatic"),
    ("Sampler: DPM++ 2M SDE, Schedule type: exponential", "DPM++ 2M", "Karras"),
    ("Sampler: DPM++ 2M, Schedule type: Exponential", "Euler a", "Exponential"),
    ("Sampler: Euler, Schedule type: Karras", "Euler a", "Karras")])
def test_an_infotexts_schedule_is_automatic_where_its_own_sampler_would_take_it(shared, body, said, sampler, schedule):
    answer = shared.post(IMG2IMG, json=body | {"sampler_name": sampler, "infotext": f"x\nSteps: 2, {said}, Seed: 9"})
    info = info_of(answer)
    assert info["sampler_name"] == sampler and f"Schedule type: {schedule}," in info["infotexts"][0]


def test_info_names_a_schedule_that_is_not_automatic_among_what_was_recorded(shared, body):
    def recorded(**fields):
        return info_of(shared.post(IMG2IMG, json=body | fields))["extra_generation_params"]

    assert recorded(sampler_name="Euler", scheduler="Karras")["Schedule type"] == "Karras"
    assert recorded(sampler_name="DPM++ 2M")["Schedule type"] == "Karras"
    assert "Schedule type" not in recorded(sampler_name="Euler")
    assert "Schedule type" not in recorded(sampler_name="DDIM", scheduler="Karras")


@pytest.mark.parametrize("said, told", [
    ("VAE: vae-ft-mse-840000-ema-pruned.safetensors, VAE hash: 0123456789", "The VAE vae-ft-mse-840000-ema-pruned.safetensors was not found"),
    ("VAE: default, App: SD.Next", "The VAE default was not found"), ("Emphasis: Loud", 'emphasis: no value called "Loud"'),
    ("Clip skip: 900", "CLIP_stop_at_last_layers must be"), ("Refiner: nope [0123456789]", "The refiner nope [0123456789] was not found")])
def test_what_infotext_names_and_is_not_here_is_left_out_with_a_comment(shared, body, said, told):
    answer = shared.post(IMG2IMG, json=body | {"infotext": f"x\nSteps: 2, Seed: 9, Size: 64x64, {said}"})
    assert answer.status_code == 200
    comments = info_of(answer)["comments"]
    assert len(comments) == 1 and told in comments[0] and comments[0].endswith(" stays as it was." if "must" in told or "no value" in told
                                                                             else "; the current one stays.")
    without = shared.post(IMG2IMG, json=body | {"infotext": "x\nSteps: 2, Seed: 9, Size: 64x64"})
    assert answer.json()["images"] == without.json()["images"]


@pytest.mark.parametrize("seed", [1234567890123456789, 2**64 - 1])
def test_a_seed_keeps_all_its_digits(shared, body, seed):
    assert info_of(shared.post(IMG2IMG, json=body | {"seed": seed}))["seed"] == seed
    del body["seed"]
    text = f"x\nSteps: 2, Seed: {seed}, Size: 64x64, ENSD: 0"
    again = info_of(shared.post(IMG2IMG, json=body | {"infotext": text}))
    assert again["seed"] == seed and f"Seed: {seed}," in again["infotexts"][0]


def test_a_size_that_is_cut_is_told(shared, body):
    info = info_of(shared.post(IMG2IMG, json=body | {"width": 70, "height": 64}))
    assert info["comments"] == ["The size 70×64 was rounded down to 64×64: sides must be multiples of 8."]
    assert info_of(shared.post(IMG2IMG, json=body))["comments"] == []


def test_infotext_switches_soft_inpainting_on(shared, body, mask):
    body |= {"mask": base64_of(mask)}
    on = {"alwayson_scripts": {"soft inpainting": {"args": [True, 1.5, 0.25, 4, 0, 0.5, 2]}}}
    made = info_of(shared.post(IMG2IMG, json=body | on))
    text = made["infotexts"][0]
    assert "Soft inpainting schedule bias: 1.5" in text
    again = info_of(shared.post(IMG2IMG, json=body | {"infotext": text}))
    assert {key: str(value) for key, value in again["extra_generation_params"].items() if key.startswith("Soft")} \
        == {key: str(value) for key, value in made["extra_generation_params"].items() if key.startswith("Soft")}
    off = {"alwayson_scripts": {"Soft Inpainting": {"args": [False]}}}
    assert "Soft" not in info_of(shared.post(IMG2IMG, json=body | {"infotext": text} | off))["infotexts"][0]


def test_alwayson_scripts_of_a1111s_own_page_are_passed_over(shared, body):
    assert shared.post(IMG2IMG, json=body | {"alwayson_scripts": {"Sampler": {"args": [1, "DDIM"]},
                                                                  "seed": {"args": []}}}).status_code == 200


def test_the_same_request_gives_the_same_pixels_through_every_door(shared, body, engine, picture):
    from pipeline.processing import StableDiffusionProcessingImg2Img

    p = StableDiffusionProcessingImg2Img(init_images=[picture], width=64, height=64, steps=2, seed=1, sampler_name="Euler")
    direct = engine.submit([p]).result()[0].images[0]
    assert image_of(shared.post(IMG2IMG, json=body).json()["images"][0]).tobytes() == direct.tobytes()


def test_txt2img_makes_a_picture_from_noise_alone(shared):
    answer = shared.post(TXT2IMG, json={"prompt": "a house", "width": 64, "height": 72, "steps": 2, "seed": 3, "batch_size": 2})
    info = info_of(answer)
    assert [image_of(image).size for image in answer.json()["images"]] == [(64, 72)] * 2
    assert "Denoising strength" not in info["infotexts"][0] and info["all_seeds"] == [3, 4]


@pytest.mark.parametrize("fields", [{"denoising_strength": 0.7, "hr_scale": 2, "hr_upscaler": "Latent", "firstphase_width": 0},
                                    {"enable_hr": False}])
def test_txt2img_takes_what_clients_send_for_hires_fix(shared, fields):
    small = {"width": 64, "height": 64, "steps": 1, "seed": 1}
    with_them, without = (image_of(shared.post(TXT2IMG, json=sent).json()["images"][0]) for sent in (small | fields, small))
    assert with_them.tobytes() == without.tobytes()


def test_hires_fix_enlarges_and_redraws(shared):
    body = {"width": 64, "height": 64, "steps": 2, "seed": 1, "enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5,
            "hr_prompt": "", "hr_checkpoint_name": "Use same checkpoint", "hr_sampler_name": "Use same sampler", "hr_resize_x": None}
    answer = shared.post(TXT2IMG, json=body)
    info = info_of(answer)
    assert image_of(answer.json()["images"][0]).size == (96, 96)
    assert info["denoising_strength"] == 0.5 and (info["width"], info["height"]) == (64, 64)
    assert "Denoising strength: 0.5, " in info["infotexts"][0] and "Hires upscale: 1.5" in info["infotexts"][0]
    usual = {name: value for name, value in body.items() if name != "denoising_strength"}
    assert "Denoising strength: 0.75" in info_of(shared.post(TXT2IMG, json=usual))["infotexts"][0]


def test_hires_fix_is_taken_from_an_infotext(shared):
    body = {"prompt": "a house", "width": 64, "height": 64, "cfg_scale": 7, "steps": 2, "seed": 1, "enable_hr": True, "hr_scale": 1.5,
            "hr_upscaler": "Lanczos", "denoising_strength": 0.4, "hr_prompt": "a tower", "hr_second_pass_steps": 3}
    made = shared.post(TXT2IMG, json=body)
    again = {name: body[name] for name in ("prompt", "width", "height", "cfg_scale")} | {"infotext": info_of(made)["infotexts"][0]}
    answer = shared.post(TXT2IMG, json=again)
    assert info_of(answer)["infotexts"] == info_of(made)["infotexts"] and answer.json()["images"] == made.json()["images"]
    plain = shared.post(TXT2IMG, json=again | {"enable_hr": False})
    assert image_of(plain.json()["images"][0]).size == (64, 64)


@pytest.mark.parametrize("fields, sentence", [
    ({"hr_upscaler": "Late"}, 'hr_upscaler: no upscaler called "Late"'), ({"hr_scale": 0}, "hr_scale must be a number between 0.01 and 100"),
    ({"hr_scale": 100, "width": 512}, "hr_scale, hr_resize_x and hr_resize_y: the picture would have"),
    ({"hr_resize_x": -1}, "hr_resize_x must be a whole number between 0 and 8192"),
    ({"hr_sampler_name": "Eula"}, "no sampler called"), ({"hr_scheduler": "Kara"}, "no schedule type called"),
    ({"hr_checkpoint_name": "nothing"}, "no checkpoint called")])
def test_hires_fix_refuses_what_it_cannot_do_in_a_sentence(shared, fields, sentence):
    answer = shared.post(TXT2IMG, json={"width": 64, "height": 64, "steps": 1, "enable_hr": True} | fields)
    assert answer.status_code == 422 and sentence in answer.json()["detail"], answer.text


def test_two_pictures_make_a_batch(shared, body, picture):
    body["init_images"] *= 2
    assert shared.post(IMG2IMG, json=body).status_code == 422
    answer = shared.post(IMG2IMG, json=body | {"batch_size": 3})
    assert len(answer.json()["images"]) == 2 and info_of(answer)["batch_size"] == 2


def test_pictures_of_several_sizes_make_none_where_they_are_not_resized(shared, body, picture):
    body |= {"init_images": [base64_of(picture), base64_of(picture.resize((32, 32)))], "batch_size": 2}
    assert shared.post(IMG2IMG, json=body).status_code == 200
    answer = shared.post(IMG2IMG, json=body | {"resize_mode": 3})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "init_images must all have the same size when they are not resized, got 32x32, 64x64"


@pytest.mark.parametrize("masked_content", [0, 2, 3])
def test_masked_content_needs_a_source_of_the_mask_s_size(shared, body, mask, masked_content):
    body |= {"mask": base64_of(mask), "resize_mode": 3, "width": 32, "height": 32, "inpaint_full_res": False}
    assert shared.post(IMG2IMG, json=body | {"inpainting_fill": 1}).status_code == 200
    answer = shared.post(IMG2IMG, json=body | {"inpainting_fill": masked_content})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("inpainting_fill must be 1 (original) when the source")


def test_a_failure_inside_is_told_in_the_same_shape(client, body, backend, monkeypatch):
    monkeypatch.setattr(backend.engine._stations[0].worker, "_load", lambda options: 1 / 0)
    answer = client.post(IMG2IMG, json=body)
    assert answer.status_code == 500 and answer.json()["error"] == "ZeroDivisionError"
    assert "Something went wrong" in answer.json()["detail"]


def test_a_picture_with_alpha_or_in_gray_is_taken(shared, body):
    for mode in ("RGBA", "L", "P", "1"):
        body["init_images"] = [base64_of(Image.new(mode, (32, 32), 1))]
        assert shared.post(IMG2IMG, json=body).status_code == 200


@pytest.mark.parametrize("upscaler", [["Lanczos"], {"name": "Lanczos"}, 7, True])
def test_an_upscaler_that_is_no_name_is_refused_in_a_sentence(client, body, upscaler):
    answer = client.post("/sdapi/v1/img2img", json=body | {"override_settings": {"upscaler_for_img2img": upscaler}})
    assert answer.status_code == 422 and "no upscaler called" in answer.json()["detail"]
    answer = client.post("/sdapi/v1/options", json={"upscaler_for_img2img": upscaler})
    assert answer.status_code == 422 and "no upscaler called" in answer.json()["detail"]


@pytest.mark.parametrize("deep", ['[' * 400 + ']' * 400, '{"a":' * 400 + '1' + '}' * 400])
@pytest.mark.parametrize("field", ["script_args", "alwayson_scripts", "override_settings", "prompt", "unknown"])
@pytest.mark.parametrize("route", ["img2img", "txt2img", "options", "extra-single-image"])
def test_what_is_nested_too_deep_is_refused_in_a_sentence(client, route, field, deep):
    answer = client.post(f"/sdapi/v1/{route}", content=f'{{"{field}": {deep}}}', headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "at most 64 deep" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["a\nERROR a line of its own", "a\x1b[31m", "x" * 201, "\u2028"])
def test_a_jobs_name_writes_no_line_of_the_log(client, body, name):
    answer = client.post("/sdapi/v1/img2img", json=body | {"force_task_id": name})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("force_task_id must be at most 200 printable")


@pytest.mark.parametrize("kind, count", [("init_images", 3), ("mask", 2)])
def test_small_files_of_many_pixels_are_refused_before_they_are_read(client, body, kind, count):
    huge = base64_of(Image.new("1", (10000, 9999)))
    asked = {"init_images": [huge] * count, "batch_size": 8} if kind == "init_images" else {
        "init_images": [huge], "mask": huge, "latent_mask": huge}
    answer = client.post("/sdapi/v1/img2img", json=body | asked)
    assert answer.status_code == 422 and "200 million pixels in total, got 300 million" in answer.json()["detail"]


def test_the_answer_repeats_its_pictures_only_where_it_is_asked_to(client, body):
    for repeat, expected in ((False, None), (True, body["init_images"])):
        answer = client.post("/sdapi/v1/img2img", json=body | {"include_init_images": repeat})
        assert answer.json()["parameters"]["init_images"] == expected


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (1, 777), (7, 9), (9, 4000)])
@pytest.mark.parametrize("mask", [{}, {"inpaint_full_res": False}, {"inpaint_full_res": True}])
@pytest.mark.parametrize("resize_mode", range(4))
def test_a_picture_of_any_size_gives_a_picture_or_a_sentence(shared, body, size, mask, resize_mode):
    fields = {"init_images": [base64_of(Image.new("RGB", size, "red"))], "resize_mode": resize_mode, "steps": 1}
    if mask:
        white = Image.new("L", size)
        white.paste(255, (0, 0, (size[0] + 1) // 2, (size[1] + 1) // 2))
        fields |= mask | {"mask": base64_of(white), "inpainting_fill": 1}
    answer = shared.post("/sdapi/v1/img2img", json=body | fields)
    if answer.status_code != 200:
        assert resize_mode == 3 and min(size) < 8 and answer.status_code == 422
        assert answer.json()["detail"].endswith(f"a picture must have at least 8x8 pixels, got {size[0]}x{size[1]}")


@pytest.mark.parametrize("ground, paint, mode, sentence", [
    ("black", (255, 0, 0), "RGB", "The mask has colours"), ("black", (90, 90, 90), "RGB", "The mask is nowhere more than half white"),
    ((0, 0, 0, 255), (255, 255, 255, 128), "RGBA", "The mask is opaque where it is black"), ((3, 3, 3), "white", "RGB", "not quite black"),
    ("black", "white", "RGB", None)])
def test_what_a_mask_does_otherwise_than_it_looks_is_told_and_left(shared, body, ground, paint, mode, sentence):
    mask = Image.new(mode, (64, 64), ground)
    mask.paste(paint, (16, 16, 48, 48))
    info = json.loads(shared.post("/sdapi/v1/img2img", json=body | {"mask": base64_of(mask)}).json()["info"])
    comments = [comment for comment in info["comments"] if "mask" in comment]
    assert len(comments) == (sentence is not None) and all(sentence in comment and "as in A1111" in comment.replace("As", "as")
                                                           for comment in comments)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_sources_exif_is_kept_by_choice(client, backend, body, picture, form):
    backend.settings.change({"samples_format": form})
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Camera maker", 3
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0old"
    fields = body | {"init_images": [base64_of(picture, "JPEG", exif=exif.tobytes())]}
    for wanted in (False, True):
        answer = client.post("/sdapi/v1/img2img", json=fields | {"override_settings": {"keep_source_exif": wanted}}).json()
        image = image_of(answer["images"][0])
        assert image.getexif().get(0x010F) == ("Camera maker" if wanted else None) and 0x0112 not in image.getexif()
        assert metadata_of(image).infotext == json.loads(answer["info"])["infotexts"][0]


def square(box, side=64):
    mask = Image.new("L", (side, side))
    mask.paste(255, box)
    return mask


BOXES = [(0, 0, 24, 24), (40, 40, 64, 64)]
EACH = {"inpainting_fill": 1, "mask_blur": 0, "inpaint_full_res": False, "denoising_strength": 1, "batch_size": 2}


@pytest.fixture
def two(picture):
    return [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def test_each_picture_may_have_a_mask_of_its_own(shared, body, two):
    fields = body | EACH | {"init_images": list(map(base64_of, two)), "mask": [base64_of(square(box)) for box in BOXES]}
    answer = shared.post(IMG2IMG, json=fields)
    info = info_of(answer)
    images = [image_of(image) for image in answer.json()["images"]][info["index_of_first_image"]:]
    assert info["all_seeds"] == [1, 2] and len(images) == len(info["infotexts"]) - info["index_of_first_image"] == 2
    for image, source, (left, top, right, bottom) in zip(images, two, BOXES):
        changed = (np.asarray(image) != np.asarray(source.convert("RGB"))).any(axis=-1)
        assert changed[top:bottom, left:right].mean() > 0.8
        changed[top:bottom, left:right] = False
        assert not changed.any()
    for number in range(2):  # each is what it would be alone
        alone = shared.post(IMG2IMG, json=fields | {"init_images": fields["init_images"][number:number + 1], "batch_size": 1,
                                                    "mask": fields["mask"][number], "seed": 1 + number})
        assert image_of(alone.json()["images"][0]).tobytes() == images[number].tobytes()


def test_a_list_of_one_mask_is_that_mask(shared, body, picture):
    fields = body | {"mask": base64_of(square(BOXES[0]))}
    assert shared.post(IMG2IMG, json=fields | {"mask": [fields["mask"]]}).json()["images"] == \
        shared.post(IMG2IMG, json=fields).json()["images"]


@pytest.mark.parametrize("changes, sentence", [
    ({"mask": 3}, "mask: 3 masks given for 2 pictures; give one, or one for each picture"),
    ({"mask": 2, "script_name": "Loopback", "script_args": [2, 0.5, "Linear", "None"]}, 'mask: "Loopback" needs one mask, not a list')])
def test_masks_that_fit_no_pictures_are_refused(shared, body, two, changes, sentence):
    masks = [base64_of(square(BOXES[0]))] * changes["mask"]
    answer = shared.post(IMG2IMG, json=body | EACH | {"init_images": list(map(base64_of, two))} | changes | {"mask": masks})
    assert answer.status_code == 422 and answer.json()["detail"] == sentence


@pytest.mark.parametrize("changes", [{"n_iter": 2}, {"subseed_strength": 0.3, "subseed": 5}, {"seed": -1}, {"n_iter": 2, "subseed_strength": 0.5}])
def test_pictures_with_masks_of_their_own_have_the_seeds_they_would_have_together(shared, body, two, changes):
    fields = body | EACH | {"init_images": list(map(base64_of, two))} | changes
    together = info_of(shared.post(IMG2IMG, json=fields | {"mask": base64_of(square(BOXES[0]))}))
    apart = info_of(shared.post(IMG2IMG, json=fields | {"mask": [base64_of(square(box)) for box in BOXES]}))
    steps = [[value - info[name][0] for value in info[name]] for info in (together, apart) for name in ("all_seeds", "all_subseeds")]
    if not changes.get("subseed_strength"):  # they count for nothing
        steps[1] = steps[3] = None
    assert steps[:2] == steps[2:]


# what says nothing

NEEDED = {"init_images", "prompt", "negative_prompt", "subseed_strength", "seed_resize_from_h", "seed_resize_from_w", "batch_size",
          "n_iter", "steps", "cfg_scale", "width", "height", "denoising_strength"}
"""Fields for which null is no value, and without which A1111 fails."""
FALSE = {"send_images", "mask_round", "inpaint_full_res", "resize_mode"}
"""Fields for which null is a value, but not the one that they have where they are left out."""


@pytest.mark.parametrize("path, model", [(IMG2IMG, Img2ImgRequest), (TXT2IMG, Txt2ImgRequest)])
def test_what_says_nothing_counts_as_left_out(shared, body, path, model):
    body = body | {"seed": 5, "subseed": 6}

    def answer(given):
        told = shared.post(path, json=given)
        assert told.status_code == 200, (given, told.text)
        info = info_of(told)
        return [image_of(image).tobytes() for image in told.json()["images"]], info["infotexts"]

    @cache
    def without(name):
        return answer({given: value for given, value in body.items() if given != name})

    nulls = set(model.model_fields) - FALSE - (NEEDED - ({"denoising_strength"} if path == TXT2IMG else set()))
    empties = set(model.model_fields) - {"init_images"}
    small = {"seed": 5, "steps": 2, "width": 64, "height": 64, "subseed": 6}
    for value, names in ((None, nulls), ("", empties)):
        for name in sorted(names - small.keys()):
            assert answer(body | {name: value}) == without(name if name in body else None), (name, value)


@pytest.mark.parametrize("name", sorted(NEEDED - {"init_images"}))
def test_null_for_what_is_needed_is_refused_by_its_name(shared, body, name):
    answer = shared.post(IMG2IMG, json=body | {name: None})
    assert answer.status_code == 422 and answer.json()["detail"].startswith(name)


def test_a_mask_of_no_text_is_no_mask(shared, body):
    masked = shared.post(IMG2IMG, json=body | {"mask": "", "latent_mask": "", "mask_blur": "", "inpainting_fill": 1})
    assert masked.status_code == 200
    assert masked.json()["images"] == shared.post(IMG2IMG, json=body | {"inpainting_fill": 1}).json()["images"]


def test_extras_take_what_says_nothing_as_left_out(shared, body):
    given = {"image": body["init_images"][0], "upscaler_1": "Lanczos"}
    plain = shared.post("/sdapi/v1/extra-single-image", json=given)
    for value in (None, ""):
        empty = dict.fromkeys(("resize_mode", "upscaling_resize", "upscaling_crop", "extras_upscaler_2_visibility", "gfpgan_visibility"), value)
        answer = shared.post("/sdapi/v1/extra-single-image", json=given | empty)
        assert (answer.status_code, answer.json()["image"]) == (200, plain.json()["image"])

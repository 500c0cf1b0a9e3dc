"""Networks that enlarge, over the API: lists, Extras, img2img."""

import pytest
from PIL import Image

from tests.api.conftest import base64_of, image_of
from tests.upscalers import tiny


@pytest.fixture
def networks(backend):
    """The backend with networks in its models folder."""
    tiny.saved(tiny.compact(2), backend.models.catalog.root / "ESRGAN" / "double.safetensors")
    tiny.saved(tiny.real_esrgan(2, blocks=1), backend.models.catalog.root / "RealESRGAN" / "RealESRGAN_x2plus.safetensors")
    (backend.models.catalog.root / "ESRGAN" / "old.pth").write_bytes(b"PK\x03\x04")
    backend.models.catalog.refresh()
    return backend.upscalers


def test_they_are_listed(client, networks):
    listed = client.get("/sdapi/v1/upscalers").json()
    assert [item["name"] for item in listed] == ["None", "Lanczos", "Nearest", "double", "R-ESRGAN 2x+"]
    assert listed[4]["model_name"] == "RealESRGAN_x2plus" and listed[4]["model_path"].endswith("RealESRGAN_x2plus.safetensors")
    assert [item["scale"] for item in listed] == [4, 4, 4, 4, 2]
    assert [item["name"] for item in client.get("/sdapi/v1/realesrgan-models").json()] == ["R-ESRGAN 2x+"]
    info = next(item for item in client.get("/sdapi/v1/script-info").json() if item["name"] == "sd upscale")
    assert info["args"][2]["choices"] == [item["name"] for item in listed]


def test_extras_enlarges_by_one_and_blends_a_second(client, networks, picture):
    def made(**fields):
        answer = client.post("/sdapi/v1/extra-single-image", json={"image": base64_of(picture), "upscaling_resize": 1.5} | fields)
        assert answer.status_code == 200, answer.text
        return image_of(answer.json()["image"])

    one, two = made(upscaler_1="double"), made(upscaler_1="R-ESRGAN 2x+")
    assert one.size == (96, 96) and one.tobytes() != two.tobytes()
    blend = made(upscaler_1="double", upscaler_2="R-ESRGAN 2x+", extras_upscaler_2_visibility=0.25)
    assert blend.tobytes() == Image.blend(one, two, 0.25).tobytes()
    assert blend.info["postprocessing"] == ("Postprocess upscale by: 1.5, Postprocess upscaler: double, "
                                            "Postprocess upscaler 2: R-ESRGAN 2x+")


@pytest.mark.parametrize("name, sentence", [
    ("old", '"old.pth" is a pickle'), ("R-ESRGAN 4x+", "it needs RealESRGAN_x4plus.safetensors in the folder RealESRGAN"),
    ("dubble", 'did you mean "double"')])
@pytest.mark.parametrize("field", ["upscaler_1", "upscaler_2"])
def test_what_there_is_not_is_one_sentence(client, networks, picture, name, sentence, field):
    answer = client.post("/sdapi/v1/extra-single-image", json={"image": base64_of(picture), field: name})
    assert answer.status_code == 422 and sentence in answer.json()["detail"]


def test_img2img_enlarges_its_source_by_one(client, networks, picture):
    body = {"init_images": [base64_of(picture.resize((32, 32)))], "steps": 1, "width": 64, "height": 64, "seed": 1}
    plain, network = (client.post("/sdapi/v1/img2img", json=body | {"override_settings": {"upscaler_for_img2img": name}})
                      for name in ("Lanczos", "double"))
    assert network.status_code == 200, network.text
    assert plain.json()["images"] != network.json()["images"]
    wrong = client.post("/sdapi/v1/img2img", json=body | {"override_settings": {"upscaler_for_img2img": "dubble"}})
    assert wrong.status_code == 422 and 'upscaler_for_img2img: no upscaler called "dubble"' in wrong.json()["detail"]

"""Networks wherever a request names an upscaler: sources that are enlarged, SD upscale, receipts, and stopping."""

import json

import pytest
from PIL import Image

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.infotext import RECEIPT, parse
from pipeline.options import Options
from pipeline.processing import StableDiffusionProcessingImg2Img, process_images
from pipeline.progress import Progress
from pipeline.upscaling import upscale

SMALL = {"ESRGAN_tile": 32, "ESRGAN_tile_overlap": 4}


@pytest.fixture
def request_for(demo, picture, upscalers):
    def make(**fields):
        settings = {"sd_model": demo, "init_images": [picture.resize((32, 32))], "width": 64, "height": 64, "steps": 2, "seed": 1,
                    "sampler_name": "Euler", "prompt": "a forest", "denoising_strength": 0.6}
        p = StableDiffusionProcessingImg2Img(**settings | fields)
        p.upscalers = upscalers
        return p
    return make


def enlarged(upscalers, name, image, scale):
    return upscale(image, scale, upscalers.find(name, "u", Options().override(SMALL)))


def test_a_source_that_is_too_small_is_enlarged_by_the_network(request_for, upscalers, picture):
    made = process_images(request_for(override_settings={"upscaler_for_img2img": "double"} | SMALL)).images[0]
    source = enlarged(upscalers, "double", picture.resize((32, 32)), 2)
    assert made.tobytes() == process_images(request_for(init_images=[source])).images[0].tobytes()
    assert made.tobytes() != process_images(request_for()).images[0].tobytes()


def test_a_masked_part_is_enlarged_by_it_too(request_for):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (4, 4, 12, 12))
    fields = {"mask": mask, "inpaint_full_res": True, "inpainting_fill": 1}
    plain, network = (process_images(request_for(**fields, override_settings=options)).images[0]
                      for options in ({}, {"upscaler_for_img2img": "double"}))
    assert plain.tobytes() != network.tobytes()
    assert plain.crop((20, 20, 32, 32)).tobytes() == network.crop((20, 20, 32, 32)).tobytes()


def test_sd_upscale_redraws_what_the_network_made(request_for, upscalers, picture):
    p = request_for(script_name="SD upscale", script_args=["", 0, "R-ESRGAN 4x+", 2.0], override_settings=SMALL)
    result = scripts.run(p)
    source = enlarged(upscalers, "R-ESRGAN 4x+", picture.resize((32, 32)), 2)
    assert result.images[0].tobytes() == process_images(request_for(init_images=[source])).images[0].tobytes()
    assert parse(result.info)["SD upscale upscaler"] == "R-ESRGAN 4x+"


def test_the_receipt_names_the_networks_file(request_for, catalog):
    image = scripts.run(request_for(override_settings={"upscaler_for_img2img": "double"})).images[0]
    sha256 = next(catalog.sha256(file) for file in catalog.upscalers() if file.stem == "double")
    assert json.loads(image.info[RECEIPT])["files"]["upscaler"] == {"double": sha256}


def test_an_unknown_name_is_one_sentence(request_for):
    with pytest.raises(InvalidRequest, match='upscaler_for_img2img: no upscaler called "treble"; did you mean'):
        process_images(request_for(override_settings={"upscaler_for_img2img": "treble"}))


def test_a_stopped_job_does_not_keep_a_half_enlarged_source(request_for):
    class Stopping(Progress):
        tiles = 0

        def enlarging(self, done, tiles):
            self.tiles += 1
            self.stopped = done == 1
            return not self.stopped

    fields = {"init_images": [Image.effect_noise((48, 48), 60).convert("RGB")], "width": 96, "height": 96,
              "override_settings": {"upscaler_for_img2img": "double"} | SMALL}
    p = request_for(**fields)
    p.progress = Stopping()
    assert process_images(p).images == [] and p.progress.tiles == 2
    again = request_for(**fields)
    again.cache = p.cache
    assert process_images(again).images[0].tobytes() == process_images(request_for(**fields)).images[0].tobytes()

"""ADetailer's passes with the flow families: each is an ordinary inpainting run of the family."""

import pytest
from PIL import Image

from pipeline import scripts
from pipeline.detectors import Find
from pipeline.detectors.masks import masks_of
from pipeline.detectors.store import Detectors
from pipeline.geometry import Size
from pipeline.processing import StableDiffusionProcessingImg2Img
from tests.detectors import onnx_files
from tests.families import flow_runs


@pytest.mark.parametrize("kind", flow_runs.KINDS)
def test_a_find_is_inpainted_as_by_hand(kind, flow_model, tmp_path):
    family = flow_model(kind, "folder")
    source = Image.new("RGB", (64, 64), (50, 50, 50))
    source.paste((255, 0, 0), (16, 16, 32, 32))
    (tmp_path / "face.onnx").write_bytes(onnx_files.yolo())
    given = {"sd_model": family, "width": 64, "height": 64, "steps": 2, "seed": 3, "sampler_name": "Euler", "prompt": "a fox",
             "cfg_scale": flow_runs.KINDS[kind].cfg_scale}
    one = {"ad_model": "face.onnx", "ad_confidence": 0.9}
    p = StableDiffusionProcessingImg2Img(**given, init_images=[source], alwayson_scripts={"ADetailer": {"args": [True, True, one]}})
    p.detectors = Detectors(tmp_path)
    mask, = masks_of([Find((16, 16, 32, 32), 1.0)], Size(64, 64), grow=4)
    by_hand = StableDiffusionProcessingImg2Img(**given, init_images=[source], mask=mask, mask_blur=4, inpainting_fill=1, inpaint_full_res=True,
                                               inpaint_full_res_padding=32, denoising_strength=0.4)
    made, wanted = scripts.run(p).images[0], scripts.run(by_hand).images[0]
    assert made.tobytes() == wanted.tobytes() != source.tobytes()

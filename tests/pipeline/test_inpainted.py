"""A result of the journal as an inpainting: what it was made from, and its blended picture beside it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.engine import local_engine
from pipeline.infotext import RECEIPT, parse
from pipeline.inpainted import inpainted, original_of, save_blended
from pipeline.processing import StableDiffusionProcessingImg2Img
from pipeline.receipt import read_receipt
from pipeline.seam import WAYS, way_of
from pipeline.txt2img import StableDiffusionProcessingTxt2Img
from pipeline.verify import Unverifiable, read_claim


@pytest.fixture
def run(demo, journal, tmp_path):
    """A function: fields → the request as the journal has it, its entry there, and that one's pictures."""
    engine = local_engine(lambda options: demo, journal=journal)

    def run(kind=StableDiffusionProcessingImg2Img, **changes):
        p = kind(**{"width": 64, "height": 64, "steps": 2, "seed": 1, "prompt": "a forest",
                    "outpath_samples": str(tmp_path / "outputs" / "pictures")} | changes)
        p.outpath_grids = p.outpath_samples
        engine.submit([p]).result()
        entry = journal.search(limit=1)[0]
        return journal.request(entry.id), entry, entry.pictures

    yield run
    engine.close()


@pytest.fixture
def masked(run, picture):
    """run() with the picture and a mask in its middle."""
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).rectangle([side // 3 for side in picture.size] + [side * 2 // 3 for side in picture.size], fill=255)
    return lambda **changes: run(**{"init_images": [picture], "mask": mask, "mask_blur_x": 2, "mask_blur_y": 2} | changes)


@pytest.mark.parametrize("changes", [
    {"inpaint_full_res": False}, {"inpaint_full_res": True}, {"inpaint_full_res": True, "inpainting_mask_invert": 1},
    {"inpaint_full_res": False, "resize_mode": 1, "width": 96}, {"inpaint_full_res": False, "resize_mode": 2, "width": 96},
    {"inpaint_full_res": False, "width": 70, "height": 79}, {"override_settings": {"img2img_background_color": "#ff0000"}}])
def test_source_and_mask_are_those_that_the_request_used(masked, changes):
    p, _, [saved] = masked(**changes)
    parts = inpainted(p, saved)
    outside = parts.mask == 0
    assert 0 < outside.sum() < outside.size and (parts.result[outside] == parts.source[outside]).all()
    assert (parts.result[~outside] != parts.source[~outside]).any()
    assert parts.seam.edge > 20


def test_what_is_no_inpainting_has_no_seam(run, masked, picture):
    p, _, [saved] = run(init_images=[picture])
    assert inpainted(p, saved) is None
    p, _, [saved] = run(StableDiffusionProcessingTxt2Img)
    assert inpainted(p, saved) is None
    p, _, [saved] = masked(override_settings={"overlay_inpaint": False})  # nothing is put back, so that all has changed
    assert inpainted(p, saved) is None


def test_of_a_job_s_files_only_the_results_have_a_seam(masked):
    p, _, saved = masked(n_iter=2, override_settings={"return_mask": True, "return_mask_composite": True})
    shown = {picture.path.stem.partition("-")[2]: inpainted(p, picture) is not None for picture in saved}
    assert shown == {"1": True, "1-mask": False, "1-mask-composite": False, "2": True, "2-mask": False, "2-mask-composite": False,
                     "grid": False}


@pytest.mark.parametrize("how", WAYS)
def test_a_blended_picture_stands_beside_its_original(masked, journal, how):
    p, entry, [saved] = masked()
    before = saved.path.read_bytes()
    blended = save_blended(journal, entry, saved, inpainted(p, saved), how)
    assert blended.path == saved.path.with_name(f"{saved.path.stem}-blended.png") and saved.path.read_bytes() == before
    found, kept = journal.find(blended.path)
    assert (found.id, kept) == (entry.id, blended) and original_of(found, kept) == saved
    with Image.open(blended.path) as image:
        assert image.info["parameters"] == blended.infotext and RECEIPT not in image.info
        parts = inpainted(p, saved)
        beside = ((np.asarray(image) != parts.result).any(axis=-1) & (parts.mask == 0)).sum()
    said = parse(blended.infotext)[  # what it says of the picture before is whole
        "Seam blend"]
    assert parse(blended.infotext) == parse(saved.infotext) | {"Seam blend": said}
    assert said == ("Poisson" if how == "poisson" else f"soft edge, {beside} pixels outside the mask") and (beside > 0) == (how == "soft")
    assert inpainted(p, blended).seam.ratio <= inpainted(p, saved).seam.ratio + 0.1


def test_the_same_is_not_saved_twice(masked, journal):
    p, entry, [saved] = masked()
    first, again = (save_blended(journal, entry, saved, inpainted(p, saved), "soft") for _ in range(2))
    other = save_blended(journal, entry, saved, inpainted(p, saved), "poisson")
    assert first == again and other.path.stem == f"{saved.path.stem}-blended-1"
    assert len(journal.entry(entry.id).pictures) == 3
    journal.delete(first.id)
    assert save_blended(journal, entry, saved, inpainted(p, saved), "soft").path.exists()


def test_a_blended_picture_is_not_verified_as_what_its_request_gives(masked, journal):
    p, entry, [saved] = masked()
    assert read_claim(saved.path).receipt
    blended = save_blended(journal, entry, saved, inpainted(p, saved), "poisson")
    with pytest.raises(Unverifiable, match="^its seam was blended after it was made, so its request gives the picture before that$"):
        read_claim(blended.path)
    with Image.open(blended.path) as image:
        assert read_receipt(image) is None and way_of(image.info["parameters"]) == "Poisson"


def test_the_original_of_a_blended_picture_may_be_gone(masked, journal):
    p, entry, [saved] = masked()
    blended = save_blended(journal, entry, saved, inpainted(p, saved), "poisson")
    journal.delete(saved.id)
    assert original_of(journal.entry(entry.id), blended) is None
    assert journal.entry(entry.id).pictures == [blended]

"""Loopback: each picture is the source of the next."""

import pytest
from PIL import Image

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.infotext import parse
from pipeline.options import Options
from pipeline.processing import process_images
from pipeline.scripts.loopback import Loopback


def loopback(p_or_make, *args, **fields):
    return scripts.run(p_or_make(script_name="Loopback", script_args=[*args, "None"], **fields))


@pytest.mark.parametrize("curve, strengths", [
    ("Linear", [0.8, 0.6, 0.4]), ("Aggressive", [0.8, 0.51716, 0.4]), ("Lazy", [0.8, 0.68284, 0.4]),
])
def test_the_strength_goes_from_the_requests_to_the_final_one(curve, strengths):
    args = Loopback(3, 0.4, curve, "None")
    assert [args.strength(0.8, loop) for loop in range(3)] == pytest.approx(strengths, abs=1e-5)


def test_a_single_loop_keeps_the_strength():
    assert Loopback(1, 0.1, "Linear", "None").strength(0.8, 0) == 0.8


def test_the_second_picture_is_an_edit_of_the_first_with_the_next_seed(request_for):
    result = loopback(request_for, 2, 0.4, "Linear")
    first = process_images(request_for())
    second = process_images(request_for(init_images=first.images, denoising_strength=0.4, seed=2, inpainting_fill=1))
    assert [image.tobytes() for image in result.images[1:]] == [first.images[0].tobytes(), second.images[0].tobytes()]
    assert result.all_seeds == [1, 2]


def test_a_row_of_all_loops_comes_first(request_for):
    result = loopback(request_for, 3, 0.4, "Linear")
    assert [image.size for image in result.images] == [(192, 64), *[(64, 64)] * 3] and result.index_of_first_image == 1
    assert len(loopback(request_for, 3, 0.4, "Linear", options=Options(return_grid=False)).images) == 3
    assert len(loopback(request_for, 2, 0.4, "Linear", override_settings={"return_grid": False}).images) == 3


def test_of_several_batches_the_last_loops_are_given_and_the_seed_goes_on(watched):
    p = watched(script_name="Loopback", script_args=[2, 0.4, "Linear", "None"], n_iter=2, batch_size=2)
    result = scripts.run(p)
    assert p.progress.batches == [4] and p.progress.done == 4
    assert [image.size for image in result.images] == [(128, 64), (64, 64), (64, 64)]
    assert result.all_seeds == [2, 4]


def test_the_infotext_tells_the_script_and_each_picture_carries_its_own(request_for):
    result = loopback(request_for, 2, 0.4, "Linear")
    assert len(set(result.infotexts)) == 1
    params = parse(result.info)
    keys = ("Denoising strength", "Final denoising strength", "Denoising curve")
    assert [params[key] for key in keys] == ["0.6", "0.4", "Linear"]
    assert parse(result.images[2].info["parameters"])["Denoising strength"] == "0.4"


def test_colours_are_corrected_to_the_first_source_or_by_an_override_to_each_loop_s(request_for):
    correcting = {"override_settings": {"img2img_color_correction": True}}
    result, overridden = (loopback(request_for, 2, 0.4, "Linear", **how)
                          for how in ({"options": Options(img2img_color_correction=True)}, correcting))
    first = process_images(request_for(**correcting))
    again = request_for(init_images=first.images, denoising_strength=0.4, seed=2, inpainting_fill=1, **correcting)
    from_second = process_images(again)
    assert result.images[1].tobytes() == first.images[0].tobytes()
    assert result.images[2].tobytes() != from_second.images[0].tobytes() == overridden.images[2].tobytes()


@pytest.mark.parametrize("end, loops", [({"stop_after": 2}, 2), ({"interrupt_behind": 2}, 2), ({"interrupt_behind": 1}, 1)])
def test_only_whole_loops_are_given(watched, end, loops):
    p = watched(**end, script_name="Loopback", script_args=[4, 0.4, "Linear", "None"])
    result = scripts.run(p)
    assert result.interrupted and len(result.images) == loops + (loops > 1)  # and a grid of several


def test_a_picture_cannot_be_described(request_for):
    with pytest.raises(InvalidRequest, match='"CLIP" cannot describe pictures'):
        scripts.run(request_for(script_name="Loopback", script_args=[2, 0.4, "Linear", "CLIP"]))


def test_every_loops_infotext_tells_the_first_ones_masked_content(request_for):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    result = loopback(request_for, 2, 0.4, "Linear", mask=mask, inpainting_fill=0, n_iter=2)
    assert [parse(image.info["parameters"])["Masked content"] for image in result.images] == ["fill"] * 3


@pytest.mark.parametrize("batches", [1, 2])
def test_a_blank_mask_keeps_the_whole_picture_from_the_second_loop_on(request_for, batches):
    result = loopback(request_for, 2, 0.4, "Linear", mask=Image.new("L", (64, 64)), inpaint_full_res=True, n_iter=batches)
    first = process_images(request_for()).images[0].tobytes()
    assert [image.tobytes() == first for image in result.images[1:]] == [True, batches == 1]
    if batches == 2:  # where nothing is redone in either loop
        assert result.images[2].tobytes() == request_for().init_images[0].convert("RGB").tobytes()

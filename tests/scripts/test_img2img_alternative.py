"""img2img alternative test: the noise that leads back to the source."""

import numpy as np
import pytest

from pipeline import scripts
from pipeline.errors import InvalidRequest
from pipeline.infotext import parse
from pipeline.processing import process_images

TICKED = {"sampler": True, "prompts": True, "steps": True, "strength": True}


def alternative(make, prompt="a forest", decode_steps=20, cfg=1.0, randomness=0.0, adjust=False, fields={}, **ticks):
    ticks = TICKED | ticks
    args = ["", ticks["sampler"], ticks["prompts"], prompt, "", ticks["steps"], decode_steps, ticks["strength"], cfg, randomness,
            adjust]
    return scripts.run(make(script_name="img2img alternative test", script_args=args, cfg_scale=1, **fields))


def distance(image, other):
    return np.abs(np.asarray(image).astype(int) - np.asarray(other)).mean()


@pytest.mark.parametrize("adjust", [False, True])
def test_with_the_same_prompt_it_leads_back_to_the_source(request_for, picture, adjust):
    ordinary = process_images(request_for(steps=20, denoising_strength=1, cfg_scale=1)).images[0]
    assert distance(alternative(request_for, adjust=adjust).images[0], picture) < 0.5 * distance(ordinary, picture)


def test_the_ticked_fields_are_overridden(request_for):
    fields = {"sampler_name": "Euler a", "denoising_strength": 0.3, "steps": 3}
    params = parse(alternative(request_for, "an oak", 4, fields=fields).info)
    assert [params[key] for key in ("Prompt", "Sampler", "Steps", "Denoising strength")] == ["an oak", "Euler", "4", "1.0"]
    params = parse(alternative(request_for, "an oak", 4, fields=fields, **dict.fromkeys(TICKED, False)).info)
    assert [params[key] for key in ("Prompt", "Sampler", "Steps", "Denoising strength")] == ["a forest", "Euler a", "3", "0.3"]


def test_the_infotext_tells_how_the_noise_was_found(request_for):
    params = parse(alternative(request_for, "an oak", 3, cfg=1.5, randomness=0.25, adjust=True).info)
    assert [params[key] for key in ("Decode prompt", "Decode CFG scale", "Decode steps", "Randomness", "Sigma Adjustment")] == [
        "an oak", "1.5", "3", "0.25", "True"]


def test_only_randomness_brings_the_seed_in(request_for):
    def pixels(seed, randomness):
        return alternative(request_for, decode_steps=3, randomness=randomness, fields={"seed": seed}).images[0].tobytes()
    assert pixels(1, 0) == pixels(2, 0)
    assert pixels(1, 0.5) != pixels(2, 0.5)


def test_all_randomness_is_an_ordinary_edit_from_pure_noise(request_for):
    """1 leaves only the seed's noise, from which the source is taken away again, up to float32's rounding."""
    one, two = (np.asarray(alternative(request_for, decode_steps=3, randomness=1.0, fields={"init_images": [image]}).images[0], int)
                for image in (request_for().init_images[0], request_for().init_images[0].rotate(90)))
    assert abs(one - two).max() <= 1


def test_the_noise_is_found_once_for_all_batches(watched):
    p = watched(script_name="img2img alternative test", n_iter=2,
                script_args=["", True, True, "", "", True, 2, True, 1.0, 0.0, False])
    scripts.run(p)
    assert p.progress.batches == [3] and p.progress.done == 3


def test_models_with_several_text_encoders_are_refused(request_for, demo):
    class Two:
        info, text_encoders = demo.info, [None, None]
    with pytest.raises(InvalidRequest, match="needs a model with one text encoder"):
        alternative(request_for, fields={"sd_model": Two()})

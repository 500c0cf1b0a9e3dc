"""The same latents as diffusers' own pipelines from the same files, in float32 on the CPU."""

import diffusers
import pytest
import torch
from PIL import Image

from pipeline.families.cond import Cond, Encoding
from pipeline.geometry import Size
from tests.families import tiny

WIDTH, HEIGHT, STEPS = 64, 128, 4
PROMPT, NEGATIVE = "a red circle on a blue square", "blurry"
NOISE = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(1))
CLOSE = 1e-4


@pytest.fixture(scope="module")
def picture():
    return Image.effect_noise((WIDTH, HEIGHT), 60).convert("RGB")


@pytest.fixture(scope="module")
def pixels(picture):
    return diffusers.image_processor.VaeImageProcessor().preprocess(picture)


@pytest.fixture
def pipeline(checkpoint):
    """kind → diffusers' pipeline from the folder."""
    def open_folder(kind):
        made = getattr(diffusers, tiny.KINDS[kind].pipeline).from_pretrained(
            checkpoint(kind)[0], torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False)
        made.set_progress_bar_config(disable=True)
        return made
    return open_folder


def encode(family, *, negative=False):
    return family.encode_prompts([NEGATIVE if negative else PROMPT], Encoding(size=Size(WIDTH, HEIGHT), negative=negative))


def euler(family, sigmas, guided):
    """Latents after Euler's method over `sigmas`.

    guided: is handed the x0 estimate as a function of a Cond and an image cond, and gives the one to step to.
    """
    prediction = family.prediction(Size(WIDTH, HEIGHT))
    x = NOISE * ((sigmas[0] ** 2 + 1) ** 0.5 if sigmas[0] < 100 else sigmas[0])

    for sigma, after in zip(sigmas[:-1], sigmas[1:]):
        level = sigma[None]

        def denoised(cond: Cond, image_cond) -> torch.Tensor:
            output = family.denoise(prediction.scale_input(x, level), prediction.sigma_to_t(level), cond, image_cond)
            return prediction.to_denoised(output, x, level)

        x = x + (x - guided(denoised)) / sigma * (after - sigma)
    return x


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().mean() < CLOSE


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["folder", "file"])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sd2-v", "sdxl", "sdxl-v"])
def test_a_guided_run_ends_where_diffusers_ends(kind, layout, checkpoint, load, pipeline):
    theirs = pipeline(kind)
    expected = theirs(PROMPT, negative_prompt=NEGATIVE, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=5.0,
                      width=WIDTH, height=HEIGHT, output_type="latent").images
    family = load(checkpoint(kind)[layout == "file"])
    cond, uncond = encode(family), encode(family, negative=True)

    def guided(denoised):
        base = denoised(uncond, None)
        return base + 5.0 * (denoised(cond, None) - base)

    assert_close(euler(family, theirs.scheduler.sigmas, guided), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["sd1-inpainting", "sd2-inpainting", "sdxl-inpainting"])
def test_an_inpainting_run_ends_where_diffusers_ends(kind, checkpoint, load, pipeline, picture, pixels):
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[..., 32:96, 16:48] = 1
    theirs = pipeline(kind)
    expected = theirs(PROMPT, negative_prompt=NEGATIVE, image=picture, mask_image=mask, latents=NOISE.clone(), strength=1.0,
                      num_inference_steps=STEPS, guidance_scale=5.0, width=WIDTH, height=HEIGHT, output_type="latent").images
    family = load(checkpoint(kind)[1])
    image_cond = family.image_conditioning(pixels, NOISE, mask, mask_weight=1.0)
    cond, uncond = encode(family), encode(family, negative=True)

    def guided(denoised):
        base = denoised(uncond, image_cond)
        return base + 5.0 * (denoised(cond, image_cond) - base)

    assert_close(euler(family, theirs.scheduler.sigmas, guided), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["sd1-edit", "sd2-edit", "sdxl-edit"])
def test_an_edit_run_ends_where_diffusers_ends(kind, checkpoint, load, pipeline, picture, pixels):
    size = {"width": WIDTH, "height": HEIGHT} if kind == "sdxl-edit" else {}
    theirs = pipeline(kind)
    expected = theirs(PROMPT, negative_prompt=NEGATIVE, image=picture, latents=NOISE.clone(), num_inference_steps=STEPS,
                      guidance_scale=5.0, image_guidance_scale=1.5, output_type="latent", **size).images
    family = load(checkpoint(kind)[1])
    image_cond = family.image_conditioning(pixels, NOISE, None, mask_weight=1.0)
    cond, uncond = encode(family), encode(family, negative=True)

    def guided(denoised):
        nothing, image = denoised(uncond, torch.zeros_like(image_cond)), denoised(uncond, image_cond)
        return nothing + 5.0 * (denoised(cond, image_cond) - image) + 1.5 * (image - nothing)

    assert_close(euler(family, theirs.scheduler.sigmas, guided), expected)


@torch.inference_mode()
def test_the_refiner_answers_as_diffusers_does(checkpoint, load, pipeline, picture):
    theirs, family = pipeline("sdxl-refiner"), load(checkpoint("sdxl-refiner")[1])
    prompt, _, pooled, _ = theirs.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    size, crop = (HEIGHT, WIDTH), (0, 0)
    ids, _ = theirs._get_add_time_ids(size, crop, size, 6.0, 2.5, size, crop, size, dtype=torch.float32,
                                      text_encoder_projection_dim=tiny.WIDTH)
    expected = theirs.unet(NOISE, torch.tensor([300.0]), encoder_hidden_states=prompt,
                           added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample
    assert_close(family.denoise(NOISE, torch.tensor([300.0]), encode(family), None), expected)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_the_autoencoder_answers_as_diffusers_does(kind, checkpoint, load, pipeline, pixels):
    vae, family = pipeline(kind).vae, load(checkpoint(kind)[1])
    latent = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    assert (family.encode_image(pixels) - latent).abs().mean() < CLOSE
    assert (family.decode(latent) - vae.decode(latent / vae.config.scaling_factor).sample).abs().mean() < CLOSE


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "sdxl-refiner"])
def test_diffusers_reads_the_same_from_the_single_file(kind, checkpoint, load):
    folder, file = checkpoint(kind)
    for part, model in {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}.items():
        theirs = model.from_single_file(file, config=str(folder), subfolder=part, local_files_only=True, dtype=torch.float32)
        ours = load(file).modules[part].state_dict()
        assert ours.keys() == theirs.state_dict().keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())

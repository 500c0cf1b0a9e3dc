import json

import pytest
import torch

from pipeline import families
from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.families import placement
from pipeline.families.base import ModelInfo
from pipeline.families.cond import Cond
from pipeline.families.prediction import Eps, V, zero_terminal_snr
from pipeline.families.sd import scaled_linear_alphas

SD1 = {"_class_name": "StableDiffusionPipeline"}
ALPHAS = scaled_linear_alphas()
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    def make(index=SD1, **files):
        contents = {"model_index.json": index if isinstance(index, bytes) else json.dumps(index).encode(), **files}
        for name, content in contents.items():
            path = tmp_path / "my-model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "my-model"
    return make


def refusal(act, *args):
    with pytest.raises(ModelError) as error:
        act(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


# what a folder holds

def test_a_model_is_named_after_its_folder(folder):
    info = families.describe(folder())
    assert (info.name, info.path, info.native_size, info.family) == ("my-model", str(folder()), 512, "sd1")


def test_a_model_says_its_own_size(folder):
    assert families.describe(folder(**{"palimpsest.json": b'{"native_size": 64}'})).native_size == 64


def test_the_title_shows_the_hash():
    assert ModelInfo(name="demo", path="", hash="0123456789").title == "demo [0123456789]"
    assert ModelInfo(name="demo", path="").title == "demo"


@pytest.mark.parametrize("act", [families.describe, lambda path: families.load(path, placement.choose("cpu"))])
def test_a_folder_that_is_not_there_is_refused(act, tmp_path):
    assert refusal(act, tmp_path / "nowhere") == (
        f'model "{tmp_path / "nowhere"}" is not a diffusers folder: it has no model_index.json')


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    assert '"model.ckpt" is a pickle' in refusal(families.describe, tmp_path / "model.ckpt")


@pytest.mark.parametrize("index", [b'{"_class', b"", b"\xff\xfe", b"[]", b"null", b'"StableDiffusion"'])
def test_a_corrupt_index_is_refused_by_its_name(index, folder):
    path = folder(index)
    assert refusal(families.describe, path).startswith('"my-model/model_index.json" cannot be read: ')


def test_a_corrupt_note_of_our_own_is_refused_by_its_name(folder):
    path = folder(**{"palimpsest.json": b"[64]"})
    assert refusal(families.describe, path).startswith('"my-model/palimpsest.json" cannot be read: ')


@pytest.mark.parametrize("index, name", [
    ({"_class_name": "PixArtSigmaPipeline"}, "PixArtSigmaPipeline"),
    ({"_class_name": None}, "model without a _class_name"),
    ({"_class_name": ["x"]}, "['x']"),
    ({}, "model without a _class_name"),
])
def test_a_model_of_another_class_is_refused_by_its_name(index, name, folder):
    assert refusal(families.describe, folder(index)) == f'model "{folder(index)}" is a {name}, which is not supported'


def test_a_folder_with_no_networks_is_refused(folder):
    assert refusal(families.load, folder(), placement.choose("cpu")) == (
        '"my-model" is not a complete checkpoint: it lacks the unet and the vae and the text_encoder')


def test_a_damaged_part_is_refused_with_its_name(folder):
    path = folder(**{"unet/config.json": b"{"})
    message = refusal(families.load, path, placement.choose("cpu"))
    assert message.startswith('"unet/config.json" cannot be read: ')


# placement

def test_a_placement_is_what_was_asked_for():
    place = placement.choose("cpu", "bfloat16")
    assert (place.device, place.dtype, place.vae_dtype) == (CPU, torch.bfloat16, torch.bfloat16)


def test_the_autoencoder_never_runs_in_float16():
    place = placement.choose("cpu", "float16")
    assert (place.dtype, place.vae_dtype) == (torch.float16, torch.float32)


def test_automatic_precision_is_never_float16_on_a_cpu():
    assert placement.choose("cpu").dtype in (torch.float32, torch.bfloat16)


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(UnknownName) as error:
        placement.choose("cpu", "fp16")
    assert str(error.value) == 'precision: no precision called "fp16"; did you mean "float16"?'


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "hpu", ""])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(InvalidRequest) as error:
        placement.choose(device)
    assert error.value.field == "device"
    assert str(error.value) == (f'device "{device}" cannot be used on this machine; '
                                "valid: auto, cpu, cuda, cuda:N, mps if present")


# noise levels

def test_the_alphas_are_those_of_sd1():
    assert ALPHAS.dtype == torch.float32
    assert ALPHAS[[0, 500, 999]].tolist() == pytest.approx([0.99915, 0.27633268, 0.0046601], abs=5e-8)


def test_the_sigmas_are_those_of_sd1():
    sigmas = Eps(ALPHAS).sigmas
    # as A1111 has them: in float64 the lowest is 0.0291672
    assert [sigmas[0].item(), sigmas[-1].item()] == pytest.approx([0.0291675, 14.6146412], rel=2e-6)
    assert (sigmas.diff() > 0).all()


@pytest.mark.parametrize("prediction", [Eps(ALPHAS), V(ALPHAS)])
def test_a_training_sigma_is_its_timestep(prediction):
    assert torch.allclose(prediction.sigma_to_t(prediction.sigmas), torch.arange(1000.0), atol=1e-3)
    assert torch.allclose(prediction.t_to_sigma(torch.arange(1000)), prediction.sigmas)


def test_sigmas_between_timesteps_return():
    sigmas = torch.linspace(0.03, 14.6, 200)
    prediction = Eps(ALPHAS)
    assert torch.allclose(prediction.t_to_sigma(prediction.sigma_to_t(sigmas)), sigmas, rtol=1e-4)


def test_half_way_between_timesteps_is_the_geometric_mean():
    prediction = Eps(ALPHAS)
    between = prediction.t_to_sigma(torch.tensor(300.5))
    assert between.item() == pytest.approx((prediction.sigmas[300] * prediction.sigmas[301]).sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("sigma, t", [(0.001, 0.0), (100.0, 999.0)])
def test_sigmas_out_of_range_are_the_ends(sigma, t):
    assert Eps(ALPHAS).sigma_to_t(torch.tensor([sigma])).tolist() == [t]


def test_timesteps_keep_the_shape_of_the_sigmas():
    assert Eps(ALPHAS).sigma_to_t(torch.ones(3)).shape == (3,)
    assert Eps(ALPHAS).sigma_to_t(torch.tensor(1.0)).shape == ()


def test_a_schedule_stretched_to_zero_snr_keeps_its_start_and_ends_in_noise():
    stretched = zero_terminal_snr(ALPHAS)
    assert stretched[0].item() == pytest.approx(ALPHAS[0].item(), rel=1e-5)
    assert Eps(stretched).sigmas[-1].item() == pytest.approx(4518.76, rel=1e-4)
    assert (Eps(stretched).sigmas.diff() > 0).all()
    assert ALPHAS[-1].item() == pytest.approx(0.0046601, abs=5e-8)


# predictions

DATA, NOISE = torch.randn(2, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.7, 9.0])


def column(values):
    return values.reshape(-1, 1, 1, 1)


def test_the_true_noise_denoises_to_the_data():
    x = DATA + NOISE * column(SIGMA)
    assert torch.allclose(Eps(ALPHAS).to_denoised(NOISE, x, SIGMA), DATA, atol=1e-5)


def test_the_true_velocity_denoises_to_the_data():
    x = DATA + NOISE * column(SIGMA)
    alpha, noise_share = 1 / (SIGMA**2 + 1).sqrt(), SIGMA / (SIGMA**2 + 1).sqrt()
    velocity = column(alpha) * NOISE - column(noise_share) * DATA
    assert torch.allclose(V(ALPHAS).to_denoised(velocity, x, SIGMA), DATA, atol=1e-5)


def test_eps_is_the_noise_itself():
    assert Eps(ALPHAS).to_eps(NOISE, DATA, torch.tensor([3, 900])) is NOISE


def test_the_true_velocity_gives_the_noise():
    t = torch.tensor([3, 900])
    alpha = column(ALPHAS[t])
    x = alpha.sqrt() * DATA + (1 - alpha).sqrt() * NOISE
    velocity = alpha.sqrt() * NOISE - (1 - alpha).sqrt() * DATA
    assert torch.allclose(V(ALPHAS).to_eps(velocity, x, t), NOISE, atol=1e-5)


@pytest.mark.parametrize("prediction", [Eps(ALPHAS), V(ALPHAS)])
def test_the_input_is_scaled_to_unit_variance(prediction):
    x = torch.stack([torch.ones(4, 3, 5) * (sigma**2 + 1).sqrt() for sigma in SIGMA])
    assert torch.allclose(prediction.scale_input(x, SIGMA), torch.ones(2, 4, 3, 5))


# conds

def test_a_cond_is_cut_and_joined_with_its_pooled_features():
    cond = Cond(torch.arange(6.0).reshape(3, 2, 1), {"pooled": torch.arange(3.0)[:, None]})
    joined = Cond.cat([cond[2:], cond[:1]])
    assert len(joined) == 2
    assert joined.tokens[..., 0].tolist() == [[4, 5], [0, 1]]
    assert joined.extra["pooled"].tolist() == [[2], [0]]


def test_a_cond_without_pooled_features_stays_without():
    cond = Cond(torch.zeros(2, 77, 8))
    assert Cond.cat([cond[:1], cond]).extra == {}

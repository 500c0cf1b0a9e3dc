import pytest
import torch

from pipeline.errors import InvalidRequest
from pipeline.samplers.timesteps import ddim_timesteps, sample_ddim, sample_plms

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float()
TIMESTEPS = torch.tensor([1, 201, 401, 601])
X = torch.tensor([[[[1.5]]], [[[-0.5]]]])


def model(x, t):
    return 0.3 * x + (t / 1000).reshape(-1, 1, 1, 1)


def ddim(x=X, timesteps=TIMESTEPS, *, model=model, noise=0.0, **options):
    return sample_ddim(model, x, timesteps, alphas_cumprod=ALPHAS, noise_sampler=lambda t, t_prev: noise, **options)


def step_by_hand(x, t, t_prev, eta, noise):
    """Equation 12 of Song et al. (2021), in float64."""
    alpha, alpha_prev = ALPHAS[t].double(), ALPHAS[t_prev].double()
    eps = model(x, torch.full((len(x),), t))
    sigma = eta * ((1 - alpha_prev) / (1 - alpha)).sqrt() * (1 - alpha / alpha_prev).sqrt()
    predicted_x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_prev.sqrt() * predicted_x0 + (1 - alpha_prev - sigma**2).sqrt() * eps + sigma * noise


def test_twenty_steps_are_every_fiftieth_timestep_from_1():
    assert ddim_timesteps(20).tolist() == list(range(1, 1000, 50))


@pytest.mark.parametrize("steps, count", [(1, 1), (15, 16), (24, 25), (30, 31), (60, 63), (75, 77), (150, 167)])
def test_a_count_that_does_not_divide_1000_gets_more_timesteps(steps, count):
    assert len(ddim_timesteps(steps)) == count


def test_the_last_timestep_exists():
    assert ddim_timesteps(1000)[-1] == 999


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_is_the_formula_of_the_paper(eta):
    expected = X.double()
    for t, t_prev in [(601, 401), (401, 201), (201, 1)]:
        expected = step_by_hand(expected, t, t_prev, eta, noise=0.7)
    assert torch.allclose(ddim(eta=eta, noise=0.7).double(), expected, atol=1e-6)


def test_an_exact_eps_lands_on_the_data_at_the_first_timestep():
    data, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)

    def noised(t):
        return ALPHAS[t].sqrt() * data + (1 - ALPHAS[t]).sqrt() * noise

    assert torch.allclose(ddim(noised(601), model=lambda x, t: noise), noised(1), atol=1e-5)


def test_the_model_is_asked_once_per_image_at_every_timestep_but_the_first():
    asked = []
    ddim(model=lambda x, t: asked.append(t.tolist()) or x)
    assert asked == [[601, 601], [401, 401], [201, 201]]


@pytest.mark.parametrize("timesteps", [[], [1]])
def test_fewer_than_two_timesteps_leave_the_latent(timesteps):
    assert torch.equal(ddim(timesteps=torch.tensor(timesteps, dtype=torch.long)), X)


def test_noise_is_drawn_every_step_even_without_eta():
    draws = []
    sample_ddim(model, X, TIMESTEPS, alphas_cumprod=ALPHAS, noise_sampler=lambda *ts: draws.append(ts) or 0.0)
    assert [(t.item(), t_prev.item()) for t, t_prev in draws] == [(601, 401), (401, 201), (201, 1)]


def test_callback_gets_the_predicted_picture_of_each_step():
    seen = {}
    ddim(callback=seen.__setitem__)
    eps = model(X, torch.full((2,), 601.0))
    assert list(seen) == [0, 1, 2]
    assert torch.allclose(seen[0], (X - (1 - ALPHAS[601]).sqrt() * eps) / ALPHAS[601].sqrt())


def test_eta_above_1_is_refused():
    with pytest.raises(InvalidRequest, match="eta must be between 0 and 1 for DDIM, got 1.5"):
        ddim(eta=1.5)


# CFG++

def test_cfgpp_goes_on_along_the_negative_prompt_s_noise():
    t, t_prev, uncond = 201, 1, torch.full_like(X, 0.25)
    result = ddim(timesteps=torch.tensor([t_prev, t]), uncond_eps=lambda: uncond)
    predicted_x0 = (X - (1 - ALPHAS[t]).sqrt() * model(X, torch.full((2,), t))) / ALPHAS[t].sqrt()
    assert torch.allclose(result, ALPHAS[t_prev].sqrt() * predicted_x0 + (1 - ALPHAS[t_prev]).sqrt() * uncond, atol=1e-6)


# PLMS

def plms(x=X, timesteps=TIMESTEPS, *, model=model, **options):
    return sample_plms(model, x, timesteps, alphas_cumprod=ALPHAS, **options)


def ddim_step(x, eps, t, t_prev):
    predicted_x0 = (x - (1 - ALPHAS[t]).sqrt() * eps) / ALPHAS[t].sqrt()
    return ALPHAS[t_prev].sqrt() * predicted_x0 + (1 - ALPHAS[t_prev]).sqrt() * eps


def test_plms_extrapolates_the_noise_of_up_to_four_calls():
    timesteps, eps = [801, 601, 401, 201, 1, 0], iter([5.0, 6.0, 7.5, 9.0, 8.0, 4.0])  # 6: the first step's second call
    extrapolated = [(5.0 + 6.0) / 2, (3 * 7.5 - 5.0) / 2, (23 * 9.0 - 16 * 7.5 + 5 * 5.0) / 12,
                    (55 * 8.0 - 59 * 9.0 + 37 * 7.5 - 9 * 5.0) / 24, (55 * 4.0 - 59 * 8.0 + 37 * 9.0 - 9 * 7.5) / 24]
    expected = X
    for e, t, t_prev in zip(extrapolated, timesteps, timesteps[1:]):
        expected = ddim_step(expected, torch.full_like(X, e), t, t_prev)
    result = plms(timesteps=torch.tensor(timesteps).flip(0), model=lambda x, t: torch.full_like(x, next(eps)))
    assert torch.allclose(result, expected, atol=1e-4)


def test_plms_asks_twice_in_its_first_step():
    asked = []
    plms(model=lambda x, t: asked.append(t[0].item()) or model(x, t))
    assert asked == [601, 401, 401, 201]


@pytest.mark.parametrize("timesteps", [[], [1]])
def test_plms_leaves_the_latent_where_there_is_no_way_to_go(timesteps):
    assert torch.equal(plms(timesteps=torch.tensor(timesteps, dtype=torch.long)), X)


def test_plms_lands_on_the_data_with_an_exact_eps():
    data, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)

    def noised(t):
        return ALPHAS[t].sqrt() * data + (1 - ALPHAS[t]).sqrt() * noise

    assert torch.allclose(plms(noised(601), model=lambda x, t: noise), noised(1), atol=1e-5)

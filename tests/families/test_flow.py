"""Flow matching in the solvers' coordinates, against what is known in closed form.

For standard normal data, x_t = t * noise + (1 - t) * x0 has the variance t^2 + (1 - t)^2, the ideal velocity is linear in
it, and the straight way down the flow scales it by the root of that variance.
"""

from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import InvalidRequest
from pipeline.families.prediction import Flow
from pipeline.geometry import Size
from pipeline.options import Options
from pipeline.samplers import SAMPLERS, create_sampler, solvers
from pipeline.samplers.schedules import SCHEDULES

FIRST, LAST = 0.95, 0.05
NOISELESS = ("sample_dpmpp_2m", "sample_lms")


def ideal_velocity(x_t, t):
    """E[noise - x0 | x_t] for standard normal data."""
    return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x_t


def error(solver, steps, shift=1.0):
    """How far a solver ends from the exact solution, going from t = 0.95 to 0.05 in even steps of log sigma."""
    flow = Flow(shift)

    def model(z, sigma):
        shown = flow.scale_input(z, sigma)
        return flow.to_denoised(ideal_velocity(shown, flow.time(sigma)[:, None]), z, sigma)

    ends = torch.tensor([FIRST, LAST], dtype=torch.float64)
    high, low = (ends / (1 - ends)).log()
    sigmas = torch.linspace(high, low, steps + 1, dtype=torch.float64).exp()
    extra = {} if solver in NOISELESS else {"noise_sampler": lambda *_: torch.zeros(())}
    z = getattr(solvers, solver)(model, torch.full((1, 1), 3 / (1 - FIRST), dtype=torch.float64), sigmas, **extra)
    variance = [t**2 + (1 - t) ** 2 for t in (FIRST, LAST)]
    return abs(z.item() * (1 - LAST) - 3 * (variance[1] / variance[0]) ** 0.5)


@pytest.mark.parametrize("solver, order", [
    ("sample_euler", 1), ("sample_heun", 2), ("sample_dpm_2", 2), ("sample_dpmpp_2m", 2)])
def test_errors_fall_at_the_solver_s_rate(solver, order):
    rates = [error(solver, steps) / error(solver, 2 * steps) for steps in (40, 80)]
    assert all(0.85 * 2**order < rate < 1.25 * 2**order for rate in rates), rates


def test_euler_in_sigma_coordinates_steps_as_euler_along_the_straight_path():
    flow, times = Flow(), torch.tensor([0.9, 0.7, 0.4, 0.2, 0.0], dtype=torch.float64)
    x = start = torch.tensor([[1.3]], dtype=torch.float64)
    for t, t_next in zip(times, times[1:]):
        x = x + (t_next - t) * torch.sin(2 * x + t)  # any network
    z = solvers.sample_euler(lambda z, sigma: flow.to_denoised(torch.sin(2 * flow.scale_input(z, sigma) + flow.time(sigma)), z, sigma),
                             start / (1 - times[0]), times / (1 - times), noise_sampler=lambda *_: torch.zeros(()))
    assert z.item() == pytest.approx(x.item(), abs=1e-10)


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0])
def test_t_and_sigma_lead_to_each_other(shift):
    flow, t = Flow(shift), torch.tensor([0.001, 0.2, 0.5, 0.9, 0.999])
    torch.testing.assert_close(flow.sigma_to_t(flow.t_to_sigma(t)), t)


def test_the_shift_moves_the_network_s_time_as_published():
    t, shift = torch.tensor([0.1, 0.5, 0.9]), 3.0
    flow = Flow(shift)
    torch.testing.assert_close(flow.time(flow.t_to_sigma(t)), shift * t / (1 + (shift - 1) * t))


def test_the_network_is_shown_the_latent_it_was_trained_on():
    flow, noise, x0 = Flow(), torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    sigma = torch.tensor([3.0])
    torch.testing.assert_close(flow.scale_input(x0 + sigma * noise, sigma), 0.75 * noise + 0.25 * x0)
    torch.testing.assert_close(flow.to_denoised(noise - x0, x0 + sigma * noise, sigma), x0)


def test_pure_noise_has_a_finite_level():
    assert Flow().t_to_sigma(torch.tensor(1.0)).item() == pytest.approx(9999, rel=1e-3)


def test_how_far_a_sampling_is_is_told_by_the_network_s_time():
    assert Flow().completed(torch.tensor([3.0, 1.0])) == pytest.approx(0.25)


@pytest.mark.parametrize("name", [name for name, schedule in SCHEDULES.items() if schedule.sigmas is not None])
def test_every_schedule_descends_over_a_flow_s_levels(name):
    flow = Flow(3.0)
    sigmas = SCHEDULES[name].sigmas(8, flow.sigmas[0].item(), flow.sigmas[-1].item(), prediction=flow)
    assert torch.isfinite(sigmas).all() and (sigmas.diff() < 0).all() and sigmas[0] <= flow.sigmas[-1] * (1 + 1e-3)  # rounded: KL Optimal takes a tangent near 90 degrees


def test_simple_has_the_levels_of_the_flow_models_own_pipelines():
    """They space t evenly from 1 to 1/n and shift it."""
    t = torch.linspace(1, 1 / 8, 8).clamp(max=1 - 1e-4)
    expected = 3 * t / (1 - t)
    torch.testing.assert_close(SCHEDULES["simple"].sigmas(8, 0, 0, prediction=Flow(3.0))[:-1], expected, rtol=1e-3, atol=0)


def test_beta_spreads_its_levels_over_time_not_over_sigma():
    """As the paper, ComfyUI and Forge do: by the distribution's quantiles, most steps at both ends."""
    times = Flow(3.0).sigma_to_t(SCHEDULES["beta"].sigmas(8, 0, 0, prediction=Flow(3.0))[:-1])
    assert times[0] > 0.999 and times[4].item() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(times[1:] + times[1:].flip(0), torch.ones(7), atol=2e-3, rtol=0)


@pytest.mark.parametrize("scheduler", ["Simple", "Beta", "Normal", "SGM Uniform"])
@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_the_strength_may_be_the_first_noise_level(scheduler, strength):
    """Otherwise a strength of 0.6 starts at four fifths noise with this shift."""
    p = SimpleNamespace(options=Options(strength_as_noise=True), denoising_strength=strength, scheduler=scheduler, extra_generation_params={})
    sampler = create_sampler("Euler", Family(), p.options, Size(64, 64))
    sampler.prediction = Flow(6.0)
    levels = sampler._from_noise_level(p, 5)
    times = levels / (1 + levels)
    assert times[0].item() == pytest.approx(min(strength, 1 - 1e-4)) and (levels.diff() < 0).all() and len(levels) == 6 and levels[-1] == 0
    assert p.extra_generation_params["Strength as noise"] is True


def test_a_request_may_choose_the_shift():
    assert create_sampler("Euler", Family(), Options(flow_shift=4.0), Size(64, 64)).prediction.shift == 4.0


# what only networks with training timesteps can do

class Family(SimpleNamespace):
    name, info = "flow", SimpleNamespace(name="some-flow")

    def prediction(self, size):
        return Flow()


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_that_count_timesteps_are_refused_in_a_sentence(name):
    if name not in ("DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM"):
        assert create_sampler(name, Family(), Options(), Size(64, 64)).prediction.steps is None
        return
    with pytest.raises(InvalidRequest) as refusal:
        create_sampler(name, Family(), Options(), Size(64, 64))
    assert str(refusal.value) == (f'sampler_name: {name} needs discrete training timesteps, and "some-flow" has none; '
                                  "use Euler, for example")


def test_the_options_for_timesteps_leave_a_flow_as_it_is():
    flow = Flow()
    assert flow.altered(downcast=True, zero_snr=True, quantize=True) is flow

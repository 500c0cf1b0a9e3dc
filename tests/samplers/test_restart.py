"""The path of the Restart sampler, and its noise."""

import math

import pytest
import torch

from pipeline.samplers.restart import restart_steps, sample_restart
from pipeline.samplers.schedules import karras
from pipeline.samplers.solvers import sample_heun


def gaussian(x, sigma):
    """The ideal denoiser of standard normal data."""
    return x / (sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2 + 1)


def schedule(steps):
    return karras(steps, 0.03, 14.6)


def jumps(steps):
    """The (end, start) pairs where a step starts above the end of the one before."""
    path = restart_steps(schedule(steps))
    return [(end.item(), start.item()) for (_, end), (start, _) in zip(path, path[1:]) if start > end]


@pytest.mark.parametrize("steps", [1, 2, 19])
def test_below_20_steps_it_is_heun_without_noise(steps):
    x = torch.full((1, 1), 9.0)
    result = sample_restart(gaussian, x, schedule(steps), noise_sampler=None)
    assert torch.equal(result, sample_heun(gaussian, x, schedule(steps)))


@pytest.mark.parametrize("steps, restarts", [(20, 1), (35, 1), (36, 2), (60, 2)])
def test_restarts_go_from_about_0_1_back_to_about_2(steps, restarts):
    assert len(jumps(steps)) == restarts
    for low, high in jumps(steps):
        assert 0.05 < low < 0.2 and 1.3 < high < 3


@pytest.mark.parametrize("steps", [20, 35, 36, 61])
def test_restarts_take_their_steps_from_the_others(steps):
    path = restart_steps(schedule(steps))
    assert len(path) == steps
    assert (path[0][0].item(), path[-1][1].item()) == (pytest.approx(14.6, rel=1e-5), 0)


def test_from_20_steps_on_the_schedule_is_karras_whatever_was_asked_for():
    other = torch.linspace(14.6, 0.03, 25).tolist() + [0.0]
    assert [[end.item() for end in step] for step in restart_steps(torch.tensor(other))] == [
        [pytest.approx(end.item(), rel=1e-5) for end in step] for step in restart_steps(schedule(25))]


@pytest.mark.parametrize("high, low", [(0.09, 0.02), (1.5, 0.6)])
def test_a_schedule_that_does_not_pass_both_levels_is_walked_without_gaps(high, low):
    path = restart_steps(karras(24, low, high))
    assert path[0][0] > path[-1][0] and path[-1][1] == 0


def test_its_noise_leads_to_the_level_of_the_restart():
    asked = []
    x = torch.full((1, 1), 14.6)
    sample_restart(gaussian, x, schedule(40), noise_sampler=lambda *levels: asked.append(levels) or torch.zeros(()))
    assert [(low.item(), high.item()) for low, high in asked] == jumps(40)


def test_it_ends_with_the_variance_of_the_data():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((20000, 1), generator=generator) * 14.6
    result = sample_restart(gaussian, x, schedule(40), noise_sampler=lambda *_: torch.randn(x.shape, generator=generator))
    assert result.std().item() == pytest.approx(1, abs=0.04)
    assert math.isfinite(result.sum())

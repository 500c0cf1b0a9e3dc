"""Guidance: how prompt and negative prompt are computed and combined, against a model whose output is known."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from pipeline.conditioning import Part
from pipeline.families.base import Cond
from pipeline.hooks import HookList, Hooks
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.samplers.denoiser import CFGDenoiser, combine

X = torch.zeros(1, 4, 2, 2)
SIGMA = torch.ones(1)


def cond(value, chunks=1):
    return Cond(torch.full((1, 77 * chunks, 3), float(value)))


@dataclass
class Model:
    """Gives the mean of what it is conditioned on; remembers (rows, tokens) of each call."""

    calls: list = field(default_factory=list)

    def __call__(self, x, sigma, cond, image_cond):
        self.calls.append((len(x), cond.crossattn.shape[1]))
        output = cond.crossattn.mean(dim=(1, 2)).reshape(-1, 1, 1, 1).expand(-1, *x.shape[1:])
        return output, output


def denoiser(model, parts, uncond, *, scale=7.0, mask=None, blend_before=False, calls=10, hooks=(), **options):
    p = SimpleNamespace(progress=Progress(), options=Options(**options), cfg_scale=scale, s_min_uncond=None,
                        mask=mask, nmask=None if mask is None else 1 - mask, scripts=HookList(hooks),
                        extra_generation_params={}, encoder=SimpleNamespace(empty=lambda: cond(0)))
    schedules = [[Part([(10, c)], weight) for c, weight in parts]]
    return CFGDenoiser(p, None, X + 5, schedules, [[(10, uncond)]], X.new_zeros(1, 5, 1, 1), model=model,
                       blend_before=blend_before, calls=calls)


def test_guidance_goes_from_the_negative_prompt_past_the_prompt():
    assert denoiser(Model(), [(cond(3), 1.0)], cond(1))(X, SIGMA).unique().item() == 1 + 7 * (3 - 1)


def test_scale_1_is_the_prompt_alone():
    assert denoiser(Model(), [(cond(3), 1.0)], cond(1), scale=1.0)(X, SIGMA).unique().item() == 3


def test_prompts_joined_by_and_add_up_by_their_weights():
    result = denoiser(Model(), [(cond(3), 1.0), (cond(2), -0.5)], cond(1), scale=2.0)(X, SIGMA)
    assert result.unique().item() == 1 + 2 * (3 - 1) - 0.5 * 2 * (2 - 1)


def test_prompt_and_negative_prompt_are_one_batch():
    model = Model()
    denoiser(model, [(cond(3), 1.0)], cond(1))(X, SIGMA)
    assert model.calls == [(2, 77)]


@pytest.mark.parametrize("chunks, options, calls", [
    (1, {"batch_cond_uncond": False}, [(1, 77), (1, 77)]),
    (2, {}, [(1, 77), (1, 154)]),
    (2, {"pad_cond_uncond": True}, [(2, 154)]),
    (2, {"pad_cond_uncond_v0": True}, [(2, 77)]),
])
def test_prompts_of_other_lengths_run_apart_unless_padded(chunks, options, calls):
    model = Model()
    denoiser(model, [(cond(3), 1.0)], cond(1, chunks), **options)(X, SIGMA)
    assert model.calls == calls


def test_padding_happens_also_where_the_negative_prompt_is_skipped():
    model = Model()
    denoiser(model, [(cond(3), 1.0)], cond(1, 2), pad_cond_uncond=True, skip_early_cond=0.5)(X, SIGMA)
    assert model.calls == [(1, 154)]


def test_early_calls_do_without_the_negative_prompt_when_asked():
    model = Model()
    guided = denoiser(model, [(cond(3), 1.0)], cond(1), skip_early_cond=0.2)
    assert [guided(X, SIGMA).unique().item() for _ in range(4)] == [3, 3, 3, 15]
    assert guided.p.extra_generation_params == {"Skip Early CFG": 0.2}


@pytest.mark.parametrize("everywhere, expected", [(False, [15, 3, 15, 3]), (True, [3, 3, 3, 3])])
def test_ngms_skips_the_negative_prompt_below_its_sigma(everywhere, expected):
    guided = denoiser(Model(), [(cond(3), 1.0)], cond(1), s_min_uncond=2.0, s_min_uncond_all=everywhere)
    assert [guided(X, SIGMA).unique().item() for _ in range(4)] == expected
    above = denoiser(Model(), [(cond(3), 1.0)], cond(1), s_min_uncond=0.5, s_min_uncond_all=everywhere)
    assert [above(X, SIGMA).unique().item() for _ in range(2)] == [15, 15]


def test_the_init_latent_stays_where_the_mask_preserves():
    mask = torch.zeros(4, 2, 2)
    mask[:, 0] = 1
    result = denoiser(Model(), [(cond(3), 1.0)], cond(1), mask=mask)(X, SIGMA)
    assert result[:, :, 0].unique().item() == 5 and result[:, :, 1].unique().item() == 15


def test_a_timestep_sampler_blends_before_the_model_looks():
    class Look(Hooks):
        def on_mask_blend(self, p, mba):
            seen.append(mba.current_latent.unique().tolist())

    seen = []
    mask = torch.ones(4, 2, 2)
    result = denoiser(Model(), [(cond(3), 1.0)], cond(1), mask=mask, blend_before=True, hooks=[Look()])(X, SIGMA)
    assert seen == [[0.0]] and result.unique().item() == 15


def test_the_last_latent_is_the_prompts_own_estimate_unguided_and_unblended():
    guided = denoiser(Model(), [(cond(3), 1.0)], cond(1), mask=torch.ones(4, 2, 2))
    assert guided.last_latent.unique().item() == 5
    guided(X, SIGMA)
    assert guided.last_latent.unique().item() == 3


def test_combine_without_a_negative_prompt_gives_the_first_part():
    output = torch.tensor([3.0, 9.0]).reshape(2, 1, 1, 1)
    assert combine(output, [[(0, 1.0), (1, 0.0)]], None, 7.0).item() == 3

"""Guidance: how prompt and negative prompt are computed and combined, against a model whose output is known."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from pipeline.conditioning import Subprompt
from pipeline.errors import InvalidRequest
from pipeline.families.cond import Cond
from pipeline.hooks import HookList, Hooks
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.samplers.denoiser import CFGDenoiser, combine

X = torch.zeros(1, 4, 2, 2)
SIGMA = torch.ones(1)


def cond(value, chunks=1):
    return Cond(torch.full((1, 77 * chunks, 3), float(value)))


@dataclass(frozen=True)
class Encoder:
    """Encodes every positive prompt as 20 and every negative one as 10."""

    family: object
    networks: tuple = ()
    refiner_networks: tuple = ()

    @property
    def empty(self):
        return cond(0)

    def positive(self, prompts):
        return [[Subprompt([(10, cond(20))], 1.0)] for _ in prompts]

    def negative(self, prompts):
        return [[(10, cond(10))] for _ in prompts]


@dataclass
class Model:
    """Gives the mean of what it is conditioned on; remembers (rows, tokens) of each call."""

    calls: list = field(default_factory=list)

    def __call__(self, x, sigma, cond, image_cond):
        self.calls.append((len(x), cond.tokens.shape[1]))
        output = cond.tokens.mean(dim=(1, 2)).reshape(-1, 1, 1, 1).expand(-1, *x.shape[1:])
        return output, output


def denoiser(model, parts, uncond, *, scale=7.0, mask=None, blend_before=False, calls=10, hooks=(), edit_model=False,
             image_scale=None, uses_uncond=False, takes_negative_prompt=True, refiner=None, switch_at=None, **options):
    p = SimpleNamespace(progress=Progress(), options=Options(**options), image_cfg_scale=image_scale, s_min_uncond=None,
                        refiner=refiner, refiner_switch_at=switch_at, prompts=["p"], negative_prompts=["n"],
                        mask=mask, nmask=None if mask is None else 1 - mask, scripts=HookList(hooks),
                        extra_generation_params={}, encoder=Encoder(None), controls=None)
    schedules = [[Subprompt([(10, c)], weight) for c, weight in parts]]
    family = SimpleNamespace(sees="source" if edit_model else "nothing", takes_negative_prompt=takes_negative_prompt, model=model)
    return CFGDenoiser(p, family, X + 5, schedules, [[(10, uncond)]], torch.full((1, 5, 1, 1), 0.5), cfg_scale=scale,
                       model_of=lambda family: family.model, completed=lambda sigma: 1 - sigma[0].item(),
                       blend_before=blend_before, calls=calls, uses_uncond=uses_uncond)


def test_guidance_goes_from_the_negative_prompt_past_the_prompt():
    assert denoiser(Model(), [(cond(3), 1.0)], cond(1))(X, SIGMA).unique().item() == 1 + 7 * (3 - 1)


def test_scale_1_is_the_prompt_alone():
    assert denoiser(Model(), [(cond(3), 1.0)], cond(1), scale=1.0)(X, SIGMA).unique().item() == 3


@pytest.mark.parametrize("parts, options, rows", [
    ([(cond(3), 1.0)], {}, 1), ([(cond(3), 1.0)], {"uses_uncond": True}, 2), ([(cond(3), 0.5)], {}, 2),
    ([(cond(3), 1.0), (cond(2), 1.0)], {}, 3), ([(cond(3), 1.0)], {"scale": 1.5}, 2)])
def test_the_negative_prompt_is_not_asked_where_it_cannot_count(parts, options, rows):
    model = Model()
    denoiser(model, parts, cond(1), **{"scale": 1.0} | options)(X, SIGMA)
    assert model.calls == [(rows, 77)]


def test_a_network_without_guidance_is_not_asked_about_the_negative_prompt_at_any_scale():
    model = Model()
    assert denoiser(model, [(cond(3), 1.0)], cond(1), takes_negative_prompt=False)(X, SIGMA).unique().item() == 3
    assert model.calls == [(1, 77)]


def test_at_scale_1_an_edit_model_is_asked_for_what_its_source_means():
    model = EditModel()
    denoiser(model, [(cond(3), 1.0)], cond(1), scale=1.0, edit_model=True, image_scale=1.5)(X, SIGMA)
    assert model.calls == [(3, 77)]


def test_a_cfg_of_1_still_says_which_options_skip_the_negative_prompt():
    guided = denoiser(Model(), [(cond(3), 1.0)], cond(1), scale=1.0, skip_early_cond=0.2)
    guided(X, SIGMA)
    assert guided.p.extra_generation_params == {"Skip Early CFG": 0.2}


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


@pytest.mark.parametrize("start, stop, levels", [
    (0.0, 1.0, [0.0, 0.3, 0.6, 1.0]), (0.3, 1.0, [0.3, 0.6, 1.0]), (0.0, 0.5, [0.0, 0.3]), (0.2, 0.7, [0.3, 0.6])])
def test_guidance_can_be_limited_to_some_of_the_noise_levels(start, stop, levels):
    model = Model()
    guided = denoiser(model, [(cond(3), 1.0)], cond(1), guidance_start=start, guidance_stop=stop)
    done = [0.0, 0.3, 0.6, 1.0]
    for share in done:
        guided(X, torch.tensor([1 - share]))
    assert [share for share, (rows, _) in zip(done, model.calls) if rows == 2] == levels
    limits = {"Guidance start": start, "Guidance stop": stop}
    assert guided.p.extra_generation_params == (limits if len(levels) < 4 else {})


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


def test_combine_adds_the_parts_of_each_picture_by_their_weights():
    output, uncond = (torch.tensor(values).reshape(-1, 1, 1, 1) for values in ([3.0, 9.0, 4.0], [1.0, 2.0]))
    assert combine(output, [[(0, 1.0), (1, 0.5)], [(2, 1.0)]], uncond, 7.0).flatten().tolist() == [
        1 + 7 * (3 - 1) + 0.5 * 7 * (9 - 1), 2 + 7 * (4 - 2)]


@pytest.mark.parametrize("skips, uncond", [(0.0, 1), (1.0, 3)])
def test_the_last_uncond_is_the_negative_prompt_s_output_or_what_stands_in_for_it(skips, uncond):
    guided = denoiser(Model(), [(cond(3), 1.0)], cond(1), skip_early_cond=skips)
    guided(X, SIGMA)
    assert guided.last_uncond.unique().item() == uncond


@pytest.mark.parametrize("chunks, options, key", [
    (2, {"pad_cond_uncond": True}, "Pad conds"), (2, {"pad_cond_uncond_v0": True}, "Pad conds v0"),
    (2, {}, None), (1, {"pad_cond_uncond": True}, None),
])
def test_padding_is_noted_where_it_was_needed(chunks, options, key):
    guided = denoiser(Model(), [(cond(3), 1.0)], cond(1, chunks), **options)
    guided(X, SIGMA)
    assert guided.padding == key


# edit models

class EditModel(Model):
    """Adds what it is shown of the source, 0.5 or nothing, to what it is conditioned on."""

    def __call__(self, x, sigma, cond, image_cond):
        output, _ = super().__call__(x, sigma, cond, image_cond)
        return output + image_cond.mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1), output


def edit(parts=((cond(3), 1.0),), image_scale=1.5, **options):
    return denoiser(EditModel(), list(parts), cond(1), edit_model=True, image_scale=image_scale, **options)


def test_an_edit_model_is_guided_by_the_prompt_and_by_the_source():
    guided = edit()
    with_prompt, with_source, with_nothing = 3.5, 1.5, 1.0
    expected = with_nothing + 7 * (with_prompt - with_source) + 1.5 * (with_source - with_nothing)
    assert guided(X, SIGMA).unique().item() == expected
    assert guided.model.calls == [(3, 77)]
    assert guided.last_uncond.unique().item() == with_nothing


@pytest.mark.parametrize("image_scale", [None, 1.0, 1])
def test_without_image_guidance_an_edit_model_is_an_ordinary_one(image_scale):
    guided = edit(image_scale=image_scale)
    assert guided(X, SIGMA).unique().item() == 1.5 + 7 * (3.5 - 1.5)
    assert guided.model.calls == [(2, 77)]


def test_an_ordinary_model_does_not_look_at_image_cfg_scale():
    model = Model()
    denoiser(model, [(cond(3), 1.0)], cond(1), image_scale=1.5)(X, SIGMA)
    assert model.calls == [(2, 77)]


def test_ngms_does_not_act_on_image_guidance():
    guided = edit(s_min_uncond=2.0, s_min_uncond_all=True)
    guided(X, SIGMA)
    assert guided.model.calls == [(3, 77)]


def test_and_is_refused_with_image_guidance():
    with pytest.raises(InvalidRequest, match="^prompt: AND cannot be used with an InstructPix2Pix checkpoint"):
        edit([(cond(3), 1.0), (cond(2), 1.0)])
    edit([(cond(3), 1.0), (cond(2), 1.0)], image_scale=1.0)


# the refiner

def refined(switch_at, **options):
    family = SimpleNamespace(takes_negative_prompt=True, model=Model(), info=SimpleNamespace(title="fine [0123456789]"))
    return denoiser(Model(), [(cond(3), 1.0)], cond(1), refiner=family, switch_at=switch_at, **options)


def results(guided, sigmas=(1.0, 0.6, 0.5, 0.1)):
    return [guided(X, torch.tensor([sigma])).unique().item() for sigma in sigmas]


MAIN, REFINED = 1 + 7 * (3 - 1), 10 + 7 * (20 - 10)


@pytest.mark.parametrize("switch_at, expected", [
    (0.5, [MAIN, MAIN, REFINED, REFINED]), (None, [REFINED] * 4), (0.0, [REFINED] * 4), (0.95, [MAIN] * 4)])
def test_the_refiner_takes_over_with_its_own_prompts_at_its_share_of_the_noise_levels(switch_at, expected):
    guided = refined(switch_at)
    assert results(guided) == expected
    recorded = {"Refiner": "fine [0123456789]", "Refiner switch at": switch_at}
    assert guided.p.extra_generation_params == (recorded if REFINED in expected else {})


def test_the_refiner_can_take_over_at_a_share_of_the_calls():
    guided = refined(0.5, refiner_switch_by_sample_steps=True, calls=4)
    assert results(guided, [1.0] * 4) == [MAIN, MAIN, REFINED, REFINED]
    assert guided.p.extra_generation_params["Refiner switch by sampling steps"] is True


def test_the_family_that_sampling_ended_with_is_known():
    guided = refined(0.5)
    results(guided)
    assert guided.family is guided.p.refiner


@pytest.mark.parametrize("free, slices", [(None, [64, 16, 1]), (64 * 4 * 2 * 4 * 8192, [64, 16, 1]), (8 * 4 * 2 * 4 * 8192, [8] * 10 + [1]),
                                          (1, [1] * 81)])
def test_rows_that_and_makes_go_in_slices_that_the_memory_holds(free, slices):
    parts = [(cond(number), 0.01) for number in range(80)]
    whole, model = denoiser(Model(), parts[:2], cond(1)), Model()
    sliced = denoiser(model, parts, cond(1))
    sliced.p.free_memory = lambda device: free
    result = sliced(X, SIGMA)
    assert [rows for rows, _ in model.calls] == slices
    assert whole is not sliced and result.mean() == pytest.approx(1 + 7 * 0.01 * sum(number - 1 for number in range(80)), rel=1e-4)


def test_a_job_stops_between_two_slices():
    class Stopped(Exception):
        pass

    asked = []

    def checkpoint():
        asked.append(1)
        if len(asked) == 3:
            raise Stopped

    sliced = denoiser(model := Model(), [(cond(number), 0.01) for number in range(80)], cond(1))
    sliced.p.free_memory, sliced.p.progress.checkpoint = lambda device: 1, checkpoint
    with pytest.raises(Stopped):
        sliced(X, SIGMA)
    assert len(model.calls) == 1

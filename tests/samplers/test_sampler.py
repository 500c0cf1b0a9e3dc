"""From a request to a solver's run: which options act, and what infotext says of them."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from pipeline.conditioning import Subprompt
from pipeline.errors import InvalidRequest
from pipeline.families.cond import Cond
from pipeline.families.prediction import Eps, V
from pipeline.families.base import Calls
from pipeline.families.reuse import Reuse, Reused, Window
from pipeline.geometry import Size
from pipeline.hooks import HookList
from pipeline.kept import Kept
from pipeline.options import Options
from pipeline.progress import Progress
from pipeline.rng import ImageRNG
from pipeline.samplers import SAMPLERS, SCHEDULES, create_sampler
from pipeline.samplers.reuse import surroundings
from pipeline.samplers.sampler import altered, token_merging_ratio

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float()
SHAPE, PIXELS = (4, 2, 2), Size(16, 16)


class Family:
    """A network that takes a tenth of its input, and what it is conditioned on, for noise; remembers its timesteps."""

    name, sees, takes_negative_prompt, reused = "sd1", "nothing", True, 0

    def __init__(self, predicts=Eps(ALPHAS)):
        self.asked, self.merged, self.predicts = [], [], predicts

    def prediction(self, size):
        return self.predicts

    def denoise(self, x, t, cond, image_cond):
        self.asked.append(float(t[0]))
        return x * 0.1 + cond.tokens.mean(dim=(1, 2)).reshape(-1, 1, 1, 1)

    @contextmanager
    def merging_tokens(self, ratio):
        self.merged.append(ratio)
        yield

    @contextmanager
    def reusing(self, reuse):
        self.reuse = reuse
        yield Reused(calls=self.reused)

    def compiled(self, wanted):
        return nullcontext(Calls())


@dataclass(frozen=True)
class Encoder:
    """Encodes every prompt alike."""

    family: Family
    cond: Cond
    networks: tuple = ()
    refiner_networks: tuple = ()

    def positive(self, prompts):
        return [[Subprompt([(99, self.cond)], 1.0)] for _ in prompts]

    def negative(self, prompts):
        return [[(99, self.cond)] for _ in prompts]


def job(*, batch=1, steps=20, strength=0.5, overrides=(), **fields):
    settings = {
        "steps": steps, "denoising_strength": strength, "cfg_scale": 7.0, "image_cfg_scale": None, "scheduler": "Automatic",
        "eta": None, "s_churn": None, "s_tmin": None, "s_tmax": None, "s_noise": None, "s_min_uncond": None,
        "refiner": None, "refiner_switch_at": None, "prompts": ["p"] * batch, "negative_prompts": ["n"] * batch,
        "seeds": [1234 + i for i in range(batch)], "mask": None, "nmask": None, "options": Options(**dict(overrides)),
        "override_settings": dict(overrides), "scripts": HookList(), "progress": Progress(), "encoder": None,
        "extra_generation_params": {}, "controls": None, "kept": Kept()}
    p = SimpleNamespace(**settings | fields)
    p.rng = ImageRNG(SHAPE, p.seeds)
    return p


def sample(name, p, family=None, *, prompt=0.0):
    """The result of a whole run from a latent of zeros."""
    cond, uncond = Cond(torch.full((1, 77, 3), prompt)), Cond(torch.zeros(1, 77, 3))
    batch = len(p.seeds)
    x = torch.zeros(batch, *SHAPE)
    sampler = create_sampler(name, family or Family(), p.options, PIXELS)
    return sampler.sample_img2img(p, x, p.rng.next(), [[Subprompt([(99, cond)], 1.0)]] * batch, [[(99, uncond)]] * batch,
                                  image_conditioning=x.new_zeros(batch, 5, 1, 1))


def recorded(name, **settings):
    p = job(**settings)
    sample(name, p)
    return p.extra_generation_params


# every sampler

@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "DPM adaptive"])  # which looks at the whole batch
def test_a_batch_is_as_good_as_its_pictures_alone(name):
    together = sample(name, job(batch=2))
    alone = [sample(name, job(seeds=[seed])) for seed in (1234, 1235)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_result_depends_on_seed_and_prompt_and_on_nothing_else(name):
    result = sample(name, job())
    assert torch.equal(result, sample(name, job()))
    assert not torch.allclose(result, sample(name, job(seeds=[1])), atol=1e-3)
    assert not torch.allclose(result, sample(name, job(), prompt=0.1), atol=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("scheduler", ["Automatic", "Karras", "KL Optimal", "DDIM", "Beta"])
def test_every_sampler_ends_somewhere_with_every_kind_of_schedule(name, scheduler):
    assert sample(name, job(scheduler=scheduler, steps=24)).isfinite().all()


@pytest.mark.parametrize("name, calls", [
    ("Euler", 11), ("LMS", 11), ("LCM", 11), ("DPM fast", 11), ("DPM++ 3M SDE", 11), ("Heun", 21), ("DPM2", 21), ("DPM2 a", 21),
    ("DPM++ 2S a", 21), ("Restart", 21), ("DDIM", 9), ("DDIM CFG++", 9), ("PLMS", 10), ("UniPC", 10)])
def test_half_of_20_steps_makes_so_many_model_calls(name, calls):
    family = Family()
    sample(name, job(), family)
    assert len(family.asked) == calls


@pytest.mark.parametrize("row", SAMPLERS.values(), ids=lambda row: row.name)
def test_the_names_of_samplers_are_unlike_each_other(row):
    others = [name for other in SAMPLERS.values() if other is not row for name in (other.name, *other.aliases)]
    assert not {row.name, *row.aliases} & set(others)


# what infotext says

@pytest.mark.parametrize("name, settings, expected", [
    ("Euler", {}, {}),
    ("Euler a", {"overrides": {"eta_ancestral": 0.3}}, {"Eta": 0.3}),
    ("Euler a", {"eta": 0.5}, {"Eta": 0.5}),
    ("DPM fast", {"eta": 0.5}, {"Eta": 0.5}),
    ("DPM adaptive", {"eta": 0.5}, {"Eta": 0.5}),
    ("LMS", {"eta": 0.5}, {}),
    ("LCM", {"eta": 0.5}, {}),
    ("Restart", {"eta": 0.5}, {"Schedule type": "Karras"}),
    ("DDIM CFG++", {"eta": 1.0}, {"Eta DDIM": 1.0}),
    ("PLMS", {"eta": 1.0}, {}),
    ("UniPC", {"eta": 1.0, "overrides": {"uni_pc_variant": "bh2"}}, {}),
    ("DPM2", {"overrides": {"s_churn": 3.0}}, {"Schedule type": "Karras", "Sigma churn": 3.0}),
    ("DPM2 a", {"overrides": {"s_churn": 3.0, "s_noise": 0.9}}, {"Schedule type": "Karras", "Sigma noise": 0.9}),
    ("DPM adaptive", {"overrides": {"s_noise": 0.9}}, {}),
    ("Euler", {"scheduler": "Beta"}, {"Schedule type": "Beta", "Beta schedule alpha": 0.6, "Beta schedule beta": 0.6}),
    ("Euler", {"scheduler": "Polyexponential", "overrides": {"rho": 2.0}}, {
        "Schedule type": "Polyexponential", "Schedule rho": 2.0}),
    ("Euler", {"scheduler": "Karras", "overrides": {"sigma_min": 0.1, "use_old_karras_scheduler_sigmas": True}}, {
        "Schedule type": "Karras", "Schedule min sigma": 0.1}),
    ("Euler", {"overrides": {"sigma_min": 0.1, "rho": 2.0}}, {}),
    ("Euler", {"overrides": {"always_discard_next_to_last_sigma": True}}, {"Discard penultimate sigma": True}),
    ("DPM2", {"overrides": {"always_discard_next_to_last_sigma": True}}, {"Schedule type": "Karras"}),
    ("UniPC", {"overrides": {"img2img_extra_noise": 0.1}}, {"Extra noise": 0.1}),
    ("Euler", {"overrides": {"sgm_noise_multiplier": True}}, {}),
])
def test_infotext_says_what_is_unusual(name, settings, expected):
    assert recorded(name, **settings) == expected


# the noise schedule

def test_half_precision_noise_levels_are_computed_in_it():
    halved = altered(Eps(ALPHAS), Options(use_downcasted_alpha_bar=True))
    assert torch.equal(halved.sigmas, ((1 - ALPHAS.half()) / ALPHAS.half()) ** 0.5)
    assert isinstance(altered(V(ALPHAS), Options(use_downcasted_alpha_bar=True)), V)


def test_zero_terminal_snr_stretches_the_noise_levels():
    stretched = altered(Eps(ALPHAS), Options(sd_noise_schedule="Zero Terminal SNR"))
    assert stretched.sigmas[-1] > 4000 and stretched.sigmas[0].item() == pytest.approx(0.0292, abs=1e-4)


def test_quantization_asks_the_network_at_whole_timesteps():
    family = Family()
    sample("Euler", job(scheduler="Karras", overrides={"enable_quantization": True}), family)
    assert all(t == round(t) for t in family.asked)
    sample("Euler", job(scheduler="Karras"), family)
    assert any(t != round(t) for t in family.asked)


def test_without_options_the_network_s_own_schedule_is_used():
    assert torch.equal(altered(Eps(ALPHAS), Options()).sigmas, Eps(ALPHAS).sigmas)


def test_a_network_like_sdxl_has_its_own_table_of_align_your_steps():
    family = Family()
    family.name = "sdxl"
    p = job(scheduler="Align Your Steps")
    assert create_sampler("Euler", family, Options(), PIXELS).sigmas(p, 11)[1].item() == pytest.approx(6.315)
    assert create_sampler("Euler", Family(), Options(), PIXELS).sigmas(p, 11)[1].item() == pytest.approx(6.475)


# UniPC's options, noise for a whole batch, token merging

@pytest.mark.parametrize("overrides", [
    {"uni_pc_variant": "bh2"}, {"uni_pc_order": 2}, {"uni_pc_skip_type": "logSNR"}, {"uni_pc_lower_order_final": False}])
def test_unipc_s_options_change_its_result(overrides):
    assert not torch.equal(sample("UniPC", job(overrides=overrides)), sample("UniPC", job()))


@pytest.mark.parametrize("name", ["DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"])
def test_noise_for_a_whole_batch_makes_a_picture_depend_on_its_batch(name):
    overrides = {"no_dpmpp_sde_batch_determinism": True}
    together = sample(name, job(batch=2, overrides=overrides))
    alone = sample(name, job(seeds=[1234], overrides=overrides))
    assert not torch.allclose(together[:1], alone, atol=1e-3)
    assert torch.equal(together, sample(name, job(batch=2, overrides=overrides)))


@pytest.mark.parametrize("options, overrides, ratio", [
    ({}, {}, 0), ({"token_merging_ratio": 0.5}, {}, 0.5),
    ({"token_merging_ratio": 0.5, "token_merging_ratio_img2img": 0.3}, {}, 0.3),
    ({"token_merging_ratio": 0.5, "token_merging_ratio_img2img": 0.3}, {"token_merging_ratio": 0.5}, 0.5),
    ({"token_merging_ratio_img2img": 0.3}, {"token_merging_ratio": 0.0}, 0.3),
])
def test_the_ratio_of_merged_tokens_is_img2img_s_unless_the_request_says_otherwise(options, overrides, ratio):
    p = job(options=Options(**options), override_settings=overrides)
    assert token_merging_ratio(p) == ratio
    family = Family()
    sample("Euler", p, family)
    assert family.merged == [ratio]


# what is taken over from earlier calls

def masked(top, left, bottom, right):
    nmask = torch.zeros(4, 16, 24)
    nmask[:, top:bottom, left:right] = 0.5
    return nmask


@pytest.mark.parametrize("nmask, window", [
    (masked(5, 8, 9, 10), Window(4, 7, 10, 11)), (masked(0, 0, 4, 4), Window(0, 0, 5, 5)),
    (masked(12, 20, 16, 24), Window(11, 19, 16, 24)), (masked(0, 0, 16, 24), Window(0, 0, 16, 24))])
def test_a_mask_is_computed_with_a_cell_around_it(nmask, window):
    assert surroundings(nmask) == window


def planned(x=0.0, name="Euler", **settings):
    """What a network may take over in a sampling with a mask."""
    nmask = torch.zeros(SHAPE)
    nmask[:, :1, :1] = 1
    family, settings = Family(), {"nmask": nmask, "mask": 1 - nmask} | settings
    p = job(**settings)
    p.encoder = SimpleNamespace(networks=())
    latent, cond = torch.full((1, *SHAPE), x), Cond(torch.zeros(1, 77, 3))
    create_sampler(name, family, p.options, PIXELS).sample_img2img(
        p, latent, p.rng.next(), [[Subprompt([(99, cond)], 1.0)]], [[(99, cond)]], image_conditioning=latent.new_zeros(1, 5, 1, 1))
    return family.reuse


def test_by_default_nothing_is_taken_over():
    assert planned() == Reuse()


def test_step_caching_goes_as_the_options_say():
    assert planned(overrides={"step_cache_interval": 3, "step_cache_threshold": 0.2}) == Reuse(3, 0.2)


EDIT = {"overrides": {"edit_reuse": True}}


def test_an_edit_is_told_apart_by_its_picture_and_its_calls_and_not_by_prompt_or_seed():
    edit = planned(**EDIT).edit
    assert edit.key == planned(**EDIT, prompts=["q"], seeds=[99]).edit.key
    others = [planned(1.0, **EDIT), planned(name="DDIM", **EDIT), planned(**EDIT, steps=30), planned(**EDIT, strength=0.9)]
    assert len({edit.key, *(other.edit.key for other in others)}) == 5
    assert planned(**EDIT, mask=None, nmask=None).edit is None


def test_tokens_are_not_merged_where_an_edit_is_remembered():
    p = job(overrides={"edit_reuse": True, "token_merging_ratio": 0.5}, nmask=torch.ones(SHAPE), mask=torch.zeros(SHAPE))
    p.encoder, family = SimpleNamespace(networks=()), Family()
    sample("Euler", p, family)
    assert family.merged == [0.0] and token_merging_ratio(p) == 0.0


@pytest.mark.parametrize("reused, overrides, expected", [
    (3, {"step_cache_interval": 2}, {"Step cache interval": 2}), (0, {"step_cache_interval": 2}, {}),
    (3, {"step_cache_threshold": 0.1}, {"Step cache threshold": 0.1}),
    (3, {"edit_reuse": True, "step_cache_interval": 2}, {"Edit reuse": True}), (0, {"edit_reuse": True}, {})])
def test_infotext_says_what_was_taken_over_and_only_where_it_was(reused, overrides, expected):
    p, family = job(overrides=overrides, nmask=torch.ones(SHAPE), mask=torch.zeros(SHAPE)), Family()
    p.encoder, family.reused = SimpleNamespace(networks=()), reused
    sample("Euler", p, family)
    assert {name: value for name, value in p.extra_generation_params.items() if value} == expected


# refusals and ends

def test_a_schedule_with_fewer_levels_than_the_end_that_is_asked_for_is_refused():
    with pytest.raises(InvalidRequest, match="^steps: the schedule has only 999 of the 2000 steps"):
        sample("Euler", job(steps=20, strength=0.01, scheduler="DDIM", overrides={"img2img_fix_steps": True}))


def test_unipc_refuses_fewer_steps_than_its_order():
    with pytest.raises(InvalidRequest, match="^steps: UniPC of order 3"):
        sample("UniPC", job(steps=4))


def test_the_sampler_knows_which_family_it_ended_with():
    family, refiner = Family(), Family()
    refiner.info = SimpleNamespace(title="fine")
    cond = Cond(torch.zeros(1, 77, 3))

    p = job(refiner=refiner, refiner_switch_at=0.8)
    p.encoder = Encoder(family, cond)
    sampler = create_sampler("Euler", family, p.options, PIXELS)
    sampler.sample_img2img(p, torch.zeros(1, *SHAPE), p.rng.next(), p.encoder.positive(["p"]), p.encoder.negative(["n"]),
                           image_conditioning=torch.zeros(1, 5, 1, 1))
    assert sampler.final_family is refiner
    assert min(family.asked) > 199 >= max(refiner.asked)
    assert p.extra_generation_params == {"Refiner": "fine", "Refiner switch at": 0.8}


def test_a_fixed_number_of_steps_at_strength_0_gives_the_source_back():
    family = Family()
    source = sample("Euler", job(steps=4, strength=0.0, overrides={"img2img_fix_steps": True}), family)
    assert family.asked == [] and torch.equal(source, torch.zeros_like(source))
    noisy = job(steps=4, strength=0.0, overrides={"img2img_fix_steps": True, "img2img_extra_noise": 0.5})
    assert sample("Euler", noisy, family).any() and noisy.extra_generation_params == {"Extra noise": 0.5}
    with pytest.raises(InvalidRequest, match="denoising_strength must be at least"):
        sample("DDIM", job(steps=4, strength=0.0, overrides={"img2img_fix_steps": True}))


FIXED = {"img2img_fix_steps": True}


@pytest.mark.parametrize("name, schedule, level", [
    ("DPM2", "KL Optimal", 0.0291675), ("DPM2 a", "KL Optimal", 0.0291675), ("Euler", "KL Optimal", 0.0),
    ("DPM2", "Karras", 0.0), *[("Euler", schedule.label, 0.0) for schedule in SCHEDULES.values()]])
def test_a_fixed_number_of_steps_at_strength_0_leaves_the_schedules_only_level(name, schedule, level):
    p = job(steps=4, strength=0.0, scheduler=schedule, overrides=FIXED)
    noise = job().rng.next()
    assert torch.allclose(sample(name, p), noise * level, rtol=1e-4)


@pytest.mark.parametrize("name, changed, expected", [
    ("Euler a", {"eta_ancestral": 0.2, "s_noise": 0.95}, {"Eta": 0.2}),
    ("Heun", {"s_churn": 3.0, "s_noise": 0.95}, {"Sigma churn": 3.0, "Sigma noise": 0.95}),
    ("DPM++ SDE", {"eta_ancestral": 0.2}, {"Schedule type": "Karras", "Eta": 0.2})])
def test_a_fixed_number_of_steps_at_strength_0_still_tells_eta_and_churn(name, changed, expected):
    assert recorded(name, steps=4, strength=0.0, overrides=FIXED | changed) == expected

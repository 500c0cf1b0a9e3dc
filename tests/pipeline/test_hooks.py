import pytest
import torch

from pipeline.errors import Cancelled, HookError, Interrupted
from pipeline.hooks import HookList, Hooks, MaskBlendArgs

LATENT = torch.zeros(1, 4, 2, 2)


def blend(**more):
    return MaskBlendArgs(current_latent=LATENT, nmask=LATENT[0], init_latent=LATENT, mask=LATENT[0],
                         blended_latent=LATENT, **more)


class Adding(Hooks):
    """Adds its number to the end of what it is given, so that the order shows."""

    def __init__(self, amount):
        self.amount = amount

    def on_mask_blend(self, p, mba):
        mba.blended_latent = mba.blended_latent * 10 + self.amount


class Failing(Hooks):
    def __init__(self, error):
        self.error = error

    def on_mask_blend(self, p, mba):
        raise self.error

    process_before_every_sampling = on_mask_blend


def test_hooks_are_called_in_order():
    args = blend()
    HookList([Adding(1), Adding(2), Adding(3)]).on_mask_blend(None, args)
    assert torch.equal(args.blended_latent, torch.full_like(LATENT, 123))


def test_no_hooks_change_nothing():
    args = blend()
    HookList().on_mask_blend(None, args)
    assert args.blended_latent is LATENT


def test_a_hook_list_can_be_in_a_hook_list():
    args = blend()
    HookList([Adding(1), HookList([Adding(2)])]).on_mask_blend(None, args)
    assert torch.equal(args.blended_latent, torch.full_like(LATENT, 12))


def test_the_start_noise_can_be_changed_in_place():
    class Halving(Hooks):
        def process_before_every_sampling(self, p, *, x, noise, c, uc):
            assert (p, c, uc) == ("job", "cond", "uncond")
            noise *= 0.5

    noise = torch.ones(2)
    HookList([Halving()]).process_before_every_sampling("job", x=LATENT, noise=noise, c="cond", uc="uncond")
    assert torch.equal(noise, torch.full((2,), 0.5))


def test_a_plug_in_overrides_only_what_it_wants():
    HookList([Adding(1)]).process_before_every_sampling(None, x=LATENT, noise=LATENT, c=None, uc=None)


def test_a_failing_hook_is_named_with_its_plug_in():
    with pytest.raises(HookError) as error:
        HookList([Failing(ValueError("no such layer"))]).on_mask_blend(None, blend())
    assert str(error.value) == "hook on_mask_blend of Failing failed (ValueError); see the program's log"
    assert isinstance(error.value.__cause__, ValueError)


def test_a_wrong_signature_is_the_plug_in_s_failure():
    with pytest.raises(HookError, match=r"hook process_before_every_sampling of Failing failed \(TypeError\); see the program's log"):
        HookList([Failing(None)]).process_before_every_sampling(None, x=LATENT, noise=LATENT, c=None, uc=None)


def test_nothing_is_called_after_a_failure():
    args = blend()
    with pytest.raises(HookError):
        HookList([Failing(ValueError()), Adding(1)]).on_mask_blend(None, args)
    assert args.blended_latent is LATENT


@pytest.mark.parametrize("signal", [Interrupted, Cancelled])
def test_an_interruption_passes_through(signal):
    with pytest.raises(signal):
        HookList([Failing(signal())]).on_mask_blend(None, blend())


def test_only_the_blend_without_a_denoiser_is_final():
    assert blend().is_final_blend
    assert not blend(denoiser=object(), sigma=torch.ones(1)).is_final_blend

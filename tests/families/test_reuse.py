"""Step caching and edit-aware reuse: what is computed, that it is right where nothing has changed, and that nothing stays."""

from contextlib import contextmanager

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from pipeline.families import edit_reuse
from pipeline.families.edit_reuse import EditedUNet, Recording
from pipeline.families.reuse import Edit, Reused, Window
from pipeline.families.step_cache import StepCache

T = torch.tensor([500.0, 500.0])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, PROMPTS = noise(2, 4, 32, 32), noise(2, 7, 16, seed=1)


@pytest.fixture(scope="module", params=[1, 2])
def unet(request):
    """One layer or two in each block; attention in the inner ones."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(16, 32, 32), layers_per_block=request.param, norm_num_groups=8,
        cross_attention_dim=16, attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"))
    return network.requires_grad_(False).eval()


@contextmanager
def counting(unet, layer):
    """A list that grows with each call of a layer."""
    calls = []
    hook = layer(unet).register_forward_hook(lambda *_: calls.append(1))
    yield calls
    hook.remove()


def outer(unet):
    return unet.conv_out


def deep(unet):
    return unet.mid_block


def exact(unet, x, prompts=PROMPTS):
    return unet(x, T, encoder_hidden_states=prompts).sample


@pytest.mark.parametrize("interval, threshold, whole_calls", [
    (3, 0.0, 2), (2, 0.0, 3), (10, 0.0, 1), (1, 1.0, 1), (1, 1e-6, 6), (3, 1.0, 2), (3, 1e-6, 6)])
def test_so_many_of_six_calls_go_through_the_depth(unet, interval, threshold, whole_calls):
    reused = Reused()
    cache = StepCache(unet, interval, threshold, reused)
    with counting(unet, deep) as deep_calls, counting(unet, outer) as all_calls:
        for step in range(6):
            cache(X + 0.01 * step, T, encoder_hidden_states=PROMPTS)
    assert (len(deep_calls), len(all_calls), reused.calls) == (whole_calls, 6, 6 - whole_calls)


def test_a_call_like_the_one_before_gives_the_same(unet):
    cache = StepCache(unet, 2, 0.0, Reused())
    first, second = (cache(X, T, encoder_hidden_states=PROMPTS) for _ in range(2))
    assert torch.allclose(first, exact(unet, X), atol=1e-6)
    assert torch.allclose(second, first, atol=1e-5)


def test_what_changes_little_by_little_is_near_the_exact_answer_and_not_it(unet):
    cache = StepCache(unet, 2, 0.0, Reused())
    cache(X, T, encoder_hidden_states=PROMPTS)
    moved = X + 0.05 * noise(*X.shape, seed=2)
    answer, right = cache(moved, T, encoder_hidden_states=PROMPTS), exact(unet, moved)
    assert 0 < (answer - right).abs().mean() < 0.1 * (right - exact(unet, noise(*X.shape, seed=3))).abs().mean()


def test_other_prompts_and_other_batches_do_not_get_each_other_s_depth(unet):
    cache = StepCache(unet, 10, 0.0, Reused())
    other = noise(2, 7, 16, seed=5)
    for prompts in (PROMPTS, other):  # as where prompt and negative prompt are asked one by one
        assert torch.allclose(cache(X, T, encoder_hidden_states=prompts), exact(unet, X, prompts), atol=1e-5)
    for prompts in (PROMPTS, other):
        assert torch.allclose(cache(X, T, encoder_hidden_states=prompts), exact(unet, X, prompts), atol=1e-5)
    alone = cache(X[:1], T[:1], encoder_hidden_states=PROMPTS[:1])
    assert torch.allclose(alone, unet(X[:1], T[:1], encoder_hidden_states=PROMPTS[:1]).sample, atol=1e-5)


# edit-aware reuse

WINDOW = Window(8, 4, 16, 12)


def edited(unet, x, window=WINDOW, recording=None, prompts=PROMPTS):
    """(the answer, how many calls took over from the recording)."""
    reused = Reused()
    network = EditedUNet(unet, recording if recording is not None else Recording(("key",), 1 << 30), window, reused)
    return network(x, T, encoder_hidden_states=prompts), reused.calls


@pytest.mark.parametrize("window", [WINDOW, Window(0, 0, 8, 8), Window(20, 24, 32, 32), Window(9, 5, 13, 7), Window(0, 8, 32, 12)])
def test_a_window_of_what_has_not_changed_is_the_exact_answer(unet, window, monkeypatch):
    monkeypatch.setattr(edit_reuse, "compact", torch.Tensor.clone)  # or it is that but for half precision's rounding
    recording = Recording(("key",), 1 << 30)
    first, calls = edited(unet, X, window, recording)
    assert calls == 0 and torch.equal(first, exact(unet, X))
    second, calls = edited(unet, X, window, recording)
    assert calls == 1 and torch.allclose(second, first, atol=1e-4)


def test_a_change_within_the_window_is_followed_and_one_outside_is_not(unet):
    recording, window, middle = Recording(("key",), 1 << 30), Window(4, 4, 20, 20), (..., slice(10, 14), slice(10, 14))
    before, _ = edited(unet, X, window, recording)
    inside, outside = X.clone(), X.clone()
    inside[middle] += 0.2
    outside[..., 24:, 24:] += 1
    changed, _ = edited(unet, inside, window, recording)
    right = exact(unet, inside)
    assert (changed - right)[middle].abs().mean() < 0.3 * (before - right)[middle].abs().mean()
    assert torch.allclose(changed[..., 20:, :], before[..., 20:, :], atol=0.05), "what is outside is as it was"
    assert torch.equal(edited(unet, outside, window, recording)[0], edited(unet, X, window, recording)[0])


@pytest.mark.parametrize("why, window, x", [
    ("the whole picture", Window(0, 0, 32, 32), X), ("a large window", Window(0, 0, 32, 30), X), ("another batch", WINDOW, X[:1]),
    ("a size that halves do not meet", WINDOW, noise(2, 4, 30, 32))])
def test_all_is_computed_where_a_window_cannot_be(unet, why, window, x):
    recording = Recording(("key",), 1 << 30)
    edited(unet, X, recording=recording)
    prompts, times = PROMPTS[:len(x)], T[:len(x)]
    answer = EditedUNet(unet, recording, window, reused := Reused())(x, times, encoder_hidden_states=prompts)
    assert reused.calls == 0, why
    assert torch.equal(answer, unet(x, times, encoder_hidden_states=prompts).sample)


def test_what_is_too_large_is_not_kept(unet):
    recording = Recording(("key",), 1000)
    edited(unet, X, recording=recording)
    assert recording.calls == [] and edited(unet, X, recording=recording)[1] == 0


def test_in_half_precision_the_statistics_are_still_in_full():
    torch.manual_seed(0)
    half = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
    half = half.to(torch.bfloat16).requires_grad_(False).eval()
    recording = Recording(("key",), 1 << 30)
    for calls in (0, 1):
        answer, reused = edited(half, X.bfloat16(), recording=recording, prompts=PROMPTS.bfloat16())
        assert reused == calls and answer.dtype == torch.bfloat16 and answer.isfinite().all()
    assert {part.dtype for pair in recording.calls[0].statistics for part in pair} == {torch.float32}


def test_nothing_stays_on_the_network(unet):
    recording = Recording(("key",), 1 << 30)
    for _ in range(2):
        edited(unet, X, recording=recording)
    StepCache(unet, 2, 0.0, Reused())(X, T, encoder_hidden_states=PROMPTS)
    hooks = [hook for module in unet.modules() if isinstance(module, nn.Module)
             for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert hooks == []


def test_edits_differ_by_their_keys():
    assert Edit(("a",), WINDOW) != Edit(("b",), WINDOW)

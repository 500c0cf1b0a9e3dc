"""How strongly controls act: weights by hand, the time in which they act, and corrections of x0 estimates."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.families.controls import ColorFix, Control, Controls, Restore, blurred
from pipeline.families.unet_controls import UNetControl, UNetControls, masked, weights

HINT = torch.zeros(1, 3, 64, 64)
PROMPT, CONTROL = "My prompt is more important", "ControlNet is more important"


class Constant(torch.nn.Module):
    """A network whose outputs are all 1, of several sizes."""

    config = SimpleNamespace(in_channels=3, num_control_type=8)

    def __init__(self, count):
        super().__init__()
        self.count = count

    def forward(self, x, t=None, **conditions):
        if self.count == 4:
            return [torch.ones(1, 2, 8, 8) for _ in range(4)]
        return [torch.ones(len(x), 2, 8, 8) for _ in range(self.count - 1)], torch.ones(len(x), 2, 4, 4)


def residuals(control_of, *, count=13, negative=(False, True), pools=False):
    network = UNetControl("n", Constant(count), "adapter" if count == 4 else "controlnet", pools)
    controls = Controls([control_of(network)], negative=list(negative))
    return UNetControls(controls).residuals(torch.zeros(len(negative), 4, 8, 8), torch.zeros(1), {})


def down(found):
    """Every output's weight for the prompt's row, then for the negative prompt's."""
    outputs = [*found["down_block_additional_residuals"], found["mid_block_additional_residual"]]
    return [[output[row].mean().item() for output in outputs] for row in (0, 1)]


def test_balanced_weighs_all_outputs_alike_for_both_prompts():
    prompt, negative = down(residuals(lambda network: Control(network, HINT, 0.7)))
    assert prompt == negative == pytest.approx([0.7] * 13)


def test_the_prompt_more_important_halves_the_outer_layers_step_by_step():
    prompt, negative = down(residuals(lambda network: Control(network, HINT, 2.0, mode=PROMPT)))
    assert prompt == negative == pytest.approx([2.0 * 0.825**distance for distance in range(12, -1, -1)])
    assert prompt[0] == pytest.approx(0.1988, abs=1e-4) and prompt[-1] == 2.0


def test_the_control_more_important_does_the_same_and_leaves_the_negative_prompt_alone():
    prompt, negative = down(residuals(lambda network: Control(network, HINT, 1.0, mode=CONTROL)))
    assert prompt == pytest.approx([0.825**distance for distance in range(12, -1, -1)]) and negative == [0.0] * 13


def test_the_ten_outputs_for_sdxl_count_as_the_first_of_thirteen():
    prompt, _ = down(residuals(lambda network: Control(network, HINT, 1.0, mode=PROMPT), count=10))
    assert prompt == pytest.approx([0.825**distance for distance in range(12, 2, -1)])


def test_an_adapters_four_outputs_have_their_own_weights():
    found = residuals(lambda network: Control(network, HINT, 2.0, mode=CONTROL), count=4)["down_intrablock_additional_residuals"]
    assert [output[0].mean().item() for output in found] == pytest.approx([0.5, 1.24, 1.65, 2.0])
    assert all((output[1] == 0).all() for output in found)
    found = residuals(lambda network: Control(network, HINT, 2.0), count=4)["down_intrablock_additional_residuals"]
    assert all((output == 2.0).all() for output in found)


def test_weights_of_ones_own_replace_weight_and_mode():
    network = SimpleNamespace(kind="controlnet")
    assert weights(Control(network, HINT, 0.5, mode=PROMPT, layers=(1.0, 2.0)), 2, "controlnet") == [1.0, 2.0]


def test_a_region_scales_each_output_by_place():
    region = torch.zeros(1, 1, 64, 64)
    region[..., 32:] = 1
    found = residuals(lambda network: Control(network, HINT, 1.0, region=region))
    assert (found["down_block_additional_residuals"][0][..., :3] == 0).all() and (found["down_block_additional_residuals"][0][..., 5:] == 1).all()
    assert (found["mid_block_additional_residual"][..., 3:] == 1).all()


def test_a_network_for_shuffled_pictures_is_averaged_and_leaves_the_negative_prompt_alone():
    found = residuals(lambda network: Control(network, HINT, 0.5), pools=True)
    assert found["mid_block_additional_residual"].shape == (2, 2, 1, 1)
    assert down(found) == [pytest.approx([0.5] * 13), [0.0] * 13]


def test_where_a_mask_paints_the_picture_is_minus_one_or_black():
    hint = torch.full((1, 4, 1, 2), 0.25)
    hint[0, 3] = torch.tensor([[0.0, 1.0]])
    assert masked(hint)[0, :, 0].tolist() == [[0.25, -1.0]] * 3
    assert masked(hint, black=True)[0, :, 0].tolist() == [[0.25, 0.0]] * 3


def test_a_control_acts_between_its_start_and_end_by_the_steps_reported():
    controls = Controls([Control(None, HINT, start=0.2, end=0.5)])
    controls.begin(10)
    acting = []
    for step in range(10):
        acting.append(bool(controls.active))
        controls.report(step)
    # call n sees n - 1 steps reported, the first and the second call none: 0, 0, .1, .2, .3, .4, .5, .6, .7, .8
    assert acting == [False, False, False, True, True, True, True, False, False, False]


def test_begin_starts_the_count_again():
    controls = Controls([Control(None, HINT, end=0.1)])
    controls.begin(2)
    controls.report(1)
    assert not controls.active
    controls.begin(2)
    assert controls.active


# --- corrections

def test_a_blur_averages_squares_and_repeats_the_edge():
    line = torch.tensor([[[[0.0, 0.0, 9.0, 0.0]]]])
    assert blurred(line, 1)[0, 0, 0].tolist() == [0.0, 3.0, 3.0, 3.0]


def test_color_fix_takes_what_is_coarse_from_the_control_picture():
    x0 = torch.full((1, 4, 6, 6), 2.0)
    latent = torch.full((1, 4, 6, 6), 5.0)
    assert (ColorFix(latent, 2, 1.0)(x0, [False]) == 5.0).all()
    assert (ColorFix(latent, 2, 0.25)(x0, [False]) == 2.75).all()


def test_sharpness_blurs_the_negative_prompts_estimate_only():
    x0 = torch.zeros(2, 1, 1, 4)
    x0[..., 2] = 9.0
    fixed = ColorFix(torch.zeros(1, 1, 1, 4), 1, 1.0, 0.5)(x0, [False, True])
    plain = x0[0] - blurred(x0, 1)[0]  # 0, -3, 6, -3
    assert fixed[0].tolist() == plain.tolist()
    assert fixed[1, 0, 0].tolist() == pytest.approx([-0.5, -1.0, 3.0, -1.5])  # halfway to the means of three: -1, 1, 0, 0


def test_restore_keeps_the_control_picture_where_nothing_is_painted():
    mask = torch.tensor([[[[0.0, 1.0]]]])
    kept = Restore(torch.full((1, 4, 1, 2), 5.0), mask, 1.0)(torch.ones(1, 4, 1, 2), [False])
    assert kept[0, 0, 0].tolist() == [5.0, 1.0]

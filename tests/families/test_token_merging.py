"""Token merging: which tokens become one, what attention sees, and that nothing of it stays."""

import pytest
import torch
from torch import nn

from pipeline.families.token_merging import Matches, merging_tokens


class Attention(nn.Module):
    """Gives each token the mean of all; remembers how many it saw."""

    def forward(self, tokens, **_):
        self.seen = tokens
        return tokens.mean(dim=1, keepdim=True).expand_as(tokens)


class Block(nn.Module):
    """A transformer block as diffusers builds it, as far as self-attention goes."""

    def __init__(self):
        super().__init__()
        self.norm1, self.attn1 = nn.Identity(), Attention()

    def forward(self, tokens, encoder_hidden_states=None):
        return self.attn1(self.norm1(tokens), encoder_hidden_states=encoder_hidden_states) + tokens


class UNet(nn.Module):
    """One block at the latent's resolution and one at half of it."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = Block(), Block()

    def forward(self, sample, t=None):
        tokens = sample.flatten(2).transpose(1, 2)
        return self.fine(tokens), self.coarse(tokens[:, ::4])


LATENT = torch.randn(2, 8, 4, 6, generator=torch.Generator().manual_seed(0))
TOKENS = LATENT.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("ratio, seen", [(0.25, 18), (0.5, 12), (0.9, 6)])  # 24 tokens, 6 of them targets
def test_attention_sees_fewer_tokens_at_the_latent_s_own_resolution(ratio, seen):
    unet = UNet()
    with merging_tokens(unet, ratio):
        fine, coarse = unet(LATENT)
    assert (unet.fine.attn1.seen.shape[1], unet.coarse.attn1.seen.shape[1]) == (seen, 6)
    assert fine.shape == TOKENS.shape


def test_the_size_is_found_by_keyword_too():
    unet = UNet()
    with merging_tokens(unet, 0.5):
        unet(sample=LATENT)
    assert unet.fine.attn1.seen.shape[1] == 12


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_nothing_stays_behind(ratio):
    unet = UNet()
    with merging_tokens(unet, ratio):
        pass
    hooks = [hook for module in unet.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    assert hooks == []
    assert torch.equal(unet(LATENT)[0], TOKENS + TOKENS.mean(dim=1, keepdim=True))


def test_hooks_are_removed_where_sampling_fails():
    unet = UNet()
    with pytest.raises(RuntimeError), merging_tokens(unet, 0.5):
        raise RuntimeError
    assert not unet.fine.attn1._forward_hooks


def test_no_merging_is_exactly_no_merging():
    unet = UNet()
    plain = unet(LATENT)[0]
    with merging_tokens(unet, 0.0):
        assert torch.equal(unet(LATENT)[0], plain)


def test_the_first_token_of_each_2x2_square_is_a_target():
    assert Matches.find(TOKENS, 4, 6, 3).targets.tolist() == [0, 2, 4, 12, 14, 16]


def test_a_line_that_fills_no_square_has_no_targets():
    tokens = TOKENS[:, :15]
    assert Matches.find(tokens, 3, 5, 3).targets.tolist() == [0, 2]


@pytest.mark.parametrize("count", [0, -1])
def test_nothing_to_merge_is_no_matches(count):
    assert Matches.find(TOKENS, 4, 6, count) is None


def test_the_most_alike_are_merged_by_direction_not_by_length():
    tokens = torch.eye(8).repeat(1, 3, 1)[:, :4]  # one square: a target and three sources unlike it
    tokens[0, 2] = 5 * tokens[0, 0] + 0.1 * tokens[0, 1]
    matches = Matches.find(tokens, 2, 2, 1)
    assert matches.sources[matches.merged[0]].tolist() == [2]
    assert torch.allclose(matches.merge(tokens)[0, -1], (tokens[0, 0] + tokens[0, 2]) / 2)


@pytest.mark.parametrize("count", [1, 7, 18, 99])
def test_unmerging_brings_every_token_back_to_its_place(count):
    matches = Matches.find(TOKENS, 4, 6, count)
    back = matches.unmerge(matches.merge(TOKENS))
    kept = torch.ones(2, 24, dtype=torch.bool)
    kept[:, matches.targets] = False
    kept.scatter_(1, matches.sources[matches.merged], False)
    assert torch.equal(back[kept], TOKENS[kept])
    for row in range(2):
        places, targets = matches.sources[matches.merged[row]], matches.targets[matches.into[row]]
        assert torch.equal(back[row, places], back[row, targets])

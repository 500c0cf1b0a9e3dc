"""Each type of network against its arithmetic, written out."""

import pytest
import torch
from torch import randn

from pipeline.networks.deltas import TYPES, DoesNotFit, bias_delta, fits, weight_delta

torch.manual_seed(0)
OUT, INTO, RANK = 6, 4, 2
LINEAR = randn(OUT, INTO)
CONV = randn(OUT, INTO, 3, 3)
POINT = randn(OUT, INTO, 1, 1)
ALPHA = torch.tensor(1.0)
UP, DOWN = randn(OUT, RANK), randn(RANK, INTO)
CONV_DOWN, CORE = randn(RANK, INTO, 3, 3), randn(RANK, RANK, 3, 3)
A1, B1, A2, B2 = randn(OUT, RANK), randn(RANK, INTO), randn(OUT, RANK), randn(RANK, INTO)
HADA = {"hada_w1_a": A1, "hada_w1_b": B1, "hada_w2_a": A2, "hada_w2_b": B2}
CONV_B1, CONV_B2 = randn(RANK, INTO * 9), randn(RANK, INTO * 9)
T1, T2, TA1, TA2 = randn(RANK, RANK, 3, 3), randn(RANK, RANK, 3, 3), randn(RANK, OUT), randn(RANK, OUT)
K1, K2, K1A, K1B = randn(2, 2), randn(3, 2), randn(2, RANK), randn(RANK, 2)
K2A, K2B, CONV_K2, KT, KTA, KTB = randn(3, 1), randn(1, 2), randn(3, 2, 3, 3), randn(1, 1, 3, 3), randn(1, 3), randn(1, 2)
DIFF, IN_FACTOR, OUT_FACTOR, SPARSE = randn(OUT, INTO), randn(INTO), randn(OUT), torch.zeros(OUT, INTO)
SPARSE[1, 2], SPARSE[5, 0] = 0.5, -1.5
PER_INPUT, PER_OUTPUT = randn(1, INTO).abs(), randn(OUT, 1).abs()
GA1, GA2, GB1, GB2 = randn(RANK, INTO), randn(INTO, RANK), randn(RANK, INTO), randn(OUT, RANK)
BLOCKS = randn(3, 2, 2) / 4


def kron(a, b):
    """out[i * rows of b + k, j * columns of b + l] = a[i, j] * b[k, l], with kernel axes of b kept."""
    return torch.stack([torch.stack([a[i, j] * b[k, m] for j in range(a.shape[1]) for m in range(b.shape[1])])
                        for i in range(a.shape[0]) for k in range(b.shape[0])])


def core_product(core, a, b):
    return torch.stack([torch.stack([sum(core[r, s] * a[r, o] * b[s, i] for r in range(len(a)) for s in range(len(b)))
                                     for i in range(b.shape[1])]) for o in range(a.shape[1])])


def turned(weight, rotations):
    """Each block of outputs multiplied by its rotation's transpose."""
    rows = weight.flatten(1)
    size = rotations.shape[-1]
    blocks = [rotation.T @ rows[i * size:(i + 1) * size] for i, rotation in enumerate(rotations)]
    return torch.cat(blocks).reshape(weight.shape)


def cayley(blocks, shrink=1.0):
    q = (blocks - blocks.transpose(1, 2)) * shrink
    return torch.stack([(torch.eye(2) + one) @ torch.inverse(torch.eye(2) - one) for one in q])


def decomposed(weight, merged, magnitude, axis):
    norms = merged.pow(2).sum(dim=[i for i in range(merged.ndim) if i != axis], keepdim=True).sqrt()
    return merged * magnitude / norms - weight


GENERATORS = (BLOCKS - BLOCKS.transpose(1, 2)).norm()
LORA = {"up": UP, "down": DOWN}
SPARSE_BIAS = {"bias_indices": torch.tensor([[1.0, 5.0], [2.0, 0.0]]), "bias_values": torch.tensor([0.5, -1.5]),
               "bias_size": torch.tensor([float(OUT), float(INTO)])}

CASES = {  # the parts of a file, the layer's weight, what is added
    "LoRA": ({**LORA, "alpha": ALPHA}, LINEAR, UP @ DOWN * 0.5),
    "LoRA without alpha": (LORA, LINEAR, UP @ DOWN),
    "LoRA with its own scale": ({**LORA, "alpha": ALPHA, "scale": torch.tensor(3.0)}, LINEAR, UP @ DOWN * 3),
    "LoRA of a 1x1 convolution": ({"up": UP[..., None, None], "down": DOWN[..., None, None]}, POINT,
                                  (UP @ DOWN)[..., None, None]),
    "LoRA of a linear layer on a 1x1 convolution": (LORA, POINT, (UP @ DOWN)[..., None, None]),
    "LoCon": ({"up": UP[..., None, None], "down": CONV_DOWN, "alpha": ALPHA}, CONV,
              torch.einsum("or,rikl->oikl", UP, CONV_DOWN) * 0.5),
    "LoCon in CP form": ({"up": UP[..., None, None], "mid": CORE, "down": DOWN[..., None, None]}, CONV,
                         core_product(CORE, UP.T, DOWN)),
    "a LoRA of 4 latent channels on 9": ({"up": UP[..., None, None], "down": CONV_DOWN}, randn(OUT, 9, 3, 3), torch.cat(
        [torch.einsum("or,rikl->oikl", UP, CONV_DOWN), torch.zeros(OUT, 5, 3, 3)], dim=1)),
    "LoHa": ({**HADA, "alpha": ALPHA}, LINEAR, (A1 @ B1) * (A2 @ B2) * 0.5),
    "LoHa of a convolution": (HADA | {"hada_w1_b": CONV_B1, "hada_w2_b": CONV_B2}, CONV,
                              ((A1 @ CONV_B1) * (A2 @ CONV_B2)).reshape(CONV.shape)),
    "LoHa with cores": ({"hada_t1": T1, "hada_w1_a": TA1, "hada_w1_b": B1, "hada_t2": T2, "hada_w2_a": TA2, "hada_w2_b": B2},
                        CONV, core_product(T1, TA1, B1) * core_product(T2, TA2, B2)),
    "LoKr, whole": ({"lokr_w1": K1, "lokr_w2": K2, "alpha": ALPHA}, LINEAR, kron(K1, K2)),
    "LoKr, one factored": ({"lokr_w1_a": K1A, "lokr_w1_b": K1B, "lokr_w2": K2, "alpha": ALPHA}, LINEAR,
                           kron(K1A @ K1B, K2) * 0.5),
    "LoKr, both factored": ({"lokr_w1_a": K1A, "lokr_w1_b": K1B, "lokr_w2_a": K2A, "lokr_w2_b": K2B, "alpha": ALPHA * 4},
                            LINEAR, kron(K1A @ K1B, K2A @ K2B) * 4),
    "LoKr of a convolution": ({"lokr_w1": K1, "lokr_w2": CONV_K2}, CONV, kron(K1, CONV_K2)),
    "LoKr with a core": ({"lokr_w1": K1, "lokr_t2": KT, "lokr_w2_a": KTA, "lokr_w2_b": KTB}, CONV,
                         kron(K1, core_product(KT, KTA, KTB))),
    "IA3 of inputs": ({"weight": IN_FACTOR, "on_input": torch.tensor(1.0)}, LINEAR, LINEAR * IN_FACTOR),
    "IA3 of outputs": ({"weight": OUT_FACTOR, "on_input": torch.tensor(0.0)}, LINEAR, LINEAR * OUT_FACTOR[:, None]),
    "IA3 of a convolution's inputs": ({"weight": IN_FACTOR, "on_input": torch.tensor(1.0)}, CONV,
                                      CONV * IN_FACTOR[:, None, None]),
    "full": ({"diff": DIFF}, LINEAR, DIFF),
    "norm": ({"w_norm": DIFF[:, 0], "b_norm": DIFF[:, 1]}, LINEAR[:, 0], DIFF[:, 0]),
    "GLoRA": ({"a1": GA1, "a2": GA2, "b1": GB1, "b2": GB2, "alpha": ALPHA}, LINEAR, GB2 @ GB1 + LINEAR @ GA2 @ GA1),
    "OFT": ({"oft_blocks": BLOCKS}, LINEAR, turned(LINEAR, cayley(BLOCKS)) - LINEAR),
    "OFT of a convolution": ({"oft_blocks": BLOCKS}, CONV, turned(CONV, cayley(BLOCKS)) - CONV),
    "OFT with a constraint": ({"oft_blocks": BLOCKS, "alpha": GENERATORS / 2 / OUT}, LINEAR,
                              turned(LINEAR, cayley(BLOCKS, 0.5)) - LINEAR),
    "OFT within its constraint": ({"oft_blocks": BLOCKS, "alpha": ALPHA * 100}, LINEAR,
                                  turned(LINEAR, cayley(BLOCKS)) - LINEAR),
    "OFT with rescale": ({"oft_blocks": BLOCKS, "rescale": OUT_FACTOR[:, None]}, LINEAR,
                         turned(LINEAR, cayley(BLOCKS)) * OUT_FACTOR[:, None] - LINEAR),
    "OFT of the first LyCORIS": ({"oft_diag": BLOCKS}, LINEAR, turned(LINEAR, BLOCKS) - LINEAR),
    "DoRA per input": ({**LORA, "alpha": ALPHA, "dora_scale": PER_INPUT}, LINEAR,
                       decomposed(LINEAR, LINEAR + UP @ DOWN * 0.5, PER_INPUT, axis=1)),
    "DoRA per output": ({**LORA, "dora_scale": PER_OUTPUT}, LINEAR, decomposed(LINEAR, LINEAR + UP @ DOWN, PER_OUTPUT, axis=0)),
    "DoRA of PEFT": ({**LORA, "magnitude_vector": PER_OUTPUT[:, 0]}, LINEAR,
                     decomposed(LINEAR, LINEAR + UP @ DOWN, PER_OUTPUT, axis=0)),
    "DoRA of a convolution": ({"up": UP, "down": CONV_DOWN, "dora_scale": PER_INPUT[..., None, None]}, CONV, decomposed(
        CONV, CONV + torch.einsum("or,rikl->oikl", UP, CONV_DOWN), PER_INPUT[..., None, None], axis=1)),
    "DoRA on LoHa": ({**HADA, "dora_scale": PER_INPUT}, LINEAR,
                     decomposed(LINEAR, LINEAR + (A1 @ B1) * (A2 @ B2), PER_INPUT, axis=1)),
    "a dense bias, which is scaled": ({**LORA, "alpha": ALPHA, "bias": SPARSE}, LINEAR, (UP @ DOWN + SPARSE) * 0.5),
    "a sparse bias": ({**LORA, **SPARSE_BIAS}, LINEAR, UP @ DOWN + SPARSE),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_adds_what_its_arithmetic_says(name):
    parts, weight, wanted = CASES[name]
    delta = weight_delta(parts, weight)
    assert delta.shape == weight.shape
    torch.testing.assert_close(delta, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["LoRA", "DoRA per input", "full"])
def test_a_multiplier_multiplies_all_of_it(name):
    parts, weight, wanted = CASES[name]
    torch.testing.assert_close(weight_delta(parts, weight, -0.5), wanted * -0.5, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weight_delta(parts, weight), wanted, atol=1e-5, rtol=1e-5)  # and the parts are as they were


def test_every_type_has_a_case():
    types = {kind for kind in TYPES.values() for parts, _, _ in CASES.values() if kind.takes(parts)}
    assert types == set(TYPES.values())


def test_boft_is_rotations_over_a_butterfly():
    blocks = randn(2, 2, 4, 4) / 4
    weight = randn(8, INTO)
    generators = blocks - blocks.transpose(-1, -2)
    rotations = (torch.eye(4) + generators) @ torch.inverse(torch.eye(4) - generators)
    # rows two apart meet first, then rows four apart
    orders = [[0, 2, 1, 3, 4, 6, 5, 7], [0, 4, 1, 5, 2, 6, 3, 7]]
    wanted = weight
    for order, rotation in zip(orders, rotations):
        mixed = torch.block_diag(*rotation) @ wanted[order]
        wanted = torch.empty_like(mixed).index_copy(0, torch.tensor(order), mixed)
    torch.testing.assert_close(weight_delta({"oft_blocks": blocks}, weight), wanted - weight, atol=1e-5, rtol=1e-5)


def test_dyn_uses_the_first_ranks_of_a_lora_and_scales_by_all():
    delta = weight_delta({**LORA, "alpha": ALPHA}, LINEAR, dyn_dim=1)
    torch.testing.assert_close(delta, UP[:, :1] @ DOWN[:1] * 0.5)


@pytest.mark.parametrize("parts, wanted", [
    ({"diff": DIFF, "diff_b": OUT_FACTOR}, OUT_FACTOR),
    ({"w_norm": DIFF[:, 0], "b_norm": DIFF[:, 1]}, DIFF[:, 1]),
    ({"diff": DIFF}, None),
    (LORA, None),
])
def test_full_and_norm_add_to_the_bias(parts, wanted):
    delta = bias_delta(parts, OUT)
    assert delta is wanted is None or torch.equal(delta, wanted)


@pytest.mark.parametrize("parts", [
    {"up": UP},
    {"up": UP, "down": randn(3, INTO)},
    {"up": UP, "down": randn(RANK, INTO + 1)},
    {"up": DOWN.T, "down": UP.T},
    {"up": randn(10**6, 1), "down": randn(1, 10**6)},
    {"lokr_w1": randn(1000, 1000), "lokr_w2": randn(1000, 1000)},
    {"up": torch.tensor(1.0), "down": torch.tensor(1.0), "alpha": ALPHA},
    {**LORA, "alpha": randn(3)},
    {"weight": randn(5), "on_input": ALPHA},
    {"oft_blocks": randn(4, 2, 2)},
    {**LORA, "dora_scale": randn(1, 9)},
    {**LORA, "dora_scale": torch.tensor(1.0)},
    {**LORA, "bias": randn(OUT)},
    {**LORA, **SPARSE_BIAS, "bias_size": torch.tensor([1e9, 1e9])},
    {**LORA, **SPARSE_BIAS, "bias_indices": torch.tensor([[1.0, 600.0], [2.0, 0.0]])},
], ids=["half a pair", "ranks that differ", "another width", "turned round", "a matrix of terabytes", "a product of terabytes",
        "no matrices", "three alphas", "another number of factors", "more blocks than outputs", "another number of magnitudes",
        "no magnitudes", "a bias of another size", "a sparse bias of exabytes", "an index beyond the end"])
def test_what_does_not_go_together_is_refused_at_no_cost(parts):
    with pytest.raises(DoesNotFit):
        weight_delta(parts, LINEAR)


def test_a_bias_of_another_size_is_refused():
    with pytest.raises(DoesNotFit):
        bias_delta({"diff": DIFF, "diff_b": randn(3)}, OUT)


def test_whether_shapes_fit_is_found_once_for_all_files_that_have_them():
    weight = torch.zeros(4, 6)
    parts = [{"up": torch.randn(4, 2), "down": torch.randn(2, 6), "alpha": torch.tensor(1.0)} for _ in range(3)]
    fits.cache_clear()
    deltas = [weight_delta(part, weight) for part in parts]
    assert (fits.cache_info().misses, fits.cache_info().hits) == (1, 2)
    assert all(torch.equal(delta, part["up"] @ part["down"] / 2) for part, delta in zip(parts, deltas))
    for wrong in ({"down": torch.randn(2, 5)}, {"down": torch.randn(3, 6)}):
        for _ in range(2):
            with pytest.raises(DoesNotFit):
                weight_delta(parts[0] | wrong, weight)

"""Networks in a model's weights: what is there, and that nothing is left of it afterwards."""

import gc
import weakref

import pytest
import torch
from network_models import FC1, TO_Q, Model, new_unet

from pipeline.errors import ModelError
from pipeline.families.base import Layer
from pipeline.networks import NetworkRequest, NetworkSet
from pipeline.networks.merging import Wanted

KOHYA_Q = "lora_unet_" + TO_Q.replace(".", "_")
KOHYA_FC1 = "lora_te_text_model_" + FC1.replace(".", "_")


def want(file, te=1.0, unet=1.0, dyn_dim=None):
    return Wanted(NetworkRequest(file.stem, te, unet, dyn_dim), file.path, (file.path.stat().st_size, 0))


def weight_of(model, component, path):
    return model.modules[component].get_submodule(path).weight


def snapshot(model):
    return {(component, name): value.clone() for component, module in model.modules.items()
            for name, value in module.state_dict().items()}


def assert_same_bits(model, before):
    after = snapshot(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == before[key].dtype for key in before)


def test_te_and_unet_have_multipliers_of_their_own(sd1, write, pair):
    unet, unet_delta = pair(KOHYA_Q)
    text, text_delta = pair(KOHYA_FC1, 32, 16)
    q, fc1 = (weight_of(sd1, *place).clone() for place in (("unet", TO_Q), ("text_encoder", FC1)))
    assert NetworkSet().apply(sd1.layers, [want(write("a", unet | text), te=0.5, unet=2.0)]) == []
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q), q + unet_delta * 2)
    torch.testing.assert_close(weight_of(sd1, "text_encoder", FC1), fc1 + text_delta / 2)


def test_several_networks_add_up_and_later_ones_see_the_earlier(sd1, write, pair):
    first, delta = pair(KOHYA_Q)
    second = {f"{KOHYA_Q}.weight": torch.randn(8), f"{KOHYA_Q}.on_input": torch.tensor(True)}
    before = weight_of(sd1, "unet", TO_Q).clone()
    NetworkSet().apply(sd1.layers, [want(write("a", first), unet=0.5), want(write("b", second))])
    merged = before + delta * 0.5
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q), merged + merged * second[f"{KOHYA_Q}.weight"])


@pytest.mark.parametrize("kind", ["lora", "ia3", "dora"])
def test_a_network_named_again_adds_what_it_would_alone(sd1, write, pair, kind):
    """What depends on the weight is computed anew each time."""
    tensors, delta = pair(KOHYA_Q)
    factor = torch.rand(8) + 0.5
    if kind == "ia3":
        tensors = {f"{KOHYA_Q}.weight": factor, f"{KOHYA_Q}.on_input": torch.tensor(True)}
    if kind == "dora":
        tensors[f"{KOHYA_Q}.dora_scale"] = factor[:, None]
    expected = weight_of(sd1, "unet", TO_Q).clone()
    for _ in range(3):
        if kind == "lora":
            expected = expected + delta
        elif kind == "ia3":
            expected = expected + expected * factor
        else:
            merged = expected + delta
            expected = merged * (factor[:, None] / merged.norm(dim=1, keepdim=True))
    NetworkSet().apply(sd1.layers, [want(write("a", tensors))] * 3)
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q).data, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_removal_gives_every_bit_back(sd1, write, pair, dtype):
    for module in sd1.modules.values():
        module.to(dtype)
    before, networks = snapshot(sd1), NetworkSet()
    file = write("a", pair(KOHYA_Q)[0] | pair(KOHYA_FC1, 32, 16)[0] | {"lora_unet_conv_in.diff": torch.randn(8, 4, 3, 3),
                                                                      "lora_unet_conv_in.diff_b": torch.randn(8)})
    networks.apply(sd1.layers, [want(file), want(file, te=-3, unet=7)])
    assert not torch.equal(weight_of(sd1, "unet", TO_Q), before["unet", f"{TO_Q}.weight"])
    networks.apply(sd1.layers, [])
    assert_same_bits(sd1, before)


def test_a_layer_under_two_names_is_one_layer(sd1, write, pair):
    before, networks = snapshot(sd1), NetworkSet()
    (kohya, first), (original, second) = pair(KOHYA_Q), pair("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q")
    networks.apply(sd1.layers, [want(write("a", kohya)), want(write("b", original))])
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q).data, before["unet", f"{TO_Q}.weight"] + first + second)
    networks.apply(sd1.layers, [])
    assert_same_bits(sd1, before)


def test_sums_are_float32_and_rounded_once(sd1, write, pair):
    small, delta = pair(KOHYA_Q)
    small[f"{KOHYA_Q}.alpha"] *= 1e-3
    sd1.modules["unet"].to(torch.bfloat16)
    before = weight_of(sd1, "unet", TO_Q).clone()
    NetworkSet().apply(sd1.layers, [want(write("a", small))] * 100)
    exact = before.float() + delta * 0.1  # a hundredth of it would be lost in bfloat16
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q).float(), exact, rtol=2**-8, atol=1e-5)


def test_a_bias_comes_to_a_layer_without_one_and_goes_again(sd1, write):
    layer, bias = sd1.modules["unet"].get_submodule(TO_Q), torch.randn(8)
    assert layer.bias is None
    networks = NetworkSet()
    networks.apply(sd1.layers, [want(write("a", {f"{KOHYA_Q}.diff": torch.randn(8, 8), f"{KOHYA_Q}.diff_b": bias}), unet=0.5)])
    torch.testing.assert_close(layer.bias.data, bias / 2)
    networks.apply(sd1.layers, [])
    assert layer.bias is None


def test_a_norm_gets_weight_and_bias(sd1, write):
    layer = sd1.modules["text_encoder"].final_layer_norm
    weight, bias, parts = layer.weight.clone(), layer.bias.clone(), {"w_norm": torch.randn(16), "b_norm": torch.randn(16)}
    file = write("a", {f"lora_te_text_model_final_layer_norm.{name}": part for name, part in parts.items()})
    NetworkSet().apply(sd1.layers, [want(file)])
    torch.testing.assert_close(layer.weight.data, weight + parts["w_norm"])
    torch.testing.assert_close(layer.bias.data, bias + parts["b_norm"])


def test_the_same_list_again_does_nothing(sd1, write, pair, monkeypatch):
    networks, wanted = NetworkSet(), [want(write("a", pair(KOHYA_Q)[0] | pair("lora_unet_elsewhere")[0]))]
    comments = networks.apply(sd1.layers, wanted)
    monkeypatch.setattr(NetworkSet, "_merge", None)
    assert networks.apply(sd1.layers, list(wanted)) == comments != []


def test_another_list_starts_from_the_model_alone(sd1, write, pair):
    tensors, delta = pair(KOHYA_Q)
    before, file, networks = weight_of(sd1, "unet", TO_Q).clone(), write("a", tensors), NetworkSet()
    for strength in (1.0, 3.0, 0.5):
        networks.apply(sd1.layers, [want(file, unet=strength)])
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q), before + delta * 0.5)


def test_a_multiplier_of_0_changes_no_bit(sd1, write, pair):
    before = snapshot(sd1)
    NetworkSet().apply(sd1.layers, [want(write("a", pair(KOHYA_Q)[0]), te=0, unet=0)])
    assert_same_bits(sd1, before)


def test_layers_that_do_not_fit_are_counted_and_the_others_act(sd1, write, pair):
    good, delta = pair(KOHYA_Q)
    elsewhere, wide = pair("lora_unet_elsewhere")[0], pair("lora_unet_conv_in", 8, 7)[0]
    before = weight_of(sd1, "unet", TO_Q).clone()
    comments = NetworkSet().apply(sd1.layers, [want(write("a", good | elsewhere | wide))])
    assert comments == ['LoRA "a": 2 of its 3 layers do not fit this model and were left out.']
    torch.testing.assert_close(weight_of(sd1, "unet", TO_Q), before + delta)


def test_a_file_that_cannot_be_read_leaves_all_as_it_was(sd1, write, pair, tmp_path):
    networks, good, broken = NetworkSet(), want(write("a", pair(KOHYA_Q)[0])), write("b", {"x.alpha": torch.ones(1)})
    broken.path.write_bytes(b"\xff" * 64)
    networks.apply(sd1.layers, [good])
    with_a = snapshot(sd1)
    with pytest.raises(ModelError, match='"b.safetensors"'):
        networks.apply(sd1.layers, [good, want(broken)])
    assert_same_bits(sd1, with_a)


def test_an_error_halfway_leaves_the_model_alone(sd1, write, pair, monkeypatch):
    before, networks = snapshot(sd1), NetworkSet()
    write_weight = NetworkSet._write

    def fail_at_bias(self, layer, name, value):
        write_weight(self, layer, name, value)
        if name == "bias":
            raise MemoryError

    monkeypatch.setattr(NetworkSet, "_write", fail_at_bias)
    with pytest.raises(MemoryError):
        networks.apply(sd1.layers, [want(write("a", pair(KOHYA_Q)[0]))])
    assert_same_bits(sd1, before)


def test_a_model_that_is_dropped_is_freed_with_its_networks(write, pair):
    model, networks = Model({"unet": new_unet()}), NetworkSet()
    networks.apply(model.layers, [want(write("a", pair(KOHYA_Q)[0]))])
    gone = weakref.ref(model.modules["unet"])
    del model
    gc.collect()
    assert gone() is None


def test_it_works_in_inference_mode_too(sd1, write, pair):
    before, networks, file = snapshot(sd1), NetworkSet(), write("a", pair(KOHYA_Q)[0])
    with torch.inference_mode():
        networks.apply(sd1.layers, [want(file)])
        networks.apply(sd1.layers, [])
    assert_same_bits(sd1, before)


class Fused:
    """A model whose layer holds three layers below each other, as flow models' q, k and v."""

    def __init__(self, rows=4):
        self.qkv = torch.nn.Linear(8, 3 * rows).requires_grad_(False)
        self.names = {name: Layer(self.qkv, (rows * i, rows * (i + 1))) for i, name in enumerate(("to_q", "to_k", "to_v"))}

    def find(self, name):
        return self.names.get(name)


def test_layers_that_are_fused_are_changed_each_in_its_rows_and_given_back(write, pair):
    model, networks = Fused(), NetworkSet()
    weight, bias = model.qkv.weight.clone(), model.qkv.bias.clone()
    (q, dq), dv = pair("to_q", out=4), torch.randn(4, 8)
    file = write("a", q | {"to_v.diff": dv, "to_v.diff_b": torch.ones(4)})
    assert networks.apply(lambda: model, [want(file)]) == []
    torch.testing.assert_close(model.qkv.weight, weight + torch.cat([dq, torch.zeros(4, 8), dv]))
    torch.testing.assert_close(model.qkv.bias, bias + torch.cat([torch.zeros(8), torch.ones(4)]))
    networks.apply(lambda: model, [])
    assert torch.equal(model.qkv.weight, weight) and torch.equal(model.qkv.bias, bias)


FORMS = {  # the same two matrices as other tools save them
    "kohya, original names": "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_{}.weight",
    "PEFT": f"unet.{TO_Q}.lora_{{}}.weight",
    "PEFT, UNet alone": f"base_model.model.{TO_Q}.lora_{{}}.weight",
    "diffusers": f"unet.{TO_Q}.lora.{{}}.weight",
    "diffusers' attention processors": f"{TO_Q.removesuffix('.to_q')}.processor.to_q_lora.{{}}.weight",
    "LyCORIS": f"lycoris_{TO_Q.replace('.', '_')}.lora_{{}}.weight",
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_the_same_matrices_give_the_same_weights(sd1, write, pair, form):
    kohya, _ = pair(KOHYA_Q)
    del kohya[f"{KOHYA_Q}.alpha"]
    names = {"up": "B", "down": "A"} if "PEFT" in form else {"up": "up", "down": "down"}
    other = {FORMS[form].format(names[part]): kohya[f"{KOHYA_Q}.lora_{part}.weight"] for part in names}
    networks, results = NetworkSet(), []
    for file in (write("kohya", kohya), write("other", other)):
        assert networks.apply(sd1.layers, [want(file)]) == []
        results.append(weight_of(sd1, "unet", TO_Q).clone())
    assert torch.equal(*results)

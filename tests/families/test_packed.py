"""Quantized files: recognised by what is in them, kept small in memory, and computing what their numbers compute."""

import struct
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline import families
from pipeline.errors import ModelError
from pipeline.families.cond import Encoding
from pipeline.families.packed import PackedLayer
from pipeline.families.placement import Placement
from pipeline.gguf import _T5 as T5_NAMES
from pipeline.gguf import KINDS, transformers_name
from pipeline.networks import NetworkRequest, NetworkSet
from pipeline.networks.file import version
from pipeline.networks.merging import Wanted
from pipeline.weights import Weights
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import made, pixels
from tests.families.quantized_files import float8, gguf_file, plain

LLAMA = {".self_attn.q_proj.": ".attn_q.", ".self_attn.k_proj.": ".attn_k.", ".self_attn.v_proj.": ".attn_v.", ".self_attn.o_proj.": ".attn_output.",
         ".self_attn.q_norm.": ".attn_q_norm.", ".self_attn.k_norm.": ".attn_k_norm.", ".input_layernorm.": ".attn_norm.",
         ".post_attention_layernorm.": ".ffn_norm.", ".mlp.gate_proj.": ".ffn_gate.", ".mlp.up_proj.": ".ffn_up.", ".mlp.down_proj.": ".ffn_down.",
         "model.embed_tokens.": "token_embd.", "model.norm.": "output_norm.", "model.layers.": "blk."}


def llama_name(name):
    for ours, theirs in LLAMA.items():
        name = name.replace(ours, theirs)
    return name


def float8_of(scales):
    return lambda source, target, encoder: float8(source, target.with_suffix(".safetensors"), scales)


def gguf_of(kind):
    return lambda source, target, encoder: gguf_file(source, target.with_suffix(".gguf"), kind, "qwen3" if encoder else "flux",
                                                     llama_name if encoder else lambda name: name)


QUANTIZED = {"float8": float8_of(""), "float8, scaled": float8_of("weight"), "float8, scaled by row": float8_of("rows"),
             "Q8_0": gguf_of("Q8_0"), "Q4_0": gguf_of("Q4_0"), "Q5_1": gguf_of("Q5_1"), "BF16": gguf_of("BF16")}


@pytest.fixture(scope="module")
def quantized(flow_files, tmp_path_factory):
    """(kind of model, kind of file) → files as flow_files(), quantized."""
    made = {}

    def make(model, how):
        if (model, how) not in made:
            files, folder = flow_files(model), tmp_path_factory.mktemp("quantized")
            made[model, how] = SimpleNamespace(vae=files.vae, transformer=QUANTIZED[how](files.transformer, folder / "transformer", False),
                                               text_encoder=QUANTIZED[how](files.text_encoder, folder / "encoder", True))
        return made[model, how]

    return make


def load(files, place=FLOAT32, numbers=lambda path: path):
    return families.load(numbers(files.transformer), place, components=families.Components(files.vae, (numbers(files.text_encoder),)))


def computed(family):
    """(text features, the network's output)."""
    torch.manual_seed(0)
    x = torch.randn(1, family.latent_format.channels, 8, 8)
    with torch.inference_mode():
        cond = family.encode_prompts(["a red fox"], Encoding())
        return cond.tokens, family.denoise(x, torch.tensor([0.7]), cond, x[:, :0])


def held(module):
    return sum(tensor.numel() * tensor.itemsize for tensor in module.state_dict().values())


def packed_layers(family):
    return [layer for module in family.modules.values() for layer in module.modules() if isinstance(layer, PackedLayer)]


@pytest.mark.parametrize("model, how, precision", [
    *(("z-image", how, torch.float32) for how in QUANTIZED), ("z-image", "float8, scaled", torch.bfloat16), ("z-image", "Q8_0", torch.bfloat16),
    ("flux2-klein", "float8, scaled by row", torch.float32), ("flux2-klein", "Q5_1", torch.bfloat16)])
def test_packed_weights_compute_what_their_numbers_compute(quantized, model, how, precision):
    files, place = quantized(model, how), Placement(torch.device("cpu"), precision, torch.float32)
    small, numbers = load(files, place), load(files, place, plain)
    for ours, theirs in zip(computed(small), computed(numbers), strict=True):
        assert torch.equal(ours, theirs) and theirs.std() > 1e-3
    assert bool(packed_layers(small)) == (how != "BF16") and not packed_layers(numbers)


@pytest.mark.parametrize("how, share", [("float8", 0.3), ("Q8_0", 0.4), ("Q4_0", 0.3)])
def test_packed_weights_take_what_their_file_takes_and_the_plan_counts_that(quantized, flow_files, how, share):
    files = quantized("z-image", how)
    family, module = load(files), flow_files("z-image").modules["transformer"]
    sizes = families.describe(files.transformer, families.Components(files.vae, (files.text_encoder,))).sizes
    assert held(family.modules["transformer"]) < share * held(module)
    for name, size in sizes.items():
        assert size.packed + 4 * size.numbers == held(family.modules[name]), name


@pytest.mark.parametrize("plan", ["encoders", "model", "sequential"])
def test_packed_weights_wait_packed(quantized, plan):
    files = quantized("z-image", "float8, scaled by row")
    small, plainly = load(files, Placement(torch.device("cpu"), torch.float32, torch.float32, plan)), load(files)
    assert all(torch.equal(*pair) for pair in zip(computed(small), computed(plainly)))
    assert small.modules["transformer"].layers[0].attention.to_q.data.dtype == torch.uint8


# --- LoRA

A, B = torch.randn(2, 32, generator=torch.Generator().manual_seed(1)), torch.randn(96, 2, generator=torch.Generator().manual_seed(2))
LORAS = {
    "one layer": {"diffusion_model.layers.0.attention.out.lora_A.weight": A, "diffusion_model.layers.0.attention.out.lora_B.weight": B[:32].clone()},
    "fused layers": {"diffusion_model.layers.1.attention.qkv.lora_A.weight": A, "diffusion_model.layers.1.attention.qkv.lora_B.weight": B},
    "both names of a layer": {"diffusion_model.layers.1.attention.qkv.lora_A.weight": A, "diffusion_model.layers.1.attention.qkv.lora_B.weight": B,
                              "transformer.layers.1.attention.to_k.lora_A.weight": A + 1, "transformer.layers.1.attention.to_k.lora_B.weight": B[32:64].clone()},
    "DoRA": {"diffusion_model.layers.0.attention.out.lora_A.weight": A, "diffusion_model.layers.0.attention.out.lora_B.weight": B[:32].clone(),
             "diffusion_model.layers.0.attention.out.dora_scale": torch.full((1, 32), 3.0)},
}


@pytest.mark.parametrize("how, plan", [("float8, scaled", "none"), ("Q8_0", "sequential")])
@pytest.mark.parametrize("lora", LORAS)
def test_a_lora_on_packed_weights_computes_as_merged_and_is_given_back_to_the_bit(quantized, tmp_path, how, lora, plan):
    files, path = quantized("z-image", how), tmp_path / "ink.safetensors"
    small, numbers = load(files, Placement(torch.device("cpu"), torch.float32, torch.float32, plan)), load(files, numbers=plain)
    save_file(LORAS[lora], path)
    before, wanted, sets = computed(small), [Wanted(NetworkRequest("ink", 1.0, 0.5), path, version(path))], (NetworkSet(), NetworkSet())
    for networks, family in zip(sets, (small, numbers)):
        assert networks.apply(family.layers, wanted) == []
    assert torch.equal(computed(small)[1], computed(numbers)[1]) and not torch.equal(computed(small)[1], before[1])
    sets[0].restore()
    assert all(torch.equal(*pair) for pair in zip(computed(small), before))


# --- GGUF

T5_LLAMA = {"encoder.final_layer_norm.": "enc.output_norm.", "encoder.block.": "enc.blk.", "shared.": "token_embd.",
            **{f".{theirs}.": f".{ours}." for ours, theirs in T5_NAMES.items()}}


def test_t5_as_gguf_reads_a_prompt_end_to_end(flow_files, tmp_path):
    files, packed = flow_files("flux1-dev"), tmp_path / "t5.gguf"

    def renamed(name):
        for theirs, ours in T5_LLAMA.items():
            name = name.replace(theirs, ours)
        return name

    words = tmp_path / "t5.safetensors"
    save_file({name: tensor for name, tensor in load_file(files.more_encoders[0]).items() if "embed_tokens" not in name}, words)
    gguf_file(words, packed, "Q8_0", "t5encoder", renamed)
    transformer = gguf_file(files.transformer, tmp_path / "flux.gguf", "Q8_0", "flux")
    small, numbers = (families.load(path, FLOAT32, components=families.Components(files.vae, (files.text_encoder, encoder)))
                      for path, encoder in ((transformer, packed), (plain(transformer), plain(packed))))
    drawn = [pixels(made(model, prompt="a red fox")) for model in (small, numbers)]
    assert (drawn[0] == drawn[1]).all() and packed_layers(small) and any(isinstance(layer, PackedLayer) for layer in small.modules["text_encoder_2"].modules())


def test_qwen25_vl_as_gguf_which_cannot_see_is_refused_with_a_sentence(flow_files, tmp_path):
    files = flow_files("qwen-image")
    half = tmp_path / "words.safetensors"
    save_file({name: tensor for name, tensor in load_file(files.text_encoder).items() if not name.startswith("visual.")}, half)
    gguf_file(half, tmp_path / "words.gguf", "Q8_0", "qwen2vl", llama_name)
    with pytest.raises(ModelError, match='^"words.gguf" is the part of Qwen2.5-VL that reads words, without the one that sees'):
        families.load(files.transformer, FLOAT32, components=families.Components(files.vae, (tmp_path / "words.gguf",)))


def write_gguf(path, tensors, **values):
    writer = gguf.GGUFWriter(path, "flux")
    for name, value in values.items():
        writer.add_array(name, value) if isinstance(value, list) else writer.add_string(name, value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_blocks(kind, rows, columns):
    """Bytes of a quantized matrix with finite scales."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    drawn = np.random.default_rng(3)
    while True:
        data = drawn.integers(0, 256, (rows, columns // block * size), np.uint8)
        halves = data.reshape(-1, size)
        for start in (0, 2, size - 4, size - 2):  # where some kind has its scales: no infinities
            halves[:, start + 1] &= 0x3B
        if np.isfinite(gguf.quants.dequantize(data, kind)).all():
            return data


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_gguf_is_unpacked_to_the_numbers_that_its_package_gives(tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    data = random_blocks(kind, 3, 512)
    expected = torch.from_numpy(np.array(gguf.quants.dequantize(data, kind)))
    weights = Weights(write_gguf(tmp_path / "a.gguf", {"m": (data, kind)}))
    assert weights.shape("m") == (3, 512) and weights.packing("m") == kind.name and weights.dtype("m") == torch.float32
    torch.testing.assert_close(weights["m"], expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_shapes_that_did_not_fit_the_format_are_restored(tmp_path):
    data = gguf.quants.quantize(np.arange(4 * 2 * 3 * 3 * 4, dtype=np.float32).reshape(9, 32), gguf.GGMLQuantizationType.Q8_0)
    weights = Weights(write_gguf(tmp_path / "a.gguf", {"conv": (data, gguf.GGMLQuantizationType.Q8_0)}, **{"comfy.gguf.orig_shape.conv": [8, 4, 3, 3]}))
    assert weights["conv"].shape == (8, 4, 3, 3) and weights.packing("conv") is None


@pytest.mark.parametrize("architecture, keys", [
    (gguf.MODEL_ARCH.QWEN3, lambda: qwen3_names()), (gguf.MODEL_ARCH.T5ENCODER, lambda: t5_names())])
def test_names_of_llama_cpp_become_those_of_transformers(architecture, keys):
    """By gguf's own table, for every tensor of the class."""
    table, names = gguf.get_tensor_name_map(architecture, 2), keys()
    for name in names:
        module, _, kind = name.rpartition(".")
        assert transformers_name(f"{table.get_name(module)}.{kind}") in (name, f"model.{name}"), name
    assert len(names) > 15


def qwen3_names():
    from transformers import Qwen3Config, Qwen3Model

    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(num_hidden_layers=2, hidden_size=64, intermediate_size=64, vocab_size=64))
    return [f"model.{name}" for name in model.state_dict()]


def t5_names():
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        model = T5EncoderModel(T5Config(num_layers=2, d_model=64, d_ff=64, vocab_size=64, feed_forward_proj="gated-gelu"))
    return [name for name in model.state_dict() if "embed_tokens" not in name and "shared" not in name]


def header(*, version=3, tensors=1, values=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def tensor_info(name=b"m", shape=(32, 2), kind=8, offset=0):
    return struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize("content, said", [
    (b"GGUF", "its header ends too early"),
    (header(version=1), "its version is 1, valid: 2, 3"),
    (header(version=3 << 24), "its version is 50331648"),
    (header(tensors=1 << 60), "its header has 1152921504606846976 tensors"),
    (header(values=1, rest=struct.pack("<Q", 1 << 40)), "a text in its header has 1099511627776 bytes"),
    (header(values=1, rest=struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 1 << 62)), "its header has more than"),
    (header(values=1, rest=struct.pack("<Q1sI", 1, b"a", 77)), "a value in its header is of the unknown type 77"),
    (header(rest=tensor_info(kind=99)), 'tensor "m" is of the unknown type 99'),
    (header(rest=tensor_info(kind=16)), 'tensor "m" is IQ2_XXS, which is not supported; valid: F32, F16, BF16, Q4_0'),
    (header(rest=tensor_info(shape=(31, 2))), 'tensor "m" has rows of 31 numbers, which are no whole blocks of 32'),
    (header(rest=tensor_info()) + b"\0" * 64, 'tensor "m" reaches beyond its end'),
    (header(rest=tensor_info(shape=(32, 1 << 62))) + b"\0" * 64, 'tensor "m" reaches beyond its end'),
    (header(rest=tensor_info(shape=(2,) * 9)), 'tensor "m" has 9 axes'),
])
def test_a_damaged_or_foreign_gguf_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        Weights(path)
    assert str(refused.value).startswith('"a.gguf" cannot be read as GGUF, it is damaged or cut short: ' + said)


def test_a_model_cut_short_and_one_of_another_kind_are_refused_with_a_sentence(quantized, tmp_path):
    files = quantized("z-image", "Q8_0")
    cut, other = tmp_path / "cut.gguf", tmp_path / "other.gguf"
    cut.write_bytes(files.transformer.read_bytes()[:-100])
    write_gguf(other, {"blk.0.attn_q.weight": (np.zeros((4, 32), np.float32), gguf.GGMLQuantizationType.F32)})
    for path, said in ((cut, "reaches beyond its end"), (other, '"other.gguf" is a language model; a text encoder belongs in the text_encoder folder')):
        with pytest.raises(ModelError, match=said):
            families.describe(path)


def test_linear_layers_alone_are_packed(quantized):
    family = load(quantized("flux2-klein", "float8"))
    kinds = {type(layer).__name__ for layer in packed_layers(family)}
    assert kinds == {"PackedLinear", "PackedEmbedding"}
    assert not any(isinstance(layer, nn.Linear) and layer.weight.dtype != torch.float32 for module in family.modules.values() for layer in module.modules())
    assert all(name.endswith((".data", "._scale")) for name, tensor in family.modules["transformer"].state_dict().items() if tensor.dtype == torch.uint8)

"""Networks that enlarge: recognised by their tensors, read with the right sizes, and computing what their papers say."""

import pytest
import torch
from safetensors.torch import save_file

from pipeline import upscalers
from pipeline.errors import ModelError
from pipeline.upscalers import rrdb
from tests.upscalers import reference, tiny
from tools import convert as converter

PICTURE = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(3))

NEW = {"first": "conv_first", "block": "body.{block}.rdb{dense}", "ending": "", "trunk": "conv_body", "ups": ("conv_up1", "conv_up2"),
       "hr": "conv_hr", "last": "conv_last"}
OLD = {"first": "model.0", "block": "model.1.sub.{block}.RDB{dense}", "ending": ".0", "trunk": "model.1.sub.2",
       "ups": ("model.3", "model.6"), "hr": "model.8", "last": "model.10"}


def loaded(tensors, tmp_path):
    return upscalers.load(tiny.saved(tensors, tmp_path / "tiny.safetensors"))


def check(network, expected, picture=PICTURE):
    got = network.enlarge(picture)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-5 * max(expected.abs().max().item(), 1)


@pytest.mark.parametrize("scale, ups, fold", [
    (4, ("conv_up1", "conv_up2"), 1), (2, ("conv_up1", "conv_up2"), 2), (1, ("conv_up1", "conv_up2"), 4),
    (8, ("conv_up1", "conv_up2", "conv_up3"), 1)])
def test_real_esrgan_computes_as_its_paper_says(tmp_path, scale, ups, fold):
    tensors = tiny.real_esrgan(scale)
    network = loaded(tensors, tmp_path)
    assert network.scale == scale
    check(network, reference.rrdb(tensors, PICTURE, NEW | {"ups": ups}, 2, fold))


@pytest.mark.parametrize("scale, names", [
    (4, OLD), (1, OLD | {"ups": (), "hr": "model.2", "last": "model.4"}), (2, OLD | {"ups": ("model.3",), "hr": "model.5", "last": "model.7"}),
    (8, OLD | {"ups": ("model.3", "model.6", "model.9"), "hr": "model.11", "last": "model.13"})])
def test_esrgan_computes_as_its_paper_says(tmp_path, scale, names):
    tensors = tiny.esrgan(scale)
    network = loaded(tensors, tmp_path)
    assert network.scale == scale
    check(network, reference.rrdb(tensors, PICTURE, names, 2))


def test_esrgans_second_way_of_naming_is_the_same_network(tmp_path):
    tensors = tiny.real_esrgan()
    names = (("body.", "RRDB_trunk."), (".rdb", ".RDB"), ("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv"))

    def second(name):
        for new, old in names:
            name = name.replace(new, old)
        return name

    expected = loaded(tensors, tmp_path).enlarge(PICTURE)
    assert torch.equal(loaded({second(name): tensor for name, tensor in tensors.items()}, tmp_path).enlarge(PICTURE), expected)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact_computes_as_its_paper_says(tmp_path, scale):
    tensors = tiny.compact(scale)
    network = loaded(tensors, tmp_path)
    assert network.scale == scale
    check(network, reference.compact(tensors, PICTURE, 2, scale))


@pytest.mark.parametrize("scale, normalizes", [(2, True), (4, False)])
def test_span_with_its_branches_merged_computes_what_they_do_apart(tmp_path, scale, normalizes):
    tensors = tiny.span(scale, normalizes=normalizes)
    network = loaded(tensors, tmp_path)
    assert network.scale == scale
    check(network, reference.span(tensors, PICTURE, scale, normalizes=normalizes))


def test_span_saved_after_merging_is_read_as_it_is(tmp_path):
    tensors = tiny.span()
    network = loaded(tensors, tmp_path)
    merged = {name: tensor for name, tensor in tensors.items() if ".sk." not in name and ".conv." not in name}
    for name, module in network.module.named_modules():
        if f"{name}.eval_conv.weight" in merged:
            merged |= {f"{name}.eval_conv.weight": module.weight.data.contiguous(), f"{name}.eval_conv.bias": module.bias.data}
    assert torch.equal(loaded(merged, tmp_path).enlarge(PICTURE), network.enlarge(PICTURE))


@pytest.mark.parametrize("scale, light", [(2, False), (3, False), (4, False), (2, True)])
def test_dat_computes_as_its_paper_says(tmp_path, scale, light):
    picture = PICTURE[..., :7, :10]  # not a multiple of the window, which is 2 high and 4 wide
    tensors = tiny.dat(scale, light=light)
    network = loaded(tensors, tmp_path)
    assert network.scale == scale
    check(network, reference.dat(tensors, picture, scale, 4, (2, 4), (4, 3), light=light), picture)


def test_a_folded_picture_of_any_size_is_enlarged(tmp_path):
    network = loaded(tiny.real_esrgan(2), tmp_path)
    assert network.enlarge(PICTURE[..., :11, :15]).shape == (1, 3, 22, 30)
    assert network.enlarge(PICTURE[..., :1, :1]).shape == (1, 3, 2, 2)


@pytest.mark.parametrize("prefix", ["params_ema.", "params.", "module."])
def test_what_training_puts_in_front_of_names_is_left_out(tmp_path, prefix):
    tensors = tiny.compact()
    expected = loaded(tensors, tmp_path).enlarge(PICTURE)
    assert torch.equal(loaded({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path).enlarge(PICTURE), expected)


def test_half_precision_is_computed_in_float32(tmp_path):
    network = loaded({name: tensor.half() for name, tensor in tiny.compact().items()}, tmp_path)
    assert network.enlarge(PICTURE).dtype == torch.float32


# What is known of published files. RealESRGAN_x4plus.pth: BasicSR's RRDBNet(3, 3, num_feat=64, num_block=23, num_grow_ch=32) as in
# Real-ESRGAN's inference_realesrgan.py, so 690 + 12 tensors; RealESRGAN_x4plus_anime_6B.pth: 6 blocks; ESRGAN_4x: 23 blocks by the
# names of xinntao's first release. realesr-general-x4v3.pth: SRVGGNetCompact(num_feat=64, num_conv=32), realesr-animevideov3.pth: 16.

@pytest.mark.parametrize("tensors, count, scale", [
    (lambda: tiny.real_esrgan(4, 23, 64, 32), 702, 4), (lambda: tiny.real_esrgan(4, 6, 64, 32), 192, 4),
    (lambda: tiny.real_esrgan(2, 23, 64, 32), 702, 2), (lambda: tiny.esrgan(4, 23, width=64, growth=32), 702, 4),
    (lambda: tiny.compact(4, 32, 64), 101, 4), (lambda: tiny.compact(4, 16, 64), 53, 4)])
def test_published_sizes_are_read(tmp_path, tensors, count, scale):
    made = tensors()
    assert len(made) == count
    network = loaded(made, tmp_path)
    assert network.scale == scale and network.enlarge(PICTURE[..., :4, :4]).shape == (1, 3, 4 * scale, 4 * scale)


def test_the_names_of_esrgans_first_release():
    # as listed in xinntao/ESRGAN's transer_RRDB_models.py, which renames them
    assert rrdb.current_names(["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.23.weight", "model.3.weight",
                               "model.6.weight", "model.8.weight", "model.10.weight"]) == {
        "conv_first.weight": "model.0.weight", "body.0.rdb1.conv1.weight": "model.1.sub.0.RDB1.conv1.0.weight",
        "conv_body.weight": "model.1.sub.23.weight", "conv_up1.weight": "model.3.weight", "conv_up2.weight": "model.6.weight",
        "conv_hr.weight": "model.8.weight", "conv_last.weight": "model.10.weight"}


# files that are something else

def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize("tensors, sentence", [
    ({}, "holds no upscaler that is known here; valid: RRDBNet"),
    ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2, 2)}, "holds no upscaler that is known here"),
    (without(tiny.real_esrgan(), "conv_hr.bias"), 'as RRDBNet (ESRGAN, Real-ESRGAN): the tensor "conv_hr.bias" is missing'),
    (without(tiny.real_esrgan(), "conv_first.weight"), 'the tensor "conv_first.weight" is missing'),
    (tiny.real_esrgan() | {"body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)}, "belongs to a variant that is not supported"),
    (tiny.real_esrgan() | {"conv_last.weight": torch.zeros(1, 8, 3, 3)}, 'must have the shape [3, 8, 3, 3], it has [1, 8, 3, 3]'),
    (tiny.real_esrgan() | {"conv_first.weight": torch.zeros(8, 1, 3, 3)}, "it takes pictures of 1 channels"),
    (tiny.real_esrgan() | {"conv_first.weight": torch.zeros(8)}, "must have 4 axes"),
    (without(tiny.compact(), "body.3.weight"), "between its convolutions there must be PReLU layers"),
    (tiny.compact() | {"body.6.weight": torch.zeros(7, 8, 3, 3)}, "the last layer's 7 channels do not fit three colours"),
    (without(tiny.span(), "conv_2.conv.1.bias"), 'the tensor "conv_2.conv.1.bias" is missing'),
    (tiny.span() | {"conv_2.conv.1.weight": torch.zeros(3, 3, 3, 3)}, 'the branches of "conv_2" do not fit'),
    (without(tiny.dat(), "layers.1.blocks.2.ffn.sg.conv.weight"), "is missing"),
    (tiny.dat() | {"layers.0.blocks.0.attn.attns.0.rpe_biases": torch.zeros(2, 2)}, "is not that of a window"),
    (tiny.dat() | {"layers.0.blocks.1.attn.temperature": torch.ones(5, 1, 1)}, "do not fit 5 heads"),
    ({f"body.{n}.rdb1.conv1.weight": torch.zeros(4, 8, 3, 3) for n in range(300)} | {"conv_first.weight": torch.zeros(8, 3, 3, 3)},
     "more than 200 blocks"),
])
def test_anything_else_is_one_sentence(tmp_path, tensors, sentence):
    save_file(tensors, tmp_path / "tiny.safetensors")
    with pytest.raises(ModelError) as refused:
        upscalers.load(tmp_path / "tiny.safetensors")
    assert str(refused.value).startswith('"tiny.safetensors"') and sentence in str(refused.value)


def test_a_published_pickle_is_read_after_its_conversion(tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "run_apart", lambda source, part, timeout: converter.write_safetensors(source, part))
    tensors = tiny.real_esrgan()
    torch.save({"params": tiny.real_esrgan(seed=1), "params_ema": tensors}, tmp_path / "RealESRGAN_x4plus.pth")  # as BasicSR saves
    converted = converter.convert(tmp_path / "RealESRGAN_x4plus.pth").output
    assert torch.equal(upscalers.load(converted).enlarge(PICTURE), loaded(tensors, tmp_path).enlarge(PICTURE))


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
    torch.save(tiny.compact(), tmp_path / "tiny.pth")
    with pytest.raises(ModelError, match="python -m tools.convert"):
        upscalers.load(tmp_path / "tiny.pth")

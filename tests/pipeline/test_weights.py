import json
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ModelError
from pipeline.weights import Weights, converted


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(4, dtype=torch.bfloat16)}, path, {"ss_name": "b"})
    return path


def test_tensors_are_got_by_name(file):
    weights = Weights(file)
    assert set(weights) == {"x", "y"} and len(weights) == 2 and "x" in weights and "z" not in weights
    assert torch.equal(weights["x"], torch.arange(6.0).reshape(2, 3))
    assert weights["y"].dtype == torch.bfloat16
    assert weights.metadata == {"ss_name": "b"}
    with pytest.raises(KeyError):
        weights["z"]


def test_shapes_are_known_without_reading(file):
    assert Weights(file).shape("x") == (2, 3)


def test_a_passing_tensor_is_the_same(file):
    weights = Weights(file)
    assert torch.equal(weights.passing("x"), weights["x"]) and weights.dtype("x") == torch.float32
    assert torch.equal(weights.passing("y"), torch.ones(4, dtype=torch.bfloat16))


def test_what_was_got_does_not_change_with_the_file(file):
    got = Weights(file)["x"]
    with file.open("r+b") as stream:
        stream.seek(-40, 2)
        stream.write(b"\xff" * 40)
    assert torch.equal(got, torch.arange(6.0).reshape(2, 3))


def test_a_file_that_becomes_shorter_is_told(file):
    weights = Weights(file)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 16)
    with pytest.raises(ModelError, match='"x" cannot be read: the file was cut short after it was opened|"y" cannot be read: the file was cut'):
        weights["x"], weights["y"]


def test_a_tensor_of_nothing_and_one_at_an_odd_place_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    body = b"\1" + torch.tensor([1.5, 2.5]).numpy().tobytes()
    entries = {"a": tensor(0, 1, dtype="U8"), "b": tensor(1, 9, shape=(2,)), "c": tensor(9, 9, shape=(0, 3))}
    path.write_bytes(header(entries, body))
    weights = Weights(path)
    assert weights["b"].tolist() == [1.5, 2.5] and weights["c"].shape == (0, 3)


@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("target", [torch.float16, torch.bfloat16, torch.float32])
def test_converted_is_what_torch_gives(source, target):
    tensor = (torch.randn(700, 801) * 10 ** torch.linspace(-9, 6, 801)).to(source).t()
    result = converted(tensor, torch.device("cpu"), target)
    assert torch.equal(result, tensor.to(target)) and result.data_ptr() != tensor.data_ptr()


def test_a_file_without_metadata_has_none(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "a.safetensors")
    assert Weights(tmp_path / "a.safetensors").metadata == {}


def header(entries, body=b"\0" * 8, length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(start, end, *, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_begins_as_a_pickle_does_is_read(tmp_path, length):
    """80 02, 80 03, 80 04, 80 05."""
    entries = json.dumps({"__metadata__": {"a": ""}, "x": tensor(0, 4)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(header(entries.ljust(length), b"\0" * 4))
    assert Weights(path)["x"].tolist() == [0.0]


# damaged and hostile files

HOSTILE = {
    "empty": b"",
    "shorter than a length": b"\x08\0\0",
    "no header": struct.pack("<Q", 8),
    "a header length beyond the file": header({"a": tensor(0, 4)}, length=1 << 20),
    "a huge header length": header({"a": tensor(0, 4)}, length=2**63),
    "the largest header length": header({"a": tensor(0, 4)}, length=2**64 - 1),
    "a header length of 0": header({"a": tensor(0, 4)}, length=0),
    "no JSON": header(b"{nonsense"),
    "JSON that is no object": header(b"[1, 2]"),
    "JSON that is nested too deep": header(b"[" * 100_000),
    "no text": header(b"\xff\xfe{}"),
    "overlapping tensors": header({"a": tensor(0, 8, shape=(2,)), "b": tensor(4, 8)}),
    "the same place twice": header({"a": tensor(0, 4), "b": tensor(0, 4)}),
    "a hole between tensors": header({"a": tensor(0, 4), "b": tensor(8, 12)}, b"\0" * 12),
    "negative offsets": header({"a": tensor(-4, 0)}),
    "offsets the wrong way round": header({"a": tensor(4, 0)}),
    "an end beyond the file": header({"a": tensor(0, 4096, shape=(1024,))}),
    "a file cut short": header({"a": tensor(0, 8, shape=(2,))}, b"\0" * 4),
    "something behind the last tensor": header({"a": tensor(0, 4)}, b"\0" * 64),
    "a shape larger than its place": header({"a": tensor(0, 4, shape=(1000, 1000))}),
    "a shape that overflows": header({"a": tensor(0, 4, shape=(2**62, 2**62))}),
    "a negative shape": header({"a": tensor(0, 4, shape=(-1,))}),
    "an unknown dtype": header({"a": tensor(0, 4, dtype="F12")}),
    "a name that fills the message": header({"a\n" * 10_000: tensor(0, 4)}),
    "metadata that are no text": header({"__metadata__": {"a": {}}, "a": tensor(0, 4)}, b"\0" * 4),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_or_hostile_file_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        dict(Weights(path))
    assert str(caught.value).startswith('"a.safetensors" cannot be read as safetensors, it is damaged or cut short')
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it was run')",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_renamed_is_refused_whatever_its_protocol(tmp_path, protocol):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pickle.dumps({"a": Evil()}, protocol))
    with pytest.raises(ModelError):
        Weights(path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.PT", "a.bin", "a.pth"])
def test_what_torch_has_saved_is_refused_and_the_converter_named(tmp_path, name, new_format):
    torch.save({"a": torch.ones(1)}, tmp_path / name, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ModelError, match=rf'"{name}" is a pickle.* python -m tools.convert .*{name}'):
        Weights(tmp_path / name)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match='"a.safetensors" cannot be read: No such file or directory'):
        Weights(tmp_path / "a.safetensors")


def test_a_folder_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        Weights(tmp_path)


def test_a_tensor_that_the_file_has_lost_since_is_one_sentence(file):
    assert Weights(file).shape("y") == (4,)
    with pytest.raises(ModelError, match="damaged or cut short"):
        file.write_bytes(file.read_bytes()[:-4])
        Weights(file)

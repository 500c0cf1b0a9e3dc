import base64
import io
import json
import pickle
import stat
import subprocess
import sys
import zipfile
from collections import OrderedDict
from hashlib import sha256

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline.embeddings import read_embedding
from tests.conftest import ROOT
from tools import convert as converter
from tools.convert import ConvertError, convert, main, write_safetensors


@pytest.fixture
def here(monkeypatch):
    """Reading in this process: what the reader does is the same, and starting one for each test takes seconds."""
    def run(source, part, timeout):
        return write_safetensors(source, part)

    monkeypatch.setattr(converter, "run_apart", run)


def save(path, data, **options):
    torch.save(data, path, **options)
    return path


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, trace, function="open"):
        self.trace, self.function = trace, function

    def __reduce__(self):
        import os
        functions = {"open": (open, (str(self.trace), "w")), "system": (os.system, (f"touch {self.trace}",)),
                     "eval": (eval, (f"open({str(self.trace)!r}, 'w')",))}
        return functions[self.function]


# what is read

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}
LAYOUTS = {
    "flat": (WEIGHTS, []),
    "state_dict": ({"state_dict": WEIGHTS}, []),
    "ordered": (OrderedDict(state_dict=OrderedDict(WEIGHTS)), []),
    "trainer": ({"epoch": 3, "global_step": 470000, "state_dict": WEIGHTS, "optimizer_states": [{"state": {}}]},
                ["epoch", "global_step", "optimizer_states"]),
    "upscaler": ({"params": {"a.weight": torch.zeros(1)}, "params_ema": WEIGHTS}, ["params"]),
    "upscaler without an average": ({"params": WEIGHTS}, []),
    "strays": (WEIGHTS | {"step": 5, 7: torch.ones(1), "nested": {"x": torch.ones(1)}}, ["step", "7", "nested"]),
    "parameters": ({name: torch.nn.Parameter(tensor) for name, tensor in WEIGHTS.items()}, []),
}


@pytest.mark.parametrize("data, left_out", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("new_format", [True, False])
def test_the_tensors_of_every_layout_are_kept(here, tmp_path, data, left_out, new_format):
    source = save(tmp_path / "model.ckpt", data, _use_new_zipfile_serialization=new_format)
    report = convert(source)
    assert (report.output, report.tensors, report.left_out) == (tmp_path / "model.safetensors", 2, left_out)
    converted = load_file(report.output)
    assert converted.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert torch.equal(converted[name], tensor) and converted[name].dtype == tensor.dtype
    assert metadata(report.output)["source_sha256"] == sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize("new_format", [True, False])
def test_tensors_that_share_memory_or_lie_crosswise_come_out_whole(here, tmp_path, new_format):
    base = torch.arange(12.0).reshape(3, 4)
    data = {"base": base, "tied": base, "transposed": base.T, "row": base[1], "repeated": torch.ones(1).expand(3),
            "none": base[:0]}
    converted = load_file(convert(save(tmp_path / "a.pt", data, _use_new_zipfile_serialization=new_format)).output)
    assert converted.keys() == data.keys()
    for name, tensor in data.items():
        assert torch.equal(converted[name], tensor), name


def fake_module(monkeypatch, name, **members):
    """A module that only the process that saves has."""
    module = type(sys)(name)
    for key, member in members.items():
        member.__module__, member.__qualname__ = name, key
        setattr(module, key, member)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_what_lightning_leaves_is_left_out_and_never_imported(here, tmp_path, monkeypatch):
    class ModelCheckpoint:
        def __init__(self):
            self.best = torch.ones(1)

    with monkeypatch.context() as patch:
        fake_module(patch, "pytorch_lightning")
        fake_module(patch, "pytorch_lightning.callbacks")
        fake_module(patch, "pytorch_lightning.callbacks.model_checkpoint", ModelCheckpoint=ModelCheckpoint)
        source = save(tmp_path / "model.ckpt", {"callbacks": {ModelCheckpoint: {"best": 0.5}}, "one": ModelCheckpoint(),
                                                "state_dict": WEIGHTS})
    report = convert(source)
    assert report.left_out == ["callbacks", "one"]
    assert load_file(report.output).keys() == WEIGHTS.keys()
    assert "pytorch_lightning" not in sys.modules


def test_a_lora_keeps_the_hash_that_a1111_knows_it_by(here, tmp_path):
    source = save(tmp_path / "a.pt", {"lora_unet_x.lora_up.weight": torch.ones(2, 1)})
    assert metadata(convert(source).output)["sshs_model_hash"] == sha256(source.read_bytes()).hexdigest()


def test_a_checkpoint_has_no_lora_hash(here, tmp_path):
    assert "sshs_model_hash" not in metadata(convert(save(tmp_path / "a.pt", WEIGHTS)).output)


# embeddings

VECTORS = torch.arange(6.0).reshape(2, 3)
EMBEDDINGS = {
    "A1111": {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "other", "step": 10,
              "sd_checkpoint": "4bdfc29c", "sd_checkpoint_name": None},
    "A1111 at first": {"string_to_token": {"*": torch.tensor(265)},
                       "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)})},
    "diffusers": {"<cat>": VECTORS},
}


@pytest.mark.parametrize("data", EMBEDDINGS.values(), ids=EMBEDDINGS)
def test_an_embedding_is_used_as_its_pickle_was(here, tmp_path, data):
    source = save(tmp_path / "cat.pt", data)
    embedding = read_embedding(convert(source).output)
    assert embedding.name == "cat"
    assert torch.equal(embedding.vectors_for("clip_l"), VECTORS)
    assert embedding.hash == sha256(source.read_bytes()).hexdigest()
    assert (embedding.step, embedding.sd_checkpoint) == (data.get("step"), data.get("sd_checkpoint"))


def test_an_embedding_of_sdxl_keeps_both_its_parts(here, tmp_path):
    converted = convert(save(tmp_path / "a.pt", {"clip_l": VECTORS, "clip_g": VECTORS.repeat(1, 2)})).output
    assert {name: tensor.shape[1] for name, tensor in read_embedding(converted).vectors.items()} == {"clip_l": 3, "clip_g": 6}


@pytest.mark.parametrize("params", [{}, {"*": VECTORS, "+": VECTORS}, {"*": 1}, None, [VECTORS]])
def test_an_embedding_without_its_one_tensor_is_refused(here, tmp_path, params):
    with pytest.raises(ConvertError, match="string_to_param must hold one tensor"):
        convert(save(tmp_path / "a.pt", {"string_to_param": params}))


def picture(path, text):
    info = PngImagePlugin.PngInfo()
    if text is not None:
        info.add_text("sd-ti-embedding", text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def encoded(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def test_an_embedding_in_a_picture_is_read(here, tmp_path):
    data = {"string_to_param": {"*": {"TORCHTENSOR": VECTORS.tolist()}}, "name": "cat", "step": 3}
    embedding = read_embedding(convert(picture(tmp_path / "cat.png", encoded(data))).output)
    assert torch.equal(embedding.vectors_for("clip_l"), VECTORS) and embedding.step == 3


@pytest.mark.parametrize("text", [None, "", "!", encoded([]), encoded({}), encoded({"string_to_param": {"*": [1]}}),
                                  encoded({"string_to_param": {"*": {"TORCHTENSOR": [[1], [2, 3]]}}}), "W1tb" * 5000])
def test_a_picture_without_one_is_one_sentence(here, tmp_path, text):
    with pytest.raises(ConvertError, match="holds no readable embedding"):
        convert(picture(tmp_path / "cat.png", text))


# hostile and damaged files

@pytest.mark.parametrize("function, name", [("open", "open"), ("system", r"\w+\.system"), ("eval", "eval")])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_hostile_pickle_is_named_and_does_nothing(here, tmp_path, function, name, new_format):
    source = save(tmp_path / "a.ckpt", {"state_dict": WEIGHTS, "x": Evil(tmp_path / "trace", function)},
                  _use_new_zipfile_serialization=new_format)
    with pytest.raises(ConvertError, match=rf"was not read: it asks for (io\.)?{name}, which is not a tensor and could run code"):
        convert(source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_hostile_pickle_does_nothing_in_any_protocol(here, tmp_path, protocol):
    source = tmp_path / "a.bin"
    source.write_bytes(pickle.dumps({"x": Evil(tmp_path / "trace")}, protocol))
    with pytest.raises(ConvertError):
        convert(source)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def whole(data=WEIGHTS):
    buffer = io.BytesIO()
    torch.save(data, buffer)
    return buffer.getvalue()


def zipped(pickled):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


DAMAGED = {
    "empty": b"", "text": b"hello", "half": whole()[:300], "an empty zip": zipped(b""), "no end": zipped(b"\x80\x02}"),
    "a stack that runs out": zipped(b"\x80\x02tq\x00."),
    "a torch module": zipped(b"\x80\x02ctorch.nn.modules.linear\nLinear\n."),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_sentence(here, tmp_path, content):
    source = tmp_path / "a.pt"
    source.write_bytes(content)
    with pytest.raises(ConvertError) as caught:
        convert(source)
    assert str(source) in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("data", [[torch.ones(1)], torch.ones(1), 5, {}, {"state_dict": {}}, {"a": 1}, {1: torch.ones(1)}])
def test_a_file_without_tensors_by_name_is_refused(here, tmp_path, data):
    with pytest.raises(ConvertError, match="named tensors"):
        convert(save(tmp_path / "a.pt", data))


def test_a_view_that_would_fill_the_memory_is_refused(here, tmp_path):
    with pytest.raises(ConvertError, match="its tensors take 4000000000000 bytes of a "):
        convert(save(tmp_path / "a.pt", {"a": torch.ones(1).expand(10**6, 10**6)}))


# files and the process

def test_nothing_is_written_over_unless_forced(here, tmp_path):
    source = save(tmp_path / "a.pt", WEIGHTS)
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(ConvertError, match="exists already; --force overwrites it"):
        convert(source)
    assert (tmp_path / "a.safetensors").read_text() == "mine"
    assert convert(source, force=True).tensors == 2


def test_a_failed_conversion_leaves_the_old_file(here, tmp_path):
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(ConvertError):
        convert(save(tmp_path / "a.pt", {}), force=True)
    assert (tmp_path / "a.safetensors").read_text() == "mine"


@pytest.mark.parametrize("source, output, words", [
    ("none.pt", None, "does not exist"),
    (".", None, "does not exist"),
    ("a.txt", None, "is not named like a pickle; valid: .ckpt, .pt, .pth, .bin, .png"),
    ("a.pt", "b.pt", "must end in .safetensors"),
    ("a.pt", "nowhere/b.safetensors", "cannot be written"),
    ("a.safetensors", None, "choose another --output"),
])
def test_what_cannot_be_is_one_sentence(here, tmp_path, source, output, words):
    for name in ("a.pt", "a.txt", "a.safetensors"):
        save(tmp_path / name, WEIGHTS)
    with pytest.raises(ConvertError, match=words):
        convert(tmp_path / source, output and tmp_path / output, force=True)


def test_a_pickle_called_safetensors_can_be_converted(here, tmp_path):
    source = save(tmp_path / "a.safetensors", WEIGHTS)
    assert load_file(convert(source, tmp_path / "b.safetensors").output).keys() == WEIGHTS.keys()


def test_the_new_file_is_as_readable_as_others(here, tmp_path):
    (tmp_path / "other").touch()
    output = convert(save(tmp_path / "a.pt", WEIGHTS)).output
    assert stat.S_IMODE(output.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_process_that_dies_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "answer_with_json", die)
    with pytest.raises(ConvertError, match="the process that read it ended with code 9, perhaps out of memory"):
        convert(save(tmp_path / "a.pt", WEIGHTS))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not bound a process's memory")
def test_a_pickle_that_asks_for_much_memory_is_one_sentence(tmp_path):
    source = tmp_path / "a.pt"
    size = pickle.LONG1 + b"\x05" + (2**34).to_bytes(5, "little")
    source.write_bytes(zipped(b"\x80\x02cbuiltins\nbytearray\n" + size + b"\x85R."))
    with pytest.raises(ConvertError, match="takes more memory than a file of its size should"):
        convert(source)


def test_a_process_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(ConvertError, match="could not be read within 0 seconds"):
        convert(save(tmp_path / "a.pt", WEIGHTS), timeout=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def die(source, part, answers):
    """What a process does whose memory runs out."""
    import os
    os._exit(9)


def test_the_command_converts_in_a_process_of_its_own_and_says_what_it_did(tmp_path):
    good = save(tmp_path / "good.ckpt", {"state_dict": WEIGHTS, "epoch": 3})
    bad = save(tmp_path / "bad.ckpt", {"x": Evil(tmp_path / "trace")})
    done = subprocess.run([sys.executable, "-m", "tools.convert", good, bad], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == f"{tmp_path / 'good.safetensors'}: tensors written: 2; left out: epoch\n"
    assert done.stderr.count("\n") == 1 and "which is not a tensor and could run code" in done.stderr
    assert not (tmp_path / "trace").exists()
    assert load_file(tmp_path / "good.safetensors").keys() == WEIGHTS.keys()


def test_one_output_is_for_one_file(capsys):
    with pytest.raises(SystemExit):
        main(["a.pt", "b.pt", "--output", "c.safetensors"])
    assert "--output is for one FILE" in capsys.readouterr().err

"""The flow families end where diffusers' own pipelines end, from every layout of files."""

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from pipeline import families
from tests.families import flow_runs
from tests.families.conftest import FLOAT32
from tests.families.flow_runs import CLOSE, KINDS, LAYOUTS

USES = [(kind, use) for kind, what in KINDS.items() for use in what.uses]
SINGLE_FILES = {"z-image": diffusers.ZImageTransformer2DModel, "flux2-klein": diffusers.Flux2Transformer2DModel}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_holds_the_same_weights(kind, layout, flow_files, flow_model):
    for name, module in flow_model(kind, layout).modules.items():
        whole = flow_files(kind).modules[name]
        ours, theirs = module.state_dict(), dict((whole.encoder if isinstance(whole, T5EncoderModel) else whole).state_dict())
        theirs.pop("bn.num_batches_tracked", None)  # for training
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("kind, use", USES)
def test_a_whole_run_ends_where_diffusers_ends(kind, use, flow_files, flow_model):
    assert flow_runs.difference(KINDS[kind], flow_files(kind), flow_model(kind, "component files"), use) < CLOSE


@pytest.mark.parametrize("kind", SINGLE_FILES)
def test_diffusers_reads_the_same_from_the_transformer_s_file(kind, flow_files, flow_model):
    """Its converter knows the names of the published files."""
    files = flow_files(kind)
    theirs = SINGLE_FILES[kind].from_single_file(str(files.transformer), config=str(files.folder), subfolder="transformer",
                                                 local_files_only=True, torch_dtype=torch.float32).state_dict()
    ours = flow_model(kind, "component files").modules["transformer"].state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_float8_weights_are_read(kind, flow_files, tmp_path):
    """As ComfyUI saves them: a scale for each large matrix, fused ones too."""
    files, state, meant = flow_files(kind), {}, {}
    for name, tensor in load_file(files.transformer).items():
        if tensor.ndim != 2 or name.endswith("pad_token"):
            state[name] = tensor
            continue
        scale = tensor.float().abs().max() / 448
        state[name], state[f"{name}_scale"] = (tensor.float() / scale).to(torch.float8_e4m3fn), scale
        meant[name] = state[name].float() * scale
    save_file(state, tmp_path / "small.safetensors")
    save_file({name: meant.get(name, tensor.float()).contiguous() for name, tensor in load_file(files.transformer).items()}, tmp_path / "large.safetensors")
    components = LAYOUTS["component files"](files)[1]
    small, large = (families.load(tmp_path / name, FLOAT32, components=components).modules["transformer"]
                    for name in ("small.safetensors", "large.safetensors"))
    for name, tensor in large.state_dict().items():
        owner, _, weight = name.rpartition(".")
        assert torch.equal(getattr(small.get_submodule(owner), weight), tensor)  # small ones stay packed, and unpack when asked

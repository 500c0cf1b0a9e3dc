"""Both formats of every family: recognised by what is in them, and the same network from either."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import families
from pipeline.families.cond import Encoding
from pipeline.families.prediction import Eps, V
from pipeline.geometry import Size
from tests.families import tiny

PROMPTS = ["a (red:1.3) circle, " * 20, "a blue square"]
CONDITIONS = Encoding(size=Size(96, 64), crop_top=8)
NOISE = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
SIZE = Size(96, 64)
PIXELS = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
MASK = torch.zeros(1, 1, 64, 96)
MASK[..., 16:40, 24:80] = 1


@pytest.fixture(params=tiny.KINDS)
def kind(request):
    return request.param


# what is recognised

@pytest.mark.parametrize("layout", [0, 1])
def test_the_family_is_told_by_what_is_inside(kind, layout, checkpoint, tmp_path):
    anonymous = tmp_path / "flux-turbo-v7.safetensors"  # a name says nothing
    anonymous.symlink_to(checkpoint(kind)[layout])
    expected = "sdxl-refiner" if "refiner" in kind else kind.partition("-")[0]
    info = families.describe(anonymous)
    assert (info.family, info.name if layout else "flux-turbo-v7") == (expected, "flux-turbo-v7")
    assert info.native_size == {"sd1": 512, "sd2": 768}.get(expected, 1024)


@pytest.mark.parametrize("layout", [0, 1])
def test_what_the_network_predicts_is_found(kind, layout, checkpoint, load):
    prediction = load(checkpoint(kind)[layout]).prediction(SIZE)
    assert type(prediction) is (V if kind.endswith("-v") else Eps)
    assert prediction.sigmas[-1].item() == pytest.approx(4518.76 if tiny.KINDS[kind].zero_snr else 14.6146, rel=1e-4)


@pytest.mark.parametrize("layout", [0, 1])
def test_what_the_network_sees_besides_is_found(kind, layout, checkpoint, load):
    family = load(checkpoint(kind)[layout])
    assert family.sees == {"edit": "source", "inpainting": "masked source"}.get(kind.rpartition("-")[2], "nothing")


def test_a_family_has_its_latent_scale(checkpoint, load):
    assert load(checkpoint("sd2")[1]).latent_format.scale == 0.18215
    assert load(checkpoint("sdxl")[1]).latent_format.scale == 0.13025


# the same from either

def test_both_layouts_give_the_same_weights(kind, checkpoint, load):
    folder, file = map(load, checkpoint(kind))
    assert folder.modules.keys() == file.modules.keys()
    for name, module in folder.modules.items():
        ours = file.modules[name].state_dict()
        assert ours.keys() == module.state_dict().keys()
        assert all(torch.equal(tensor, ours[key]) for key, tensor in module.state_dict().items())


@torch.inference_mode()
def test_both_layouts_give_the_same_latents(kind, checkpoint, load):
    def answers(family):
        cond = family.encode_prompts(PROMPTS, CONDITIONS)
        image_cond = family.image_conditioning(PIXELS, NOISE, MASK, mask_weight=1.0)
        latent = family.encode_image(PIXELS)
        output = family.denoise(NOISE, torch.tensor([500.0, 20.5]), cond, image_cond)
        return cond.tokens, latent, output, family.decode(latent[:1])

    for folder, file in zip(*map(answers, map(load, checkpoint(kind)))):
        assert torch.equal(folder, file)


@torch.inference_mode()
def test_a_prompt_changes_the_latents(kind, checkpoint, load):
    family = load(checkpoint(kind)[1])
    cond = family.encode_prompts(PROMPTS, Encoding())
    image_cond = family.image_conditioning(PIXELS, NOISE, None, mask_weight=1.0)[[0, 0]]
    one, other = family.denoise(NOISE[[0, 0]], torch.tensor([500.0, 500.0]), cond, image_cond)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_all_weights_are_in_the_precision_asked_for(precision, checkpoint):
    place = families.placement.choose("cpu", precision)
    modules = families.load(checkpoint("sdxl")[1], place).modules
    dtypes = {name: {tensor.dtype for tensor in module.state_dict().values()} for name, module in modules.items()}
    assert dtypes == dict.fromkeys(("unet", "text_encoder", "text_encoder_2"), {place.dtype}) | {"vae": {place.vae_dtype}}


def test_loading_tells_how_far_it_is(checkpoint):
    shares = []
    families.load(checkpoint("sd1")[1], families.placement.choose("cpu", "float32"), progress=shares.append)
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] == 1.0


# the .yaml beside

YAML = """
model:
  params:
    parameterization: v
    scale_factor: 0.5
    unet_config: {params: {num_heads: 4}}
    cond_stage_config: {params: {version: my-clip}}
"""


@pytest.fixture
def beside(checkpoint, tmp_path):
    """A copy of the SD1 file with a .yaml beside it and the text encoder's folder above."""
    file = tmp_path / "Stable-diffusion" / "my.model.safetensors"
    file.parent.mkdir()
    file.symlink_to(checkpoint("sd1")[1])
    file.with_suffix(".yaml").write_text(YAML)
    (tmp_path / "my-clip").mkdir()
    (tmp_path / "my-clip" / "config.json").write_text(json.dumps({"num_attention_heads": 2, "hidden_size": 4096}))
    return file


def test_a_yaml_beside_tells_what_shapes_cannot(beside):
    family = families.load(beside, families.placement.choose("cpu", "float32"))
    assert type(family.prediction(SIZE)) is V
    assert family.latent_format.scale == 0.5
    assert family.modules["unet"].config.attention_head_dim == [4, 4, 4]
    assert family.modules["text_encoder"].config.num_attention_heads == 2


@pytest.mark.parametrize("text", ["model: [", "model: {}", "- a", "", "model: {params: 3}"])
def test_a_damaged_yaml_is_refused_by_its_name(text, beside):
    beside.with_suffix(".yaml").write_text(text)
    with pytest.raises(families.ModelError) as error:
        families.describe(beside)
    assert str(error.value).startswith('"my.model.yaml" beside the checkpoint cannot be read: ')
    assert "\n" not in str(error.value)


# folders as people have them

@pytest.mark.parametrize("names", [
    ["diffusion_pytorch_model.fp16.safetensors"],
    ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.non_ema.safetensors"],
    ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"],
])
def test_a_folders_weights_are_found_under_their_usual_names(names, checkpoint, load, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("sd1")[0], folder)
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    whole.unlink()
    halves = [dict(list(state.items())[::2]), dict(list(state.items())[1::2])]
    garbage = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    for name, content in zip(names, halves if "00001" in names[0] else [state, garbage]):
        save_file(content, folder / "unet" / name)
    loaded = families.load(folder, families.placement.choose("cpu", "float32")).modules["unet"].state_dict()
    assert all(torch.equal(loaded[name], tensor.float()) for name, tensor in state.items())


def test_old_names_of_an_autoencoders_attention_are_known(checkpoint, load, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("sd1")[0], folder)
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, tensor in load_file(file).items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        state[name] = tensor
    save_file(state, file)
    families.load(folder, families.placement.choose("cpu", "float32"))


# a VAE of its own

@pytest.fixture(params=["original", "prefixed", "diffusers", "folder", "checkpoint"])
def separate_vae(request, checkpoint, tmp_path):
    """SDXL's VAE, which has other weights than SD1's, as people have it."""
    folder, file = checkpoint("sdxl")
    state = {name: tensor for name, tensor in load_file(file).items() if name.startswith("first_stage_model.")}
    if request.param == "checkpoint":
        return file
    if request.param == "folder":
        return folder / "vae"
    path = tmp_path / "vae.safetensors"
    if request.param == "diffusers":
        return folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(state if request.param == "prefixed" else {name.split(".", 1)[1]: tensor for name, tensor in state.items()}, path)
    return path


def test_a_vae_of_its_own_takes_the_place_of_the_checkpoints(separate_vae, checkpoint, load):
    family = families.load(checkpoint("sd1")[1], families.placement.choose("cpu", "float32"), components=families.Components(separate_vae))
    ours, theirs = family.modules["vae"].state_dict(), load(checkpoint("sdxl")[1]).modules["vae"].state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert family.latent_format.scale == 0.18215


def test_a_checkpoint_without_a_vae_can_be_given_one(checkpoint, tmp_path):
    bare = tmp_path / "bare.safetensors"
    state = load_file(checkpoint("sd1")[1])
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("first_stage")}, bare)
    place = families.placement.choose("cpu", "float32")
    with pytest.raises(families.ModelError, match="it lacks the vae; a VAE can be chosen separately"):
        families.load(bare, place)
    families.load(bare, place, components=families.Components(checkpoint("sd1")[1]))


# SDXL's conditions

@torch.inference_mode()
@pytest.mark.parametrize("kind, conditions, numbers", [
    ("sdxl", Encoding(size=Size(96, 64), crop_top=8, crop_left=4), [64, 96, 8, 4, 64, 96]),
    ("sdxl-refiner", Encoding(size=Size(96, 64), aesthetic_score=2.5), [64, 96, 0, 0, 2.5]),
])
def test_sdxl_is_told_of_the_picture(kind, conditions, numbers, checkpoint, load):
    cond = load(checkpoint(kind)[1]).encode_prompts(["a", "b"], conditions)
    assert cond.extra["time_ids"].tolist() == [numbers, numbers]


@torch.inference_mode()
def test_an_empty_negative_prompt_is_zeros_for_sdxl(checkpoint, load):
    family = load(checkpoint("sdxl")[1])
    negative, positive = (family.encode_prompts([""], Encoding(negative=flag)) for flag in (True, False))
    assert not negative.tokens.any() and not negative.extra["text_embeds"].any() and negative.extra["time_ids"].any()
    assert positive.tokens.any()
    partly = family.encode_prompts(["", "a"], Encoding(negative=True))
    assert partly.tokens[0].any()


@torch.inference_mode()
@pytest.mark.parametrize("kind, conditions, acts", [
    ("sd1", Encoding(), [True]), ("sd2", Encoding(), [False]),
    ("sdxl", Encoding(), [False, False]), ("sdxl", Encoding(clip_l_skip=True), [True, False]),
])
def test_where_clip_skip_acts(kind, conditions, acts, checkpoint, load):
    family = load(checkpoint(kind)[1])
    features = [family.encode_prompts(["a cat"], replace(conditions, clip_skip=skip)).tokens
                for skip in (1, 3)]
    changed = [not torch.equal(*pair) for pair in zip(*(feature.split(tiny.WIDTH, dim=-1) for feature in features))]
    assert changed == acts


# inpainting and editing

@torch.inference_mode()
def test_an_inpainting_network_sees_the_mask_and_what_it_leaves(checkpoint, load):
    family = load(checkpoint("sd1-inpainting")[1])
    cond = family.image_conditioning(PIXELS, NOISE, MASK, mask_weight=1.0)
    assert torch.equal(cond[:, :1], MASK[..., ::8, ::8].expand(2, -1, -1, -1))
    assert torch.allclose(cond[:, 1:], family.encode_image(PIXELS * (1 - MASK)), atol=1e-5)


@torch.inference_mode()
def test_only_sdxl_rounds_the_mask(checkpoint, load):
    sd1, sdxl = (load(checkpoint(kind)[1]).image_conditioning(PIXELS, NOISE, MASK * 0.7, mask_weight=1.0)
                 for kind in ("sd1-inpainting", "sdxl-inpainting"))
    assert sd1[:, 0].max().item() == pytest.approx(0.7)
    assert sdxl[:, 0].max().item() == 1


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["sd1-edit", "sdxl-edit"])
def test_instruct_pix2pix_sees_the_source_unscaled(kind, checkpoint, load):
    family = load(checkpoint(kind)[1])
    cond = family.image_conditioning(PIXELS, NOISE, MASK, mask_weight=1.0)
    assert torch.allclose(cond * family.latent_format.scale, family.encode_image(PIXELS), atol=1e-6)

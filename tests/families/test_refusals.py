"""Files that are not what they should be: one sentence that names the file and what is wrong with it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import families
from pipeline.errors import ModelError
from tests.families.conftest import FLOAT32

UNET = "model.diffusion_model."


def refusal(path, **settings):
    with pytest.raises(ModelError) as error:
        families.load(path, FLOAT32, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(checkpoint, tmp_path):
    """change → a file with the SD1 checkpoint's tensors after it."""
    def write(change, kind="sd1"):
        path = tmp_path / "my.safetensors"
        save_file(change(load_file(checkpoint(kind)[1])), path)
        return path
    return write


def renamed(old, new):
    return lambda state: {name.replace(old, new, 1): tensor for name, tensor in state.items()}


def only(*starts):
    return lambda state: {name: tensor for name, tensor in state.items() if name.startswith(starts)}


def without(part):
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize("change, sentence", [
    (only(UNET), '"my.safetensors" is not a complete checkpoint: it lacks the vae and the text_encoder'),
    (only(UNET, "first_stage_model."), '"my.safetensors" is not a complete checkpoint: it lacks the text_encoder'),
    (only("first_stage_model."), '"my.safetensors" is a VAE, which belongs in the VAE folder'),
    (only("cond_stage_model."),
     f'"my.safetensors" is not a Stable Diffusion checkpoint: it has no tensor "{UNET}input_blocks…"'),
    (renamed(UNET, "model_ema.diffusion_model"),
     f'"my.safetensors" is a checkpoint of averaged (EMA) weights only; it needs "{UNET}…" too'),
    (without("middle_block"),
     '"my.safetensors" is incomplete, or of a kind that is not supported: '
     'it lacks the tensor that diffusers calls "mid_block.attentions.0.proj_in.weight"'),
    (without("output_blocks.2.0.in_layers.2.bias"),
     '"my.safetensors" is incomplete: its unet lacks "up_blocks.1.resnets.0.conv1.bias"'),
    (without("decoder.up.2"), '"my.safetensors" is incomplete: its vae lacks "decoder.up_blocks.'),
])
def test_an_incomplete_checkpoint_is_refused(change, sentence, write):
    assert refusal(write(change)).startswith(sentence)


def test_averaged_weights_beside_the_others_do_not_matter(write):
    families.load(write(lambda state: state | {"model_ema.diffusion_modelout2bias": torch.zeros(4)}), FLOAT32)


@pytest.mark.parametrize("name, kind", [
    ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "a LoRA, which belongs in the Lora folder"),
    ("emb_params", "a textual inversion embedding, which belongs in the embeddings folder"),
    (UNET + "joint_blocks.0.context_block.attn.qkv.weight", "a Stable Diffusion 3 checkpoint, which is not supported"),
    ("double_blocks.0.img_attn.qkv.weight", "a relative of FLUX, such as Chroma, which is not supported"),
    ("control_model.input_blocks.0.0.weight", "a ControlNet, which is not supported"),
    ("down_blocks.0.resnets.0.conv1.weight",
     "one network of a diffusers folder; choose the folder that contains model_index.json"),
])
def test_another_kind_of_file_is_told_what_it_is(name, kind, write):
    assert refusal(write(lambda state: {name: torch.zeros(2, 2)})) == f'"my.safetensors" is {kind}'


def test_a_checkpoint_with_other_noise_levels_is_refused(write):
    path = write(lambda state: state | {"edm_vpred.sigma_max": torch.zeros(1)})
    assert refusal(path) == '"my.safetensors" is a checkpoint with EDM noise levels, which is not supported'


def test_parts_that_do_not_fit_together_are_refused(write):
    name = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc2.weight"
    path = write(lambda state: state | {name: torch.zeros(7, 7)})
    assert refusal(path) == (f'"my.safetensors" is inconsistent: "{name}" has the shape (7, 7) '
                             "but its text_encoder needs (32, 64)")


def test_a_unet_of_other_inputs_is_refused(write):
    path = write(lambda state: state | {UNET + "input_blocks.0.0.weight": torch.zeros(32, 5, 3, 3)})
    assert refusal(path) == '"my.safetensors" has a UNet of 5 input channels; valid: 4, 8, 9'


@pytest.mark.parametrize("name", [
    UNET + "input_blocks.0.0.weight", UNET + "middle_block.1.proj_in.weight", "first_stage_model.decoder.conv_in.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
])
@pytest.mark.parametrize("tensor", [torch.zeros(()), torch.zeros(3), torch.zeros(0, 0)])
def test_absurd_shapes_are_refused_in_a_sentence(name, tensor, write):
    assert "my.safetensors" in refusal(write(lambda state: state | {name: tensor}))


@pytest.mark.parametrize("yaml", ["{num_heads: many}", "{num_heads: [8]}", "{num_head_channels: 0.1}", "7"])
def test_absurd_settings_beside_are_refused_in_a_sentence(yaml, write):
    path = write(dict)
    path.with_suffix(".yaml").write_text(f"model: {{params: {{unet_config: {{params: {yaml}}}}}}}")
    assert "my.safetensors" in refusal(path)


def test_quantized_weights_are_refused(write):
    name = UNET + "out.2.weight"
    path = write(lambda state: state | {name: torch.zeros_like(state[name], dtype=torch.int8)})
    assert refusal(path) == f'"my.safetensors" is quantized, which is not supported: "{name}" is int8'


def test_a_truncated_file_is_refused(write):
    path = write(dict)
    path.write_bytes(path.read_bytes()[:-1000])
    assert refusal(path).startswith('"my.safetensors" cannot be read as safetensors, it is damaged or cut short: ')


def test_what_is_no_vae_is_refused_as_one(checkpoint, write):
    path = write(only(UNET))
    assert refusal(checkpoint("sd1")[1], components=families.Components(path)) == '"my.safetensors" is not a VAE: it has no tensor "decoder.conv_in.weight"'


def test_a_vae_with_other_latents_is_refused(checkpoint, write):
    def widened(state):
        names = ("decoder.conv_in.weight", "post_quant_conv.weight")
        return only("first_stage_model.")(state) | {f"first_stage_model.{name}": torch.zeros(32, 16, 3, 3) for name in names}

    assert "cannot be used with a VAE of 16 latent channels; valid: 4" in refusal(checkpoint("sd1")[1], components=families.Components(write(widened)))


def test_a_vae_of_another_depth_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("sd1")[0], folder)
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [32, 32, 32]}))
    assert "cannot be used with a VAE of 4 pixels per latent cell; valid: 8" in refusal(folder)


def test_a_folder_of_pickles_names_the_converter(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("sd1")[0], folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    assert "python -m tools.convert" in refusal(folder)


def test_a_folder_that_predicts_something_else_is_refused(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint("sd1")[0], folder)
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "sample"}')
    assert refusal(folder) == '"model" predicts sample; valid: epsilon, v_prediction'

"""Tensors' names find their layers, whoever wrote them."""

import pytest
from network_models import FC1, TO_Q, new_unet

from pipeline.families.layer_names import LayerNames
from pipeline.networks.keys import split_name

KOHYA_Q = TO_Q.replace(".", "_")


@pytest.mark.parametrize("name, wanted", [
    (f"lora_unet_{KOHYA_Q}.lora_up.weight", (f"lora_unet_{KOHYA_Q}", "up")),
    (f"lora_unet_{KOHYA_Q}.alpha", (f"lora_unet_{KOHYA_Q}", "alpha")),
    (f"unet.{TO_Q}.lora_A.weight", (f"unet_{KOHYA_Q}", "down")),
    (f"unet.{TO_Q}.lora_B.default.weight", (f"unet_{KOHYA_Q}", "up")),
    (f"unet.{TO_Q}.lora_magnitude_vector", (f"unet_{KOHYA_Q}", "magnitude_vector")),
    (f"unet.{TO_Q}.lora.down.weight", (f"unet_{KOHYA_Q}", "down")),
    ("mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight",
     ("mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", "up")),
    ("mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_k_lora.up.weight",
     ("mid_block_attentions_0_transformer_blocks_0_attn1_to_k", "up")),
    ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
     ("text_encoder_text_model_encoder_layers_0_mlp_fc1", "up")),
    ("clip_l.text_model.encoder.layers.0.mlp.fc1.lora_down.weight", ("clip_l_text_model_encoder_layers_0_mlp_fc1", "down")),
    ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.alpha",
     ("text_encoders_clip_g_transformer_text_model_encoder_layers_0_mlp_fc1", "alpha")),
    ("lora_unet_conv_in.weight", ("lora_unet_conv_in", "weight")),
    ("lora_unet_conv_in.a1.weight", ("lora_unet_conv_in", "a1")),
    ("bundle_emb.word.emb_params", None),
    ("model_spec", None),
])
def test_a_name_is_a_layer_and_a_part(name, wanted):
    assert split_name(name) == wanted


@pytest.mark.parametrize("name", [
    f"lora_unet_{KOHYA_Q}", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", f"unet_{KOHYA_Q}", KOHYA_Q,
    f"lycoris_{KOHYA_Q}", f"lycoris_unet_{KOHYA_Q}", f"oft_unet_{KOHYA_Q}", f"base_model_model_{KOHYA_Q}",
    "diffusion_model_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
])
def test_a_unet_layer_has_many_names(sd1, name):
    assert LayerNames(sd1.modules).find(name).module is sd1.modules["unet"].get_submodule(TO_Q)


@pytest.mark.parametrize("name", [
    "lora_te_text_model_encoder_layers_0_mlp_fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    "text_encoder_text_model_encoder_layers_0_mlp_fc1", "lora_te_model_transformer_resblocks_0_mlp_c_fc",
    "lora_te_transformer_resblocks_0_mlp_c_fc", "clip_l_text_model_encoder_layers_0_mlp_fc1",
    "text_encoders_clip_l_transformer_text_model_encoder_layers_0_mlp_fc1",
    "text_encoders_clip_h_transformer_text_model_encoder_layers_0_mlp_fc1",
])
def test_a_text_encoder_layer_has_many_names(sd1, name):
    assert LayerNames(sd1.modules).find(name).module is sd1.modules["text_encoder"].get_submodule(FC1)


@pytest.mark.parametrize("name, component, path", [
    ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder", FC1),
    ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2", f"text_model.{FC1}"),
    ("lora_te2_model_transformer_resblocks_1_attn_out_proj", "text_encoder_2",
     "text_model.encoder.layers.1.self_attn.out_proj"),
    ("lora_te2_model_transformer_resblocks_1_ln_2", "text_encoder_2", "text_model.encoder.layers.1.layer_norm2"),
    ("text_encoder_2_text_model_encoder_layers_1_self_attn_to_out_0", "text_encoder_2",
     "text_model.encoder.layers.1.self_attn.out_proj"),
    ("lora_te2_text_projection", "text_encoder_2", "text_projection"),
    ("clip_l_text_model_encoder_layers_0_mlp_fc1", "text_encoder", FC1),
    ("clip_g_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2", f"text_model.{FC1}"),
    ("clip_g_text_projection", "text_encoder_2", "text_projection"),
    ("text_encoders_clip_l_transformer_text_model_encoder_layers_0_mlp_fc1", "text_encoder", FC1),
    ("text_encoders_clip_g_transformer_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2", f"text_model.{FC1}"),
    ("text_encoders_clip_g_transformer_text_projection", "text_encoder_2", "text_projection"),
])
def test_sdxl_text_encoders_are_told_apart(sdxl, name, component, path):
    layer = LayerNames(sdxl.modules).find(name)
    assert layer.module is sdxl.modules[component].get_submodule(path)
    assert layer.is_text_encoder


def test_a_lora_for_one_text_encoder_acts_on_neither_of_two(sdxl):
    assert LayerNames(sdxl.modules).find("lora_te_text_model_encoder_layers_0_mlp_fc1") is None


@pytest.mark.parametrize("name", ["lora_unet_double_blocks_0_img_attn_qkv", "lora_te2_text_projection", "lora_te3_x", "unet"])
def test_what_the_model_has_not_is_not_found(sd1, name):
    assert LayerNames(sd1.modules).find(name) is None


@pytest.mark.parametrize("path, original", [  # in a UNet of Stable Diffusion's depth
    ("conv_in", "input_blocks_0_0"), ("conv_norm_out", "out_0"), ("conv_out", "out_2"),
    ("time_embedding.linear_1", "time_embed_0"), ("time_embedding.linear_2", "time_embed_2"),
    ("down_blocks.0.resnets.1.conv1", "input_blocks_2_0_in_layers_2"),
    ("down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op"),
    ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks_4_0_skip_connection"),
    ("down_blocks.2.attentions.1.proj_in", "input_blocks_8_1_proj_in"),
    ("down_blocks.3.resnets.1.time_emb_proj", "input_blocks_11_0_emb_layers_1"),
    ("mid_block.resnets.0.norm1", "middle_block_0_in_layers_0"),
    ("mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj", "middle_block_1_transformer_blocks_0_ff_net_0_proj"),
    ("mid_block.resnets.1.norm2", "middle_block_2_out_layers_0"),
    ("up_blocks.0.resnets.2.conv2", "output_blocks_2_0_out_layers_3"),
    ("up_blocks.0.upsamplers.0.conv", "output_blocks_2_1_conv"),
    ("up_blocks.1.attentions.0.proj_out", "output_blocks_3_1_proj_out"),
    ("up_blocks.1.upsamplers.0.conv", "output_blocks_5_2_conv"),
    ("up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0", "output_blocks_11_1_transformer_blocks_0_attn2_to_out_0"),
])
def test_the_original_names_of_stable_diffusion(path, original):
    cross, plain = "CrossAttn{}Block2D", "{}Block2D"
    unet = new_unet(block_out_channels=(4, 8, 8, 8),
                    down_block_types=[kind.format("Down") for kind in (cross, cross, cross, plain)],
                    up_block_types=[kind.format("Up") for kind in (plain, cross, cross, cross)])
    assert LayerNames({"unet": unet}).find(f"lora_unet_{original}").module is unet.get_submodule(path)


def test_original_names_follow_the_depth_of_the_unet(sd1):
    unet = new_unet(layers_per_block=1)
    assert LayerNames({"unet": unet}).find("lora_unet_input_blocks_2_0_op").module is unet.down_blocks[0].downsamplers[0].conv

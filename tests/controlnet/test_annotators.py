"""Preprocessors by networks: tiny random ones of transformers, and what is said where one is missing."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import (
    ConvNextConfig, DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTConfig, DPTForDepthEstimation, SegformerConfig,
    SegformerForSemanticSegmentation, UperNetConfig, UperNetForSemanticSegmentation)

from pipeline.annotators import Annotators
from pipeline.controlnet.preprocessors import find_preprocessor, preprocess
from pipeline.errors import ModelError
from pipeline.families.annotators import COLOURS
from pipeline.models import Catalog

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SIZES = [8, 8, 16, 16]
MAKERS = {
    "depth_anything": lambda: DepthAnythingForDepthEstimation(DepthAnythingConfig(
        backbone_config=Dinov2Config(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
                                     out_features=STAGES, reshape_hidden_states=False),
        reassemble_hidden_size=16, neck_hidden_sizes=SIZES, fusion_hidden_size=8, head_hidden_size=4)),
    "depth_midas": lambda: DPTForDepthEstimation(DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=SIZES, fusion_hidden_size=8, is_hybrid=False)),
    "seg_ufade20k": lambda: UperNetForSemanticSegmentation(UperNetConfig(
        backbone_config=ConvNextConfig(hidden_sizes=SIZES, depths=[1, 1, 1, 1], out_features=STAGES), hidden_size=16, num_labels=150,
        auxiliary_in_channels=16, auxiliary_channels=8)),
    "seg_ofade20k": lambda: SegformerForSemanticSegmentation(SegformerConfig(
        hidden_sizes=SIZES, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16, num_labels=150)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(model of each kind, the models folder that holds it alone), by the preprocessor's name."""
    found = {}
    for name, make in MAKERS.items():
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():  # transformers' own initialization gives flat maps
            parameter.data += 0.1 * torch.randn_like(parameter)
            if parameter.shape == (1,):  # the last bias of depth, before negative values are cut off
                parameter.data += 3.0
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder / "annotators" / "net", safe_serialization=True)
        found[name] = model, folder
    return found


@pytest.fixture(scope="module")
def picture():
    return np.asarray(Image.effect_noise((96, 64), 70).convert("RGB"))


def run(name, folder, picture, resolution=64):
    module = find_preprocessor(name)
    return preprocess(module, picture, module.settings(resolution), Annotators(Catalog(folder).annotators).annotate)


@torch.inference_mode()
@pytest.mark.parametrize("name, mean, deviation, size", [
    ("depth_anything", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (56, 84)), ("depth_midas", (0.5,) * 3, (0.5,) * 3, (32, 32))])
def test_depth_is_the_networks_own_from_black_to_white(name, mean, deviation, size, made, picture):
    model, folder = made[name]
    result = run(name, folder, picture)
    assert result.shape == (64, 96, 3) and result.min() == 0 and result.max() == 255
    pixels = torch.from_numpy(cv2.resize(picture / np.float32(255), size[::-1], interpolation=cv2.INTER_CUBIC)).permute(2, 0, 1)[None]
    pixels = (pixels - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(deviation).reshape(1, 3, 1, 1)
    depth = F.interpolate(model(pixels.float()).predicted_depth[:, None], result.shape[:2], mode="bilinear")[0, 0]
    expected = ((depth - depth.min()) / (depth.max() - depth.min()) * 255).numpy()
    assert np.abs(expected - result[..., 0]).max() <= 1


@torch.inference_mode()
@pytest.mark.parametrize("name", ["seg_ufade20k", "seg_ofade20k"])
def test_classes_are_shown_in_ade20ks_colours(name, made, picture):
    model, folder = made[name]
    pixels = (picture / np.float32(255) - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None].float()).logits
    classes = F.interpolate(logits, (64, 96), mode="bilinear")[0].argmax(0).numpy()
    assert len(np.unique(classes)) > 1
    assert (run(name, folder, picture) == COLOURS[classes]).mean() > 0.999


def test_the_colours_are_those_of_the_scene_parsing_benchmark():
    assert COLOURS.shape == (150, 3) and COLOURS[[0, 1, 2, 149]].tolist() == [[120, 120, 120], [180, 120, 120], [6, 230, 230], [92, 0, 255]]


def test_a_missing_network_is_named_with_its_place(made, picture):
    _, folder = made["depth_midas"]
    with pytest.raises(ModelError, match='preprocessor "depth_anything": put the folder of Depth Anything, such as .* into models/annotators'):
        run("depth_anything_v2", folder, picture)
    annotators = Annotators(Catalog(folder).annotators)
    assert annotators.has(find_preprocessor("depth")) and annotators.has(find_preprocessor("canny")) and not annotators.has(find_preprocessor("segmentation"))


@pytest.mark.parametrize("change, sentence", [
    ({"use_pretrained_backbone": True, "backbone": "owner/name", "backbone_config": None}, "names a backbone elsewhere"),
    ({"hidden_size": 24}, "is incomplete: it lacks the tensor"),
])
def test_a_folder_that_would_fetch_code_or_lacks_weights_is_refused(change, sentence, made, picture, tmp_path):
    shutil.copytree(made["seg_ufade20k"][1] / "annotators", tmp_path / "annotators")
    config = tmp_path / "annotators" / "net" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ModelError, match=sentence):
        run("segmentation", tmp_path, picture)

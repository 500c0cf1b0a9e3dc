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
    SegformerForSemanticSegmentation, UperNetConfig, UperNetForSemanticSegmentation, VitPoseBackboneConfig, VitPoseConfig,
    VitPoseForPoseEstimation, YolosConfig, YolosForObjectDetection)

from pipeline.annotators import Annotators
from pipeline.controlnet.preprocessors import find_preprocessor, preprocess
from pipeline.detectors import Find
from pipeline.errors import ModelError
from pipeline.families import poses
from pipeline.families.annotators import COLOURS
from pipeline.models import Catalog

def vitpose(points, **more):
    return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=VitPoseBackboneConfig(
        image_size=[64, 48], patch_size=[16, 16], hidden_size=16, num_hidden_layers=1, num_attention_heads=2, out_indices=[1], **more),
        num_labels=points, scale_factor=4, use_simple_decoder=True))


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
    "openpose": lambda: vitpose(17),
    "openpose_full": lambda: vitpose(133),
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


def test_a_peak_between_the_cells_is_found():
    rows, columns = np.mgrid[:32, :24].astype(np.float32)
    heatmap = 0.8 * np.exp(-((columns - 10.3) ** 2 + (rows - 20.6) ** 2) / (2 * 2.0 ** 2))
    (x, y), score = poses.peak(heatmap)
    assert x == pytest.approx(10.3, abs=1e-3) and y == pytest.approx(20.6, abs=1e-3) and score == heatmap.max()


def test_what_a_network_sees_of_a_person_has_its_shape():
    # 100x300 at (50, 20); for 3:4, 300 high is 225 wide, and a quarter more
    assert poses.seen_part((50, 20, 150, 320), 0.75) == pytest.approx((100 - 140.625, 170 - 187.5, 281.25, 375))
    assert poses.seen_part((0, 0, 300, 100), 0.75) == pytest.approx((150 - 187.5, 50 - 250, 375, 500))


def somebody(points=17):
    """Standing, facing the viewer; in COCO's order, of which the left ear is not sure."""
    places = [(100, 40), (110, 30), (90, 30), (120, 35), (80, 35), (130, 80), (70, 80), (150, 120), (50, 120), (160, 160), (40, 160),
              (120, 170), (80, 170), (122, 230), (78, 230), (124, 290), (76, 290)] + [(200 + 2 * number % 90, 20 + number) for number in range(points - 17)]
    return poses.Person(np.float32(places), np.float32([0.9] * 3 + [0.2] + [0.9] * (points - 4)))


def test_a_pose_is_drawn_in_openposes_colours():
    drawn = poses.drawn([somebody()], 320, 320, ("body",))
    # points at full light: nose, neck between the shoulders, right and left wrist, right ankle, right eye, right ear
    for place, colour in {(100, 40): (255, 0, 0), (100, 80): (255, 85, 0), (40, 160): (170, 255, 0), (160, 160): (0, 255, 85), (76, 290): (0, 170, 255),
                          (90, 30): (170, 0, 255), (80, 35): (255, 0, 170)}.items():
        assert tuple(drawn[place[1], place[0]]) == colour
    # limbs at 60 %: right shoulder, left upper arm, trunk to the right hip, neck to nose
    for place, colour in {(85, 80): (153, 0, 0), (140, 100): (102, 153, 0), (90, 125): (0, 153, 0), (100, 60): (0, 0, 153)}.items():
        assert tuple(drawn[place[1], place[0]]) == colour
    assert not drawn[35, 120].any() and not drawn[0].any()
    assert (poses.drawn([somebody()], 320, 320, ("body", "hands", "face")) == drawn).all()  # it knows only 17 points


def test_hands_and_faces_are_drawn_where_a_network_knows_them():
    hands, face = (poses.drawn([somebody(133)], 320, 320, parts) for parts in (("body", "hands"), ("face",)))
    assert tuple(face[26, 212]) == (255, 255, 255) and not face[80, 100].any()  # point 23 is the first of the face
    assert tuple(hands[94, 258]) == (0, 0, 255)  # point 91: the left hand's root
    assert poses.FINGERS[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6)) and poses.FINGERS[-1] == (19, 20)


@torch.inference_mode()
@pytest.mark.parametrize("name, parts", [("openpose", ("body",)), ("openpose_full", ("body", "hands", "face"))])
def test_a_pose_is_the_networks_own(name, parts, made, picture, monkeypatch):
    model, folder = made[name]
    monkeypatch.setattr(poses, "SURE", -1e9)  # a random network is sure of nothing
    result = run(name, folder, picture)
    # the picture as one person: 96x64 becomes 120 wide, 160 high, in the middle; seen at 48x64
    warp = np.float32([[47 / 120, 0, 12 * 47 / 120], [0, 63 / 160, 48 * 63 / 160]])
    seen = (cv2.warpAffine(picture, warp, (48, 64)) / np.float32(255) - np.float32((0.485, 0.456, 0.406))) / np.float32((0.229, 0.224, 0.225))
    heatmaps = model(torch.from_numpy(seen).permute(2, 0, 1)[None]).heatmaps[0].numpy()
    points, scores = zip(*map(poses.peak, heatmaps))
    person = poses.Person(np.float32(points) / np.float32([heatmaps.shape[2] - 1, heatmaps.shape[1] - 1]) * np.float32([120, 160]) - np.float32([12, 48]), np.float32(scores))
    assert result.any() and (result == poses.drawn([person], 64, 96, parts)).mean() > 0.99


def test_each_person_that_a_detector_finds_is_drawn(made, picture, monkeypatch, tmp_path):
    _, folder = made["openpose"]
    shutil.copytree(folder / "annotators", tmp_path / "annotators")
    YolosForObjectDetection(YolosConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
                                        num_detection_tokens=3, id2label={0: "person", 1: "dog"})).save_pretrained(tmp_path / "annotators" / "yolos")
    seen = []
    monkeypatch.setattr(poses, "find", lambda module, picture, boxes: seen.append(boxes) or [])
    monkeypatch.setattr("pipeline.detectors.detr.Detr.find", lambda detector, picture, confidence: [
        Find((1, 2, 30, 40), 0.9, "person"), Find((5, 5, 9, 9), 0.8, "dog"), Find((50, 2, 90, 60), 0.5, "person")])
    run("openpose", tmp_path, picture)
    run("openpose", folder, picture)
    assert seen == [[(1, 2, 30, 40), (50, 2, 90, 60)], [(0.0, 0.0, 96.0, 64.0)]]


def test_a_face_alone_takes_a_network_that_knows_faces(made, picture):
    with pytest.raises(ModelError, match="knows only bodies; face take"):
        run("openpose_faceonly", made["openpose"][1], picture)


def test_a_network_for_several_kinds_of_pictures_takes_people(tmp_path, picture):
    vitpose(17, num_experts=6, part_features=4).save_pretrained(tmp_path / "annotators" / "plus", safe_serialization=True)
    assert run("openpose", tmp_path, picture).shape == (64, 96, 3)

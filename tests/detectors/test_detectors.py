"""Detectors against networks whose answers are known: what they see, and what becomes of what they say."""

import os

import numpy as np
import pytest
import torch

from pipeline.detectors.detr import Detr, prepared, size_for
from pipeline.detectors.onnx_header import read_header
from pipeline.detectors.store import Detectors
from pipeline.detectors.yolo import Letterbox, Yolo, found
from pipeline.detectors.yunet import YuNet
from pipeline.errors import InvalidRequest, ModelError
from pipeline.geometry import Size
from tests.detectors import onnx_files, tiny_detr


def picture(width=64, height=64, **squares):
    """Black, with squares given as colour=(x, y, side, brightness)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for colour, (x, y, side, brightness) in squares.items():
        pixels[y:y + side, x:x + side, {"red": 0, "green": 1}[colour]] = brightness
    return pixels


def yolo(**options):
    content = onnx_files.yolo(**options)
    return Yolo(content, read_header(content), options.get("file", "squares.onnx"))


# --- the file's header

def test_a_header_tells_outputs_size_and_classes():
    header = read_header(onnx_files.yolo(masks=True))
    assert header.outputs == ("output0", "output1") and header.size == Size(64, 64) and header.classes() == ("red", "green")
    assert read_header(onnx_files.yolo(fixed=False)).size is None


@pytest.mark.parametrize("names", ["", "{", "{'a': 'face'}", "__import__('os')", "7"])
def test_metadata_that_are_no_names_give_no_classes(names):
    content = onnx_files.yolo() + onnx_files.field(14, onnx_files.field(1, "names") + onnx_files.field(2, names))
    assert read_header(content).classes() == ()


@pytest.mark.parametrize("content", [b"", b"\x08", b"not an onnx file", b"\x3a\xff\xff\xff\xff\x0f", onnx_files.yolo()[:200], b"\xff" * 40])
def test_a_damaged_file_is_one_sentence(content):
    with pytest.raises(ModelError, match="not a readable ONNX file|not an ONNX file with a network"):
        read_header(content)


# --- YOLO

def test_a_letterbox_keeps_the_shape_and_centres_it():
    # 100x50 into 64x64: scaled by .64 to 64x32, with 16 rows of grey above and below
    box = Letterbox(Size(100, 50), Size(64, 64))
    assert (box.scale, box.fitted, box.left, box.top) == (0.64, Size(64, 32), 0, 16)
    seen = box.apply(np.full((50, 100, 3), 255, np.uint8))
    assert seen.shape == (1, 3, 64, 64) and seen[0, :, 16:48].min() == 1
    assert seen[0, 0, 15, 0] == seen[0, 0, 48, 0] == np.float32(114 / 255)
    assert box.back(np.array([[32.0, 16.0, 64.0, 48.0]])).tolist() == [[50, 0, 100, 50]]
    # an odd rest: 64x33 leaves 31 rows, 15 above and 16 below
    assert Letterbox(Size(64, 33), Size(64, 64)).top == 15


def test_yolo_finds_classes_with_scores_and_boxes_in_the_pictures_pixels():
    # twice the network's size, and half as high: 128x64 → 64x32 with 16 rows of grey
    finds = yolo().find(picture(128, 64, red=(32, 0, 32, 204), green=(96, 32, 32, 255)), 0.5)
    assert [(find.name, round(find.score, 3), find.box) for find in finds] == [("green", 1.0, (96, 32, 128, 64)), ("red", 0.8, (32, 0, 64, 32))]


def test_confidence_and_the_grey_around_the_picture_count_for_nothing():
    shown = picture(64, 32, red=(16, 0, 16, 204))
    assert [find.name for find in yolo().find(shown, 0.3)] == ["red"]  # the grey has .447, but lies outside
    assert yolo().find(shown, 0.81) == []


def test_of_overlapping_boxes_of_a_class_the_best_remains():
    rows = np.array([[20, 22, 20, 50], [20, 20, 20, 50], [20, 20, 20, 20], [20, 20, 20, 20],  # centres and sizes
                     [0.9, 0.8, 0, 0.6], [0, 0, 0.7, 0]], np.float32)
    finds = found(rows, None, Letterbox(Size(64, 64), Size(64, 64)), 0.3, ("a", "b"))
    # the second overlaps the first by 18/22 = .82 of their union; the third is of another class
    assert [(find.name, round(find.score, 2)) for find in finds] == [("a", 0.9), ("b", 0.7), ("a", 0.6)]
    rows[0, 1] = 24  # 16/24 = .67, below .7
    assert len(found(rows, None, Letterbox(Size(64, 64), Size(64, 64)), 0.3, ())) == 4


def test_a_segmenting_yolo_gives_masks_cut_at_the_box():
    # the cell from 16 to 32 is red where x < 28; its prototype has 4 pixels a side
    shown = picture(64, 32, red=(16, 0, 16, 255))
    shown[:, 28:] = 0
    find, = yolo(masks=True).find(shown, 0.5)
    assert find.box == (16, 0, 32, 16) and find.mask.shape == (32, 64)
    inside = np.argwhere(find.mask)
    assert inside.min(0).tolist() == [0, 16] and 26 <= inside.max(0)[1] <= 29 and 13 <= inside.max(0)[0] <= 16
    assert set(np.unique(find.mask)) == {0, 255}


def test_an_output_of_another_network_is_refused_in_a_sentence():
    content = onnx_files.yolo(said="{0: 'red'}")
    one_class = Yolo(content, read_header(content), "x")
    with pytest.raises(ModelError, match="its output 6x16 is not like YOLOv8's"):
        one_class.find(picture(), 0.3)


# --- YuNet

def yunet():
    content = onnx_files.yunet()
    return YuNet(content, read_header(content), "face.onnx")


def test_yunet_finds_faces():
    find, = yunet().find(picture(red=(24, 8, 8, 255)), 0.5)
    assert find.name == "face" and find.box == (24, 8, 32, 16) and find.score == 1


def test_yunet_sees_large_pictures_smaller(monkeypatch):
    monkeypatch.setattr("pipeline.detectors.yunet.LONGEST", 64)
    find, = yunet().find(picture(256, 256, red=(96, 32, 32, 204)), 0.5)
    assert find.box == (96, 32, 128, 64) and round(find.score, 2) == 0.8


# --- transformers' detectors

@pytest.mark.parametrize("make", [tiny_detr.yolos, tiny_detr.detr, tiny_detr.rt_detr])
def test_a_transformers_detector_says_what_its_model_does(make, tmp_path):
    model = tiny_detr.saved(make, tmp_path)
    seen = picture(64, 32, red=(8, 8, 16, 255))
    with torch.no_grad():
        output = model(pixel_values=torch.from_numpy(seen.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    scores = output.logits.sigmoid() if make is tiny_detr.rt_detr else output.logits.softmax(-1)[..., :2]
    best = scores[0].max(-1).values
    finds = Detr(tmp_path).find(seen, 0.0)
    assert len(finds) == 5 and finds[0].score == pytest.approx(float(best.max()), abs=1e-6)
    assert [find.score for find in finds] == sorted((find.score for find in finds), reverse=True)
    x, y, w, h = output.pred_boxes[0][best.argmax()].tolist()
    clipped = np.clip([(x - w / 2) * 64, (y - h / 2) * 32, (x + w / 2) * 64, (y + h / 2) * 32], 0, [64, 32, 64, 32])
    assert finds[0].box == pytest.approx(clipped.tolist(), abs=1e-4)
    assert finds[0].name == ("face", "hand")[int(scores[0][best.argmax()].argmax())]
    assert Detr(tmp_path).find(seen, 0.999) == []


def test_a_picture_is_prepared_as_the_folder_says():
    # the shorter side becomes 800, unless the longer one becomes more than 1333
    assert size_for(Size(400, 200), None) == (1333, 666)
    assert size_for(Size(400, 300), {"shortest_edge": 800, "longest_edge": 1333}) == (1066, 800)
    assert size_for(Size(400, 300), {"width": 640, "height": 480}) == (640, 480)
    white = np.full((2, 3, 3), 255, np.uint8)
    told = {"size": {"height": 2, "width": 3}, "image_mean": [0.5, 0.5, 0.25], "image_std": [0.5, 1, 0.75]}
    assert prepared(white, told)[0, :, 0, 0].tolist() == [1, 0.5, 1]
    assert prepared(white, told | {"do_normalize": False})[0].unique().tolist() == [1]


# --- the folder

@pytest.fixture
def folder(tmp_path):
    (tmp_path / "squares.onnx").write_bytes(onnx_files.yolo())
    (tmp_path / "face_detection_yunet_2023mar.onnx").write_bytes(onnx_files.yunet())
    (tmp_path / "face_yolov8n.pt").write_bytes(b"\x80\x02")
    tiny_detr.saved(tiny_detr.yolos, tmp_path / "hands and faces")
    return tmp_path


def test_a_folder_lists_what_can_be_used(folder):
    detectors = Detectors(folder)
    assert detectors.names() == ["face_detection_yunet_2023mar.onnx", "hands and faces", "squares.onnx"]
    assert detectors.pickles() == ["face_yolov8n.pt"]
    assert Detectors(folder / "missing").names() == Detectors().names() == []


def test_names_of_the_extension_mean_what_finds_the_same(folder):
    detectors = Detectors(folder)
    assert detectors.find("squares").name == detectors.find("SQUARES.pt").name == "squares.onnx"
    assert detectors.find("face_yolov8n.pt").name == detectors.find("mediapipe_face_full").name == "face_detection_yunet_2023mar.onnx"
    assert detectors.find("hand_yolov8n.pt").name == "hands and faces"  # by its classes
    (folder / "face_yolov8n.onnx").write_bytes(onnx_files.yolo())
    assert detectors.find("face_yolov8n.pt").name == "face_yolov8n.onnx"


@pytest.mark.parametrize("name", ["person_yolov8n-seg.pt", "mediapipe_face_mesh_eyes_only", "../squares.onnx", "eyes.pt", ""])
def test_a_detector_that_is_not_there_says_what_to_put_where(name, folder):
    with pytest.raises(InvalidRequest, match="ad_model: no detector called .*squares.onnx.* into models/adetailer"):
        Detectors(folder).find(name)


def test_a_pickle_is_refused_with_the_way_to_an_onnx(tmp_path):
    (tmp_path / "face_yolov8n.pt").write_bytes(b"\x80\x02")
    with pytest.raises(InvalidRequest, match="is a pickle.*yolo export model=face_yolov8n.pt format=onnx.*put face_yolov8n.onnx into"):
        Detectors(tmp_path).find("face_yolov8n.pt")


def test_what_cannot_be_read_is_one_sentence_with_its_name(folder):
    (folder / "broken.onnx").write_bytes(b"broken")
    (folder / "depth").mkdir()
    (folder / "depth" / "config.json").write_text('{"model_type": "dpt"}')
    detectors = Detectors(folder)
    for name, why in (("broken.onnx", "not a readable ONNX"), ("depth", "its config.json is for 'dpt'")):
        with pytest.raises(ModelError, match=f'detector "{name}" cannot be used: .*{why}'):
            detectors.detect(detectors.find(name), picture(), 0.3)


def test_a_file_that_changes_is_read_again(folder):
    detectors = Detectors(folder)
    squares = detectors.find("squares")
    assert detectors.detect(squares, picture(red=(16, 0, 16, 255)), 0.5)[0].name == "red"
    (folder / "squares.onnx").write_bytes(onnx_files.yolo(names=("a", "b")))
    os.utime(folder / "squares.onnx", ns=(1, 1))
    assert detectors.detect(squares, picture(red=(16, 0, 16, 255)), 0.5)[0].name == "a"

"""SAM and SAM 2 with tiny random weights: as transformers computes them, and one sentence for what cannot be read."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from pipeline.errors import ModelError
from pipeline.families import sam
from pipeline.families.sam import Prompt
from pipeline.geometry import Box
from tests.families import tiny_sam
from tests.families.tiny_sam import SIDE

CPU = torch.device("cpu")
WIDTH, HEIGHT = 150, 90
CLICK, BESIDE, BOX = (40.0, 30.0), (120.5, 70.0), Box(10, 12, 70, 60)
PROMPTS = {"a click": Prompt(((*CLICK, True),)), "two clicks": Prompt(((*CLICK, True), (*BESIDE, True))),
           "a click beside": Prompt(((*CLICK, True), (*BESIDE, False))), "a box": Prompt((), BOX), "both": Prompt(((*CLICK, True),), BOX)}


@pytest.fixture(scope="module")
def picture():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3))
    return np.clip(np.stack([x, 2 * y, (x + y) % 255], -1) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=list(tiny_sam.MODELS))
def model(request, tmp_path_factory):
    """(its kind, the model as transformers has it, where it lies)."""
    folder = tmp_path_factory.mktemp("sam") / "tiny"
    return request.param, tiny_sam.save(folder, request.param), folder


@pytest.fixture(scope="module")
def image_model(model):
    """What transformers answers with: of what follows videos the part for pictures."""
    kind, made, folder = model
    return tiny_sam.MODELS["sam2"][1].from_pretrained(folder).eval() if kind == "sam2_video" else made


def asked(prompt: Prompt, x: float, y: float) -> dict:
    """A prompt as transformers takes it, with so many of its pixels for one of the picture."""
    scale = torch.tensor([x, y])
    inputs = {}
    if prompt.points:
        inputs["input_points"] = torch.tensor([[[[px, py] for px, py, _ in prompt.points]]]) * scale
        inputs["input_labels"] = torch.tensor([[[int(wanted) for *_, wanted in prompt.points]]])
    if prompt.box:
        inputs["input_boxes"] = torch.tensor([[list(prompt.box)]]) * scale.repeat(2)
    return inputs


@torch.no_grad()
def by_transformers(kind: str, model, picture: np.ndarray, prompt: Prompt) -> np.ndarray:
    """The mask by its own processor for SAM; SAM 2's needs torchvision, so what it does is written out here."""
    one = len(prompt.points) == 1 and prompt.box is None
    if kind == "sam":
        processor = SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
        inputs = processor(Image.fromarray(picture), return_tensors="pt")
        seen = inputs["reshaped_input_sizes"][0].tolist()
        out = model(pixel_values=inputs["pixel_values"], multimask_output=one, **asked(prompt, seen[1] / WIDTH, seen[0] / HEIGHT))
        masks = processor.post_process_masks(out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], pad_size={"height": SIDE, "width": SIDE})
    else:
        seen = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        values = (torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None] / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) \
            / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        out = model(pixel_values=values, multimask_output=one, **asked(prompt, SIDE / WIDTH, SIDE / HEIGHT))
        masks = [F.interpolate(out.pred_masks[0], (HEIGHT, WIDTH), mode="bilinear", align_corners=False) > 0]
    return masks[0][0][out.iou_scores[0, 0].argmax()].numpy()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_a_mask_is_the_one_that_transformers_gives(model, image_model, picture, prompt):
    kind, _, folder = model
    segmenter = sam.load(folder)
    mask = segmenter.segment(segmenter.embed(picture, CPU), prompt, WIDTH, HEIGHT)
    expected = by_transformers(kind, image_model, picture, prompt)
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
    assert 0.02 < expected.mean() < 0.98  # else anything would do
    assert ((mask > 0) != expected).sum() <= 3  # of 13500: where the logit is 0 to the last digit


def test_clicks_and_boxes_change_the_mask_and_nothing_else_does(model, picture):
    segmenter = sam.load(model[2])
    seen = segmenter.embed(picture, CPU)
    masks = [segmenter.segment(seen, prompt, WIDTH, HEIGHT) for prompt in PROMPTS.values()]
    assert all((one != other).any() for at, one in enumerate(masks) for other in masks[:at])
    again = segmenter.segment(segmenter.embed(picture, CPU), PROMPTS["a click beside"], WIDTH, HEIGHT)
    assert (again == masks[2]).all()


def test_a_picture_is_shown_as_it_was_in_training():
    white = np.full((30, 60, 3), 255, np.uint8)
    values = sam.pixel_values(white, "sam", 128)
    assert values.shape == (1, 3, 128, 128)
    assert torch.allclose(values[0, :, 0, 0], torch.tensor([(1 - m) / s for m, s in zip(sam.MEAN, sam.DEVIATION)]))
    assert (values[0, :, :64] != 0).all() and not values[0, :, 64:].any()  # twice as wide as high, and the rest is nothing
    assert (sam.pixel_values(white, "sam2", 128) != 0).all()


def test_sizes_are_told_before_anything_is_read(model):
    kind, _, folder = model
    assert sam.size_of(folder) == pytest.approx(sam.load(folder).size, rel=0.01)
    assert sam.kind_of(folder) == sam.KINDS[kind]


# --- what cannot be read

@pytest.fixture
def folder(tmp_path):
    tiny_sam.save(tmp_path / "tiny", "sam")
    return tmp_path / "tiny"


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def of_another_kind(folder):
    change_config(folder, model_type="clip")


def without_a_tensor(folder):
    change_weights(folder, lambda tensors: tensors.pop("vision_encoder.neck.conv1.weight"))


def with_another_shape(folder):
    change_weights(folder, lambda tensors: tensors.update({"vision_encoder.neck.conv1.weight": torch.zeros(3, 3)}))


def with_one_more(folder):
    change_weights(folder, lambda tensors: tensors.update({"other": torch.zeros(3)}))


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def as_a_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_a_config_of_rubbish(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("damage, sentence", [
    (of_another_kind, 'is not SAM or SAM 2: its config.json has the model_type "clip"'), (without_a_tensor, "is incomplete: it lacks"),
    (with_another_shape, "does not fit together"), (with_one_more, 'holds the tensor "other"'), (cut_short, "damaged or cut short"),
    (as_a_pickle, "is a pickle"), (with_a_config_of_rubbish, "cannot be read")])
def test_what_cannot_be_read_is_one_sentence(folder, damage, sentence):
    damage(folder)
    with pytest.raises(ModelError, match=sentence) as told:
        sam.load(folder)
    assert "\n" not in str(told.value)


def test_a_config_cannot_ask_for_more_than_a_model_has(folder):
    change_config(folder, vision_config={"num_hidden_layers": 10**9})
    with pytest.raises(ValueError, match="at most"):
        sam.load(folder)


def test_half_precision_is_read_as_full(folder):
    change_weights(folder, lambda tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}))
    assert {parameter.dtype for parameter in sam.load(folder)._model.parameters()} == {torch.float32}

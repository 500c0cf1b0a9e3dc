"""How the demo model is judged: every bar is measured on the product's own edits."""

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from pipeline.families import load, placement
from pipeline.models import Catalog
from tests.conftest import ROOT
from tools.demo_model import train_embedding, train_lora
from tools.demo_model.attributes import CHOICES
from tools.demo_model.evaluate import COLUMNS, Bar, blotch, contact_sheet, exam_bars
from tools.demo_model.exam import Exam, Found, some
from tools.demo_model.scenes import scene


def one_sight(**words):
    """A judge that sees these choices in every picture, and of the others the first."""
    guesses = torch.cat([torch.eye(len(names))[names.index(words.get(key, names[0]))] for key, names in CHOICES.items()])
    return lambda pictures: guesses.expand(len(pictures), -1)


@pytest.fixture(scope="module")
def exam():
    family = load(ROOT / "assets" / "demo-model", placement.choose("cpu", "float32"))
    return Exam(family, one_sight(time="night", thing="house", colour="red"), count=4, size=64, steps=2, sampler_steps=(4,))


def test_a_hit_is_what_was_asked_and_is_seen(exam):
    image = Image.new("RGB", (64, 64))
    hits = exam.hits([image, image], [dict(time="night"), dict(time="day", thing="house")])
    assert hits == dict(time=[True, False], thing=[True])


def put(path):
    path.parent.mkdir(parents=True)
    return path


def test_every_part_of_the_exam_gives_numbers_and_pictures(exam, tmp_path):
    train_embedding.write(torch.randn(2, 192), put(tmp_path / "embeddings" / "winter-tale.safetensors"), 1)
    unet = UNet2DConditionModel.from_pretrained(ROOT / "assets" / "demo-model" / "unet")
    train_lora.write(train_lora.Lora(unet, rank=1), put(tmp_path / "Lora" / "stained-glass.safetensors"), 1)
    exam = replace(exam, catalog=Catalog(tmp_path))
    found = {name: getattr(exam, name)() for name in COLUMNS}
    bars = exam_bars(found)
    assert len(bars) == sum(len(part.values) for part in found.values()) and len({bar.name for bar in bars}) == len(bars)
    assert all(bar.value >= 0 and " " in bar.line() for bar in bars)
    # of what was asked only night, houses and red are ever seen
    assert set(found["steering"].values) == {"time", "season", "place", "style"}
    assert found["samplers"].values["every sampler, few steps and many"] == pytest.approx(0.75)  # all but the meadow
    plain, glass, tale = found["networks"].pictures[:3]
    assert glass.tobytes() != plain.tobytes() != tale.tobytes()
    for name, columns in COLUMNS.items():
        made = contact_sheet(found[name].pictures, columns, tile=16)
        assert made.width == 16 * min(columns, len(found[name].pictures))
    assert {picture.size for picture in found["sizes"].pictures} == {(48, 48), (80, 80)}


def test_without_a_lora_and_an_embedding_there_is_no_bar_for_them(exam, tmp_path):
    assert exam.networks() == replace(exam, catalog=Catalog(tmp_path)).networks() == Found()


def test_an_edit_leaves_what_is_not_masked(exam):
    source, mask = exam.draw(scene(place="sea", seed=3)), Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    made = exam.edit(source, "a red house", 1.0, mask=mask)
    assert list(made.crop((0, 0, 16, 64)).get_flattened_data()) == list(source.crop((0, 0, 16, 64)).get_flattened_data())
    assert made.crop((40, 0, 64, 64)).tobytes() != source.crop((40, 0, 64, 64)).tobytes()


def test_blotches_are_errors_of_whole_patches():
    wanted = torch.zeros(1, 3, 32, 32)
    noisy = wanted + 0.2 * (1 - 2 * (torch.arange(32) % 2))
    spoiled = wanted.clone()
    spoiled[:, 0, 16:, 16:] = 0.2
    assert blotch(noisy, wanted) == pytest.approx(0, abs=1e-3) and blotch(spoiled, wanted) == pytest.approx(25.5, abs=0.1)


def test_a_bar_says_whether_it_is_met():
    assert Bar("found", 0.91, 0.9).line().startswith("met") and Bar("found", 0.5, 0.9).line().startswith("MISSED")
    assert Bar("seconds", 13.0, 12, at_least=False).line() == "MISSED seconds: 13.00 (at most 12)"


def test_some_are_from_all_over_the_row():
    assert some(range(100), 4) == [0, 25, 50, 75] and some([1, 2], 5) == [1, 2]

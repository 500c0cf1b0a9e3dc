"""Upscalers by name: which there are, how a network enlarges in tiles and passes, and what is said where there is none."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import upscalers as networks
from pipeline.errors import InvalidRequest, ModelError, UnknownName
from pipeline.geometry import Size
from pipeline.models import Catalog
from pipeline.options import Options
from pipeline.tiles import combine, split, tile_boxes
from pipeline.upscalers.names import NetworkUpscaler, Upscalers
from pipeline.upscalers import running as running_module
from pipeline.upscalers.running import Running
from pipeline.upscaling import lanczos, upscale
from tests.upscalers import tiny

OPTIONS = Options()
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8))


def test_those_without_files_come_first_and_networks_by_their_names(upscalers):
    assert upscalers.names() == ["None", "Lanczos", "Nearest", "DAT x2", "double", "R-ESRGAN 4x+", "same", "tiny"]
    assert Upscalers().names() == ["None", "Lanczos", "Nearest"]


def test_two_files_of_one_name_are_both_there(tmp_path):
    for folder in ("ESRGAN", "RealESRGAN"):
        tiny.saved(tiny.compact(), tmp_path / folder / "one.safetensors")
    names = Upscalers(Catalog(tmp_path)).names()[3:]
    assert names == ["one", "RealESRGAN/one.safetensors"]
    assert len({Upscalers(Catalog(tmp_path)).file(name).path for name in names}) == 2


def test_the_folders_of_an_installation_of_a1111_are_read(tmp_path):
    (tmp_path / "models" / "Stable-diffusion").mkdir(parents=True)
    tiny.saved(tiny.compact(), tmp_path / "models" / "ESRGAN" / "4x-one.safetensors")
    assert "4x-one" in Upscalers(Catalog(tmp_path)).names()


@pytest.mark.parametrize("name", ["R-ESRGAN 4x+", "RealESRGAN_x4plus", "RealESRGAN_x4plus.safetensors"])
def test_a_network_is_found_by_a1111s_name_and_by_its_files(upscalers, name):
    assert upscalers.find(name, "upscaler_1", OPTIONS).name == "R-ESRGAN 4x+"


@pytest.mark.parametrize("name, error, sentence", [
    ("DAT x4", InvalidRequest, r'upscaler_1: no upscaler called "DAT x4": it needs DAT_x4.safetensors in the folder DAT of the '
                               r"models folder, made of DAT_x4.pth by: python -m tools.convert"),
    ("ScuNET", UnknownName, 'upscaler_1: no upscaler called "ScuNET"'), (7, UnknownName, "no upscaler called"),
    ("old", ModelError, '"old.pth" is a pickle')])
def test_what_is_not_there_is_one_sentence(upscalers, name, error, sentence):
    with pytest.raises(error, match=sentence):
        upscalers.find(name, "upscaler_1", OPTIONS)


@pytest.mark.parametrize("given, name", [("LANCZOS", "Lanczos"), (1, "Lanczos"), (3, "DAT x2"), ("r-esrgan 4X+", "R-ESRGAN 4x+")])
def test_scripts_choose_by_name_or_index(upscalers, given, name):
    assert upscalers.chosen(given, "script_args") == name
    with pytest.raises(UnknownName):
        upscalers.chosen(len(upscalers.names()), "script_args")


# what a network makes

def by_hand(tensors_file, image):
    """A picture enlarged at once: BGR, rounded."""
    pixels = torch.from_numpy(np.asarray(image)[..., ::-1].astype(np.float32)).permute(2, 0, 1)[None] / 255
    made = networks.load(tensors_file).enlarge(pixels)[0].clamp(0, 1).permute(1, 2, 0).numpy()
    return Image.fromarray((made * 255).round().astype(np.uint8)[..., ::-1])


def test_without_tiles_it_is_the_networks_picture_with_its_colours_swapped(upscalers, models_dir):
    made = upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 0}))(NOISE, Size(112, 80))
    assert made.tobytes() == by_hand(models_dir / "ESRGAN" / "double.safetensors", NOISE).tobytes()


def test_tiles_overlap_and_fade_into_each_other(upscalers, models_dir):
    made = upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 32, "ESRGAN_tile_overlap": 4}))(NOISE, Size(112, 80))
    tiles = split(NOISE, tile_boxes(Size(56, 40), Size(32, 32), 4))
    larger = [by_hand(models_dir / "ESRGAN" / "double.safetensors", tile) for tile in tiles]
    # A1111: of boxes (0, 24) across and (0, 8) down; everything is twice as large after the network
    boxes = tile_boxes(Size(112, 80), Size(64, 64), 8)
    assert [box.x1 for box in boxes[0]] == [0, 48] and [row[0].y1 for row in boxes] == [0, 16]
    assert made.tobytes() == combine(larger, boxes, Size(112, 80), 8).tobytes()


def test_a_picture_smaller_than_a_tile_lies_at_its_lower_right(upscalers, models_dir):
    image = NOISE.crop((0, 0, 20, 12))
    made = upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 32}))(image, Size(40, 24))
    canvas = Image.new("RGB", (32, 32))  # A1111: black at the left and above
    canvas.paste(image, (12, 20))
    whole = by_hand(models_dir / "ESRGAN" / "double.safetensors", canvas)
    assert made.size == (40, 24) and made.crop((16, 16, 40, 24)).tobytes() == whole.crop((40, 56, 64, 64)).tobytes()


def test_dat_has_its_own_tiles(upscalers):
    options = OPTIONS.override({"ESRGAN_tile": 64, "DAT_tile": 32, "DAT_tile_overlap": 2})
    assert [(found.tile, found.overlap) for name in ("DAT x2", "double") if (found := upscalers.find(name, "u", options))] == [(32, 2), (64, 8)]


@pytest.mark.parametrize("name, scale, passes, size", [
    ("double", 2, 1, (112, 80)), ("double", 3, 2, (168, 120)), ("double", 16, 3, (896, 640)), ("tiny", 1, 1, (56, 40)),
    ("tiny", 1.5, 1, (80, 56)), ("same", 2, 1, (112, 80)), ("double", 0.5, 0, (24, 16))])
def test_up_to_three_passes_and_lanczos_for_the_rest(catalog, name, scale, passes, size):
    seen, running = [], Running(Upscalers(catalog).file)

    def run(name, picture):
        seen.append(picture.shape)
        return running.run(name, picture)

    found = Upscalers(catalog, run).find(name, "u", OPTIONS.override({"ESRGAN_tile": 0}))
    made = upscale(NOISE, scale, found)
    assert made.size == size and len(seen) == passes


def test_it_can_be_ended_between_tiles_and_the_rest_is_lanczos(upscalers):
    told = []

    def watch(done, tiles):
        told.append((done, tiles))
        return done < 2

    found = upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 32}), watch)
    assert upscale(NOISE, 2, found).tobytes() == upscale(NOISE, 2, lanczos).tobytes()
    assert told == [(0, 4), (1, 4), (2, 4)]


def test_equal_ones_make_equal_pixels(upscalers):
    one = upscalers.find("double", "u", OPTIONS)
    assert one == upscalers.find("double", "other", OPTIONS, lambda done, tiles: True) and hash(one)
    assert one != upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 64}))
    assert one != upscalers.find("same", "u", OPTIONS)


def test_an_overlap_as_large_as_a_tile_is_one_sentence(upscalers):
    found = upscalers.find("double", "u", OPTIONS.override({"ESRGAN_tile": 16, "ESRGAN_tile_overlap": 16}))
    with pytest.raises(InvalidRequest, match="ESRGAN_tile_overlap: .* must be larger than the overlap of 16 pixels"):
        found(NOISE, Size(112, 80))


def test_a_picture_too_large_to_make_is_one_sentence():
    found = NetworkUpscaler("double", None, 64, 8, lambda name, picture: np.zeros((256, 256, 3), np.uint8))
    with pytest.raises(InvalidRequest, match="would make 24000x400 pixels of 6000x100; at most 16384"):
        found(Image.new("RGB", (6000, 100)), Size(7000, 100))


# where it runs

def test_a_file_that_is_replaced_is_read_again(tmp_path):
    path = tiny.saved(tiny.compact(2, seed=1), tmp_path / "ESRGAN" / "a.safetensors")
    running, picture = Running(Upscalers(Catalog(tmp_path)).file), np.asarray(NOISE)
    first = running.run("a", picture)
    tiny.saved(tiny.compact(2, convolutions=3, seed=2), path)
    assert (running.run("a", picture) != first).any()


def test_too_little_memory_is_one_sentence(catalog):
    running = Running(Upscalers(catalog).file, free=lambda device: 1_000_000)
    with pytest.raises(ModelError, match='"double.safetensors" has not enough memory for 56x40 pixels at once; a smaller ESRGAN_tile'):
        running.run("double", np.asarray(NOISE))


def test_a_card_that_is_full_leaves_it_to_the_processor(catalog, monkeypatch):
    tried, enlarged = [], running_module.enlarged

    def full(network, picture, device):
        tried.append(device.type)
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return enlarged(network, picture, device)

    monkeypatch.setattr("pipeline.upscalers.running.enlarged", full)
    monkeypatch.setattr("pipeline.upscalers.running.collect", lambda device: None)
    running = Running(Upscalers(catalog).file, torch.device("cuda"))
    assert running.run("double", np.asarray(NOISE)).shape == (80, 112, 3)
    assert running.run("double", np.asarray(NOISE), on_card=False).shape == (80, 112, 3)
    assert tried == ["cuda", "cpu", "cpu"]

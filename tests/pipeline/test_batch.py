"""Batch: a request per file."""

import pytest
from PIL import Image

from pipeline.batch import Batch, find_pictures, requests
from pipeline.engine import Finished
from pipeline.errors import InvalidRequest
from pipeline.infotext import png_info

SMALL = {"width": 64, "height": 64, "steps": 2, "sampler_name": "Euler", "prompt": "a forest"}


@pytest.fixture
def folder(tmp_path, picture):
    """Files 1, 2 and 10, of 64, 64 and 32 pixels."""
    for name, size in (("10.png", 32), ("2.jpg", 64), ("1.png", 64)):
        picture.resize((size, size)).save(tmp_path / name)
    return tmp_path


def made(batch, **settings):
    return list(requests(batch, SMALL | settings))


def test_pictures_are_found_in_natural_order_and_in_folders(folder):
    (folder / "more").mkdir()
    (folder / "1.png").rename(folder / "more" / "1.PNG")
    (folder / "notes.txt").write_text("no picture")
    assert [file.name for file in find_pictures(folder)] == ["2.jpg", "10.png", "1.PNG"]


def test_all_files_have_the_same_seed(folder):
    seeds = {(p.seed, p.subseed) for p in made(Batch(find_pictures(folder)), seed=-1)}
    assert len(seeds) == 1 and -1 not in seeds.pop()


def test_a_file_is_read_when_its_turn_comes(folder):
    files = find_pictures(folder)
    work = requests(Batch(files), SMALL)
    next(work)
    files[1].write_bytes(b"")
    assert [p.init_images[0].size for p in work] == [(32, 32)]


def test_each_picture_can_keep_its_own_proportions(folder):
    assert [(p.width, p.height) for p in made(Batch(find_pictures(folder), scale_by=1.5))] == [(96, 96), (96, 96), (48, 48)]


def test_what_cannot_be_read_is_left_out_and_told(folder):
    (folder / "0.png").write_bytes(b"no picture")
    (folder / "11.png").write_bytes(b"")
    first, _, last = made(Batch(find_pictures(folder)))
    assert first.comments[0].startswith("Left out: 0.png: the file is not a picture")
    assert last.comments[0].startswith("Left out: 11.png: the file is empty")


def test_where_no_file_is_left_the_batch_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no file could be used. Left out: gone.png"):
        made(Batch([tmp_path / "gone.png"]))


def test_masks_go_by_name_or_one_is_for_all(folder, tmp_path, mask):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask.save(masks / "2.png")
    files = [file for file in find_pictures(folder) if file.parent == folder]
    assert len([p for p in made(Batch(files, mask_folder=masks)) if p.image_mask]) == 3
    mask.save(masks / "1.webp")
    first, second = made(Batch(files, mask_folder=masks))
    assert second.comments == ["Left out: 10.png has no mask."] and first.image_mask.size == (64, 64)


def test_infotext_is_taken_as_far_as_it_is_wanted(folder, picture):
    text = "an oak\nNegative prompt: snow\nSteps: 3, Sampler: Euler a, CFG scale: 4.5, Seed: 77, Model hash: 0123456789"
    picture.save(folder / "1.png", pnginfo=png_info(text))
    files = [folder / "1.png"]
    p, = made(Batch(files, reuse=("Prompt", "Seed", "Steps")), seed=5, negative_prompt="fog")
    assert (p.prompt, p.negative_prompt, p.seed, p.steps, p.cfg_scale) == ("a forest an oak", "fog", 77, 3, 7.0)
    everything = Batch(files, reuse=("Negative prompt", "CFG scale", "Sampler", "Model hash"))
    p, = requests(everything, SMALL | {"seed": 5}, has_model=lambda name: name == "0123456789")
    assert (p.negative_prompt, p.cfg_scale, p.sampler_name, p.seed) == ("snow", 4.5, "Euler a", 5)
    assert p.options.sd_model_checkpoint == "0123456789"
    p, = requests(everything, SMALL)
    assert p.options.sd_model_checkpoint == ""


def test_infotext_can_lie_in_another_folder(folder, tmp_path, picture):
    (tmp_path / "info").mkdir()
    picture.save(tmp_path / "info" / "1.png", pnginfo=png_info("an oak\nSteps: 3, Sampler: Euler, Seed: 9"))
    files = [folder / "1.png", folder / "2.jpg"]
    first, second = made(Batch(files, reuse=["Seed"], info_folder=tmp_path / "info"), seed=5)
    assert (first.seed, second.seed) == (9, 5)


def test_only_known_keys_can_be_taken(folder):
    with pytest.raises(InvalidRequest, match="reuse: Size cannot be taken; valid: Prompt"):
        made(Batch(find_pictures(folder), reuse=["Size"]))


def test_results_are_saved_under_their_files_names(engine, folder, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        work = requests(Batch([folder / "1.png", folder / "10.png"], output_folder=out), SMALL | {"seed": 1})
        events = list(engine.submit(work).events())
        assert isinstance(events[-1], Finished) and len(events[-1].results) == 2
    assert sorted(file.name for file in out.iterdir()) == ["1-1.png", "1.png", "10-1.png", "10.png"]
    assert Image.open(out / "10.png").size == (64, 64)

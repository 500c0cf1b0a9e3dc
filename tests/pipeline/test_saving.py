from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from pipeline.infotext import png_info
from pipeline.saving import claim, save_image, save_under


def picture(parameters="a cat\nSteps: 20, Seed: 7", shade=90):
    image = Image.new("RGB", (4, 4), (shade, shade, shade))
    image.info["parameters"] = parameters
    return image


def names(folder):
    return sorted(path.name for path in Path(folder).rglob("*.*"))


def test_a_picture_lies_in_today_s_folder(tmp_path):
    path = save_image(picture(), tmp_path / "outputs" / "img2img", name="7")
    assert Path(path) == tmp_path / "outputs" / "img2img" / date.today().isoformat() / "00000-7.png"


def test_numbers_count_up(tmp_path):
    for seed in (7, 7, 8):
        save_image(picture(), tmp_path, name=str(seed))
    assert names(tmp_path) == ["00000-7.png", "00001-7.png", "00002-8.png"]


def test_a_gap_is_not_filled(tmp_path):
    (tmp_path / "00041-1.png").touch()
    assert claim(tmp_path, "2").name == "00042-2.png"


def test_numbers_grow_beyond_five_digits(tmp_path):
    (tmp_path / "99999-1.png").touch()
    assert claim(tmp_path, "2").name == "100000-2.png"


def test_other_files_do_not_count(tmp_path):
    for name in ("grid-0007.png", "notes.txt", "12.png"):
        (tmp_path / name).touch()
    assert claim(tmp_path, "1").name == "00000-1.png"


def test_the_file_carries_its_infotext(tmp_path):
    path = save_image(picture("a café, 漢字\nSteps: 20"), tmp_path, name="7")
    with Image.open(path) as saved:
        assert saved.info["parameters"] == "a café, 漢字\nSteps: 20"


def test_no_pixel_is_lost(tmp_path):
    with Image.open(save_image(picture(shade=123), tmp_path, name="7")) as saved:
        assert saved.tobytes() == picture(shade=123).tobytes()


def test_only_the_picture_is_left(tmp_path):
    save_image(picture(), tmp_path, name="0.5")
    assert names(tmp_path) == ["00000-0.5.png"]


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    image = picture()
    with pytest.raises(OSError):
        save_image(image.convert("CMYK"), tmp_path, name="7")
    assert names(tmp_path) == []


@pytest.mark.parametrize("carried", [{}, {"palimpsest": "{}"}, {"parameters": "a cat"}, {"parameters": "a cat", "palimpsest": "{}"}])
def test_infotext_and_receipt_are_all_that_a_file_carries(tmp_path, carried):
    image = Image.new("RGB", (4, 4))
    image.info = carried | {"transparent": "no", "gamma": 0.45}
    with Image.open(save_image(image, tmp_path, name="7")) as saved:
        assert list(saved.info.items()) == list(carried.items())


def test_pictures_saved_at_once_never_collide(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda shade: save_image(picture(shade=shade), tmp_path, name="7"), range(40)))
    assert names(tmp_path) == [f"{number:05d}-7.png" for number in range(40)]
    for shade, path in enumerate(paths):
        with Image.open(path) as saved:
            assert saved.getpixel((0, 0)) == (shade, shade, shade)


def test_png_info_reads_back_what_was_put_in(tmp_path):
    picture().save(tmp_path / "a.png", pnginfo=png_info("text", {"other": "kept"}))
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.info == {"other": "kept", "parameters": "text"}


def test_a_picture_can_have_a_name_of_its_own_and_never_takes_another_s(tmp_path):
    paths = [save_under(picture(shade=shade), tmp_path / "out", stem="cat") for shade in (1, 2, 3)]
    assert [Path(path).name for path in paths] == ["cat.png", "cat-1.png", "cat-2.png"]
    assert [Image.open(path).getpixel((0, 0))[0] for path in paths] == [1, 2, 3]

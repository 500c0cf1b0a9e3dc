"""Legends around grids."""

import os
import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

from pipeline.geometry import Size
from pipeline.errors import InvalidRequest
from pipeline.fonts import FONT, font_file, fonts_for, lacking, named_font
from pipeline.grids import Legend, annotate, unreadable, wrapped
from pipeline.options import Options

CELL = Size(64, 64)


def sheet(columns, rows, margin=0, cell=CELL):
    grid = Image.new("RGB", (cell.width * len(columns), cell.height * len(rows)), "blue")
    return annotate(grid, cell, columns, rows, margin)


def ink(image, box):
    return (np.asarray(image.crop(box)) != 255).any(axis=2)


def test_without_texts_there_is_no_room_for_them():
    assert sheet([[Legend()]] * 2, [[Legend()]]).size == (128, 64)


def test_columns_have_their_legend_above_and_rows_at_the_left():
    image = sheet([[Legend("one")], [Legend("two")]], [[Legend("three")]])
    left = 48  # three quarters of a cell
    top = image.height - 64
    assert image.width == left + 128 and top > 0
    assert ink(image, (left, 0, left + 64, top)).any() and ink(image, (0, top, left, top + 64)).any()
    assert not ink(image, (0, 0, left, top)).any()
    assert image.getpixel((left, top)) == (0, 0, 255)


def test_cells_stand_apart_by_the_margin():
    image = sheet([[Legend()]] * 3, [[Legend()]] * 2, margin=10)
    assert image.size == (3 * 64 + 20, 2 * 64 + 10)
    assert image.getpixel((64, 0)) == (255, 255, 255) and image.getpixel((74, 0)) == (0, 0, 255)


def test_what_is_left_out_is_gray_and_struck_through():
    plain, struck = (sheet([[Legend("word", active)]], [[Legend()]], cell=Size(256, 256)) for active in (True, False))
    top = plain.height - 256
    assert np.asarray(plain.crop((0, 0, 256, top))).min() < 64
    assert np.asarray(struck.crop((0, 0, 256, top))).min() >= 0x99
    assert ink(struck, (0, 0, 256, top)).sum() > ink(plain, (0, 0, 256, top)).sum()


def test_legends_and_the_space_around_have_the_colours_of_the_options():
    options = Options(grid_background_color="#102030", grid_text_active_color="red", grid_text_inactive_color="lime")
    grid = Image.new("RGB", (128, 64), "blue")
    image = annotate(grid, CELL, [[Legend("MMM")], [Legend("MMM", active=False)]], [[Legend()]], 0, options)
    seen = {pixel for _, pixel in image.getcolors(10_000)}
    assert {(16, 32, 48), (0, 255, 0), (0, 0, 255)} <= seen
    assert any(red > 128 > 2 * green for red, green, _ in seen)  # small letters are nowhere of the whole colour


def test_words_are_wrapped_where_a_line_is_full():
    lines = wrapped([Legend("many words in one legend")], 60, 12, (FONT,))
    assert len(lines) > 1 and " ".join(line.text for line in lines) == "many words in one legend"


def test_a_long_word_is_shrunk_into_its_cell():
    image = sheet([[Legend("W" * 40)], [Legend()]], [[Legend()]])
    top = image.height - 64
    assert not ink(image, (68, 0, 128, top)).any()


@pytest.mark.parametrize("cell", [Size(8, 8), Size(16, 8)])
def test_tiny_cells_are_annotated_too(cell):
    assert sheet([[Legend("a")]], [[Legend("b")]], cell=cell).width > cell.width


@pytest.mark.parametrize("text", ["", "a cat, (dog:1.2)", "Größe ±½ €", "кошка γάτα", "tab\tand\nline"])
def test_the_programs_own_font_writes_what_it_can(text):
    assert lacking(text) == "" and font_file(text) == FONT and unreadable([[Legend(text)]]) == []


def test_characters_that_a_font_lacks_are_told():
    assert lacking("a 猫 and 犬") == "猫犬"
    assert font_file("猫", (FONT,)) is None
    assert font_file("a", (FONT.with_name("not there.ttf"), FONT.with_name("README.md"), FONT)) == FONT


def test_a_legend_that_no_font_can_write_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setattr("pipeline.grids.font_file", lambda text, fonts: FONT if text.isascii() else None)
    said, = unreadable([[Legend("a 猫")], [Legend("猫と犬")], [Legend("plain")]])
    assert said.startswith('Legends of the grid show boxes for "猫と犬", as no font')


@pytest.fixture
def other_font(tmp_path):
    """Another font than ours, Pillow's, with Latin letters alone."""
    (tmp_path / "Other.ttf").write_bytes(ImageFont.load_default(20).path.getvalue())
    return tmp_path / "Other.ttf"


def test_a_legend_is_drawn_in_the_font_that_has_its_characters(other_font):
    plain, cat = wrapped([Legend("word"), Legend("кошка")], 60, 12, (other_font, FONT))
    assert lacking("кошка", other_font) and not lacking("кошка") and (plain.file, cat.file) == (other_font, FONT)


def test_the_option_names_the_font_that_legends_are_drawn_in(other_font):
    grid, legends = Image.new("RGB", CELL, "blue"), ([[Legend("word")]], [[Legend()]])
    ours, theirs = (annotate(grid, CELL, *legends, 0, options) for options in (Options(), Options().override({"font": str(other_font)})))
    assert ours.tobytes() != theirs.tobytes()
    line, = wrapped([Legend("word")], 60, 12, fonts_for(str(other_font)))
    assert line.file == other_font


def test_what_the_named_font_lacks_is_drawn_in_another(other_font):
    assert font_file("a", fonts_for(str(other_font))) == other_font
    assert fonts_for(str(other_font))[1] == FONT and fonts_for("")[0] == FONT


def test_a_font_may_be_named_as_the_system_knows_it(other_font, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(other_font.parent / "share"))
    folder = other_font.parent / "share" / "fonts" / "deeper"
    folder.mkdir(parents=True)
    installed = other_font.rename(folder / "OnlyHere.ttf")
    assert named_font("OnlyHere.ttf") == installed and Options().override({"font": "OnlyHere.ttf"}).font == "OnlyHere.ttf"


@pytest.mark.parametrize("value", ["Comic Sans", "/etc/passwd", "/not/there.ttf", "//elsewhere/share/a.ttf", r"\\elsewhere\share\a.ttf", 7, ["a.ttf"],
                                   "a\0.ttf", "x" * 5000 + ".ttf"])
def test_what_is_no_font_is_refused_in_a_sentence(value):
    with pytest.raises(InvalidRequest, match="^font must be the path of a font file") as refused:
        Options().override({"font": value})
    assert len(str(refused.value)) < 400


def test_what_only_is_called_a_font_is_refused_at_once(tmp_path):
    (tmp_path / "text.ttf").write_text("no font")
    (tmp_path / "folder.ttf").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.ttf")
    for name in ("text.ttf", "folder.ttf", "pipe.ttf"):
        with pytest.raises(InvalidRequest, match="^font must be"):
            Options().override({"font": str(tmp_path / name)})


def test_a_font_that_has_gone_since_leaves_legends_in_ours(other_font):
    options = Options().override({"font": str(other_font)})
    other_font.unlink()
    assert fonts_for(options.font)[0] == FONT

"""Options that are set and remembered."""

import json

import pytest

from pipeline.errors import InvalidRequest
from pipeline.options import Options
from pipeline.settings import Settings

KEPT = {"theme": "dark", "columns": 3, "loud": False, "tabs": [], "anything": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "there" / "config.json"


def test_without_a_file_the_defaults_hold_and_nothing_is_written(path):
    settings = Settings(path, KEPT)
    assert settings.options == Options() and settings.values()["theme"] == "dark"
    assert not path.exists()


def test_what_differs_from_the_defaults_is_remembered(path):
    Settings(path, KEPT).change({"emphasis": "None", "theme": "light", "columns": 3})
    assert json.loads(path.read_text()) == {"theme": "light", "emphasis": "None"}
    again = Settings(path, KEPT)
    assert again.options.emphasis == "None" and again.values()["theme"] == "light"


def test_a_default_that_is_set_again_is_forgotten(path):
    settings = Settings(path, KEPT)
    settings.change({"emphasis": "None"})
    settings.change({"emphasis": "Original"})
    assert json.loads(path.read_text()) == {}


def test_a_change_may_last_for_this_run_only(path):
    settings = Settings(path, KEPT)
    settings.change({"emphasis": "None"}, remember=False)
    assert settings.options.emphasis == "None" and not path.exists()


@pytest.mark.parametrize("values", [{"emphasis": "None", "unknown": 1}, {"emphasis": "None", "columns": "x"},
                                    {"emphasis": "None", "loud": 1},
                                    {"theme": "x" * 20_000}, {"columns": True}, {"tabs": "x"}])
def test_a_change_that_is_not_valid_changes_nothing(path, values):
    settings = Settings(path, KEPT)
    with pytest.raises(InvalidRequest):
        settings.change(values)
    assert settings.values() == Settings(None, KEPT).values() and not path.exists()


@pytest.mark.parametrize("text, emphasis", [
    ("", "Original"), ("[]", "Original"), ("{", "Original"), ('{"emphasis": "loud"}', "Original"),
    ('{"emphasis": 3, "rho": "x"}', "Original"),
    ('{"emphasis": "None", "of_another_program": 1, "columns": "x"}', "None")])
def test_of_a_damaged_or_foreign_file_what_is_sound_is_taken(path, text, emphasis, caplog):
    path.parent.mkdir()
    path.write_text(text)
    assert Settings(path, KEPT).options.emphasis == emphasis


def test_a_name_that_acts_is_not_merely_kept(path):
    settings = Settings(path, KEPT | {"emphasis": "kept"})
    settings.change({"emphasis": "None"})
    assert settings.options.emphasis == "None" and settings.defaults["emphasis"] == "Original"

"""Names and aliases of LoRA files."""

import pytest
import torch

from pipeline.errors import UnknownName
from pipeline.networks import LoraNames


class Folder:
    """A catalog whose files are told by name; `late` ones are seen after a refresh."""

    def __init__(self, *files, late=()):
        self.files, self.late = list(files), list(late)

    def loras(self):
        return self.files

    def find_lora(self, name):
        found = [file for file in self.files if file.stem == name]
        if not found:
            raise UnknownName("prompt", "LoRA", name, [file.stem for file in self.files])
        return found[0]

    def refresh(self):
        self.files, self.late = self.files + self.late, []


@pytest.fixture
def lora(write):
    def make(name, alias=None):
        return write(name, {"lora_unet_conv_in.alpha": torch.ones(1)}, {"ss_output_name": alias} if alias else None)
    return make


def test_a_file_is_found_by_its_name_and_by_its_alias(lora):
    cat, dog = lora("cat", alias="my cat"), lora("dog")
    names = LoraNames(Folder(cat, dog))
    assert [names.find(name) for name in ("cat", "my cat", "dog")] == [cat, cat, dog]
    assert [names.prompt_name(file) for file in (cat, dog)] == ["my cat", "dog"]


@pytest.mark.parametrize("alias", ["same", "none", "None"])
def test_an_alias_of_two_files_or_of_none_names_no_file(lora, alias):
    files = [lora("cat", alias), *([lora("dog", alias)] if alias == "same" else [])]
    names = LoraNames(Folder(*files))
    with pytest.raises(UnknownName):
        names.find(alias)
    assert [names.prompt_name(file) for file in files] == [file.stem for file in files]


def test_a_files_name_comes_before_anothers_alias(lora):
    other, cat = lora("other", alias="cat"), lora("cat")
    names = LoraNames(Folder(other, cat))
    assert names.find("cat") == cat
    assert names.prompt_name(other) == "other"


def test_a_new_file_is_found_without_asking_for_a_refresh(lora):
    late = lora("late")
    assert LoraNames(Folder(late=[late])).find("late") == late


def test_a_damaged_file_has_its_name_and_no_alias(lora):
    file = lora("cat", alias="my cat")
    file.path.write_bytes(b"no")
    assert LoraNames(Folder(file)).prompt_name(file) == "cat"


def test_a_header_is_read_anew_when_the_file_has_changed(lora):
    file = lora("cat", alias="my cat")
    names = LoraNames(Folder(file))
    assert names.alias(file) == "my cat"
    lora("cat", alias="the cat of the whole family")
    assert names.alias(file) == "the cat of the whole family"

"""What a list offers is always accepted back, whatever the files are called."""

import random
import unicodedata

import pytest
import torch
from safetensors.torch import save_file

from api.listing import lora_item
from pipeline.limits import Client
from pipeline.loading import ModelStore
from pipeline.models import Catalog
from pipeline.networks import LoraNames, read_tags
from pipeline.options import Options
from pipeline.prompt_parser import extract_networks, strip_comments
from pipeline.styles import Style, StyleDatabase, read_styles, write_styles
from ui import picker

ODD = [
    "plain", "ends in a space ", " begins with one", "a=b", "te=2", "a=b=c", "a:b", "x:1", "a_b", "a>b", "a<b", "#1 style", "a, b", "a;b",
    "(a)", "[b]", "[abcdef1234]", "name [abcdef12]", "a|b", "AND", "BREAK", "{prompt}", "back\\slash", "v1.5", "x.safetensors",
    "None", "none", "Automatic", "auto", "日本語", "e\u0301", "🎨", "UPPER", "upper", "tab\tin it", "two  spaces", "'quoted'", '"double"',
    "lora", "<lora", "a/inside", "b/inside", "a/b/inside", "a b/in side", "c=d/x=y", "f:g/h", "1234567890", "0123456789abcdef", "100%",
    "dash-", "under_score", "a_inside",
]
CHARACTERS = "ab12 =:,._-()[]{}<>#|\\'\"&%@~;é日🎨"


def random_names(count: int) -> list[str]:
    rng = random.Random(14)
    found = set()
    while len(found) < count:
        name = "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(1, 9)))
        folder = "".join(rng.choice("ab =:") for _ in range(rng.randint(1, 3))) + "/" if rng.random() < 0.3 else ""
        if not (folder + name).startswith(".") and not name.startswith("."):
            found.add(folder + name)
    return sorted(found)


NAMES = [*dict.fromkeys((*ODD, *random_names(150)))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of every kind under all names."""
    root = tmp_path_factory.mktemp("models")
    for number, name in enumerate(NAMES):
        for kind in ("Stable-diffusion", "VAE", "Lora"):
            path = root / kind / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            facts = {"ss_output_name": NAMES[number // 2]} if number % 2 else {}
            save_file({"lora_unet_conv_in.alpha": torch.ones(1)}, path, facts)
    return root


@pytest.fixture(scope="module")
def catalog(folder):
    return Catalog(folder)


@pytest.fixture(scope="module")
def models(catalog):
    return ModelStore(catalog, None, catalog.checkpoints()[0])


def test_every_file_is_listed(catalog):
    for files in (catalog.checkpoints(), catalog.vaes(), catalog.loras()):
        assert len(files) == len(NAMES)


@pytest.mark.parametrize("hashed", [False, True])
def test_a_checkpoint_is_found_by_its_title_and_by_what_the_menu_sends(catalog, models, hashed):
    for file in catalog.checkpoints():
        if hashed and len(file.rel) < 20:
            catalog.sha256(file)
            file = catalog.hashed(file)
        for text in (file.title, file.rel):
            assert models.find(Options(sd_model_checkpoint=text))[0].path == file.path, text


def test_a_vae_is_found_by_its_name_in_the_lists(catalog, models):
    names = catalog.vae_names()
    assert len({name for name, _ in names}) == len(names) == len(NAMES)
    for name, file in names:
        assert models.find(Options(sd_model_checkpoint="plain", sd_vae=name))[1].path == file.path, name


def asked_for(prompt: str) -> list:
    """The LoRAs that a prompt names, as a job reads them."""
    return [request.name for request in read_tags(extract_networks(strip_comments(prompt))[1])]


def test_a_lora_is_found_by_its_name_and_its_alias_in_the_list(catalog):
    names = LoraNames(catalog)
    for file, *offered in names.listed():
        item = lora_item(file, *offered, {}, Client("somebody"))
        for name in (item.name, item.alias):
            found, = asked_for(f"a boat <lora:{name}:0.5>, a sea")
            assert names.find(found).path == file.path, name


def test_a_lora_is_found_by_what_the_picker_writes(catalog):
    names = LoraNames(catalog)
    for file in catalog.loras()[::7]:
        prompt = picker.with_tag("a boat", names.prompt_name(file))
        assert names.find(*asked_for(prompt)).path == file.path
        assert picker.with_tag(prompt, names.prompt_name(file)) == "a boat"


def test_a_lora_in_a_folder_is_found_by_its_path(catalog):
    for text in ("a/inside", "b/inside", "a/b/inside", "a/inside.safetensors", "a b/in side"):
        found, = asked_for(f"<lora:{text}:1>")
        assert catalog.find_lora(found).rel.removesuffix(".safetensors") == text.removesuffix(".safetensors")


@pytest.mark.parametrize("name", ["a=b", "te=2", "a=b=c", "ends in a space ", " begins with one"])
def test_a_name_in_a_tag_is_taken_as_it_is(name, catalog):
    request, = read_tags(extract_networks(f"<lora:{name}:0.5:unet=0.25>")[1])
    assert (request.name, request.te, request.unet) == (name, 0.5, 0.25)
    assert catalog.find_lora(request.name).stem == name


def test_what_no_request_could_name_is_not_listed(tmp_path):
    (tmp_path / "Lora").mkdir()
    (tmp_path / "Lora" / "half \udcff.safetensors").write_bytes(b"")
    (tmp_path / "Lora" / "half \udcff").mkdir()
    (tmp_path / "Lora" / "half \udcff" / "a.safetensors").write_bytes(b"")
    assert Catalog(tmp_path).loras() == []


def test_a_style_is_found_by_its_name(tmp_path):
    """What a list of styles can hold: names that begin with "#" are comments of the file."""
    names = [name for name in NAMES if not name.startswith(("#", " ", "\t"))]
    write_styles(tmp_path / "styles.csv", [Style(name, f"prompt {number}") for number, name in enumerate(names)])
    assert [style.name for style in read_styles(tmp_path / "styles.csv")] == names
    database = StyleDatabase(tmp_path / "styles.csv")
    assert [database.apply_styles("", [name]) for name in names] == [f"prompt {number}" for number in range(len(names))]


def test_names_in_other_spellings_of_unicode_are_files_of_their_own(tmp_path):
    (tmp_path / "Lora").mkdir()
    spellings = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for name in spellings:
        (tmp_path / "Lora" / f"{name}.safetensors").write_bytes(b"")
    catalog = Catalog(tmp_path)
    if len(catalog.loras()) == 2:  # some systems keep one spelling only
        assert [catalog.find_lora(name).stem for name in spellings] == spellings


@pytest.fixture
def twins(tmp_path):
    """Files of one relative path in the two folders of LoRAs, in those of checkpoints, and beside the models folder."""
    root = tmp_path / "models"
    for number, path in enumerate(("Lora/style", "LyCORIS/style", "Lora/sub/face", "LyCORIS/sub/face", "LyCORIS/LyCORIS/style", "Lora/LyCORIS/style",
                                   "Stable-diffusion/m", "m", "../elsewhere/m", "VAE/v", "../elsewhere/m.vae", "Stable-diffusion/m.vae", "VAE/m.vae")):
        file = root / f"{path}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"lora_unet_conv_in.alpha": torch.ones(1) * number}, file)
    return Catalog(root, extra=[tmp_path / "elsewhere" / "m.safetensors"])


def test_files_of_one_relative_path_in_two_folders_are_told_apart(twins):
    for files, find, count in ((twins.checkpoints(), twins.find_checkpoint, 3), (twins.loras(), twins.find_lora, 6), (twins.vaes(), twins.find_vae, 3)):
        assert len(files) == count and len({file.rel for file in files}) == count
        for file in files:
            assert find(file.title).path == find(file.rel).path == file.path
    assert [file.rel for file in twins.checkpoints()] == ["m.safetensors", "models/m.safetensors", "elsewhere/m.safetensors"]
    assert twins.find_lora("face").path.parents[1].name == "Lora"  # the first, as before


def test_a_prompt_takes_each_of_two_loras_of_one_relative_path_by_its_listed_name(twins):
    names = LoraNames(twins)
    listed = names.listed()
    assert len({name for _, name, _ in listed}) == len({alias for *_, alias in listed}) == 6
    for file, name, alias in listed:
        for text in (name, alias, names.prompt_name(file)):
            request, = read_tags(extract_networks(f"a cat <lora:{text}:1>")[1])
            assert names.find(request.name).path == file.path


def test_menus_offer_each_of_two_checkpoints_of_one_relative_path(twins):
    models = ModelStore(twins, None, twins.checkpoints()[0])
    for file in twins.checkpoints():
        for text in (file.title, file.rel):
            assert models.find(Options(sd_model_checkpoint=text))[0].path == file.path
    for file in twins.checkpoints():
        twins.sha256(file)
    assert len({file.title for file in twins.checkpoints()}) == 3
    for file in twins.checkpoints():
        assert twins.find_checkpoint(file.title).path == twins.find_checkpoint(file.hash).path == file.path


def test_vaes_of_one_name_are_each_found_by_what_lists_offer(twins):
    for name, file in twins.vae_names():
        assert twins.find_vae(name).path == file.path

"""What lies in a models folder, and which of it a name means."""

import hashlib
import json
import os

import pytest

import torch
from safetensors.torch import save_file
from pipeline.errors import ModelError, UnknownName
from pipeline.models import HASHES, Catalog, index, old_hash
from pipeline.options import Options
from pipeline.pasting import pasted_options


def put(path, content=b"weights"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_folder(path):
    put(path / "model_index.json", b"{}")
    put(path / "unet" / "diffusion_pytorch_model.safetensors", b"of " + path.name.encode())
    return path


@pytest.fixture
def folder(tmp_path):
    """An A1111 models folder."""
    root = tmp_path / "a1111" / "models"
    for rel in ("Stable-diffusion/one.safetensors", "Stable-diffusion/two.safetensors", "Stable-diffusion/xl/base.safetensors",
                "Stable-diffusion/xl/one.vae.safetensors", "Stable-diffusion/old.ckpt", "Stable-diffusion/notes.txt",
                "VAE/fine.safetensors", "VAE/fine.vae.pt", "Lora/style.safetensors", "LyCORIS/people/face.safetensors",
                "../embeddings/bad.safetensors"):
        put(root / rel, rel.encode())
    put_folder(root / "Stable-diffusion" / "folder-v1.5")
    return root


@pytest.fixture
def catalog(folder):
    return Catalog(folder)


def rels(files):
    return [file.rel for file in files]


def hash_of(content):
    return hashlib.sha256(content).hexdigest()


# --- what is there

def test_a1111s_folders_are_listed_without_pickles_and_other_files(catalog):
    assert rels(catalog.checkpoints()) == ["folder-v1.5", "one.safetensors", "two.safetensors", "xl/base.safetensors"]
    assert rels(catalog.vaes()) == ["fine.safetensors", "xl/one.vae.safetensors"]
    assert rels(catalog.loras()) == ["people/face.safetensors", "style.safetensors"]
    assert rels(catalog.embeddings()) == ["bad.safetensors"]


def test_networks_of_another_folder_come_behind_ones_own(folder, tmp_path):
    theirs = tmp_path / "theirs"
    for rel in ("Lora/style.safetensors", "Lora/a-glass.safetensors", "embeddings/tale.safetensors", "VAE/not.safetensors"):
        put(theirs / rel, b"theirs")
    catalog = Catalog(folder, also=[theirs, tmp_path / "no such folder"])
    assert rels(catalog.loras()) == ["people/face.safetensors", "style.safetensors", "a-glass.safetensors", "Lora/style.safetensors"]
    assert rels(catalog.embeddings()) == ["bad.safetensors", "tale.safetensors"]
    assert catalog.find_lora("style").path == folder / "Lora" / "style.safetensors" == catalog.lora_index()["style"].path
    assert catalog.find_lora("a-glass").path.read_bytes() == b"theirs"
    assert "not.safetensors" not in rels(catalog.vaes())


def test_a_decoder_for_previews_is_no_part_of_a_models_hash(catalog):
    model = catalog.find_checkpoint("folder-v1.5")
    before = catalog.sha256(model)
    put(model.path / "vae_approx" / "diffusion_pytorch_model.safetensors")
    assert catalog.sha256(model) == before
    put(model.path / "vae" / "diffusion_pytorch_model.safetensors")
    assert catalog.sha256(model) != before


def test_an_installation_of_a1111_works_as_its_models_folder_does(folder, catalog):
    assert Catalog(folder.parent).checkpoints() == catalog.checkpoints()
    assert rels(Catalog(folder.parent).embeddings()) == ["bad.safetensors"]


def test_a_folder_that_holds_checkpoints_directly_works_too(tmp_path):
    put(tmp_path / "mine.safetensors")
    put_folder(tmp_path / "also-mine")
    put(tmp_path / "deeper" / "not-mine.safetensors")
    put(tmp_path / "Lora" / "style.safetensors")
    assert rels(Catalog(tmp_path).checkpoints()) == ["also-mine", "mine.safetensors"]


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    catalog = Catalog(tmp_path / "none")
    assert catalog.checkpoints() == catalog.vaes() == catalog.loras() == catalog.embeddings() == []


def test_names_are_those_of_a1111(catalog):
    base = catalog.find_checkpoint("xl/base.safetensors")
    assert (base.name, base.stem, base.title, base.hash) == ("xl_base", "base", "xl/base.safetensors", None)
    folder = catalog.find_checkpoint("folder-v1.5")
    assert (folder.name, folder.stem) == ("folder-v1.5", "folder-v1.5")


def test_numbers_are_sorted_as_numbers(tmp_path):
    for number in (10, 9, 1):
        put(tmp_path / f"m{number}.safetensors")
    assert rels(Catalog(tmp_path).checkpoints()) == ["m1.safetensors", "m9.safetensors", "m10.safetensors"]


def test_what_is_put_in_later_is_there_after_a_refresh(folder, catalog):
    put(folder / "Lora" / "new.safetensors")
    assert "new.safetensors" not in rels(catalog.loras())
    catalog.refresh()
    assert "new.safetensors" in rels(catalog.loras())


def test_a_checkpoint_that_lies_elsewhere_stays_listed(folder, catalog, tmp_path):
    added = catalog.add(put(tmp_path / "elsewhere" / "extra.safetensors"))
    assert added.rel == "extra.safetensors" and catalog.add(added.path) == added
    catalog.refresh()
    assert catalog.find_checkpoint("extra") == added and rels(catalog.checkpoints()).count("extra.safetensors") == 1


def test_a_checkpoint_of_the_folder_is_not_listed_twice(folder, catalog):
    before = catalog.checkpoints()
    assert catalog.add(folder / "Stable-diffusion" / "xl" / "base.safetensors").rel == "xl/base.safetensors"
    assert catalog.checkpoints() == before


def test_a_scan_reads_no_file(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a file is read")

    monkeypatch.setattr("pipeline.models.digest", refuse)
    monkeypatch.setattr("pipeline.models.old_hash", refuse)
    assert Catalog(folder).find_checkpoint("one").hash is None


# --- links

def test_links_to_files_and_folders_elsewhere_are_followed(folder, tmp_path):
    put(tmp_path / "disk" / "big.safetensors")
    (folder / "Stable-diffusion" / "disk").symlink_to(tmp_path / "disk")
    (folder / "Stable-diffusion" / "alias.safetensors").symlink_to(tmp_path / "disk" / "big.safetensors")
    assert {"disk/big.safetensors", "alias.safetensors"} <= set(rels(Catalog(folder).checkpoints()))


def test_links_in_a_circle_and_links_to_nothing_do_no_harm(folder, catalog):
    (folder / "Stable-diffusion" / "xl" / "again").symlink_to(folder / "Stable-diffusion")
    (folder / "Stable-diffusion" / "gone.safetensors").symlink_to(folder / "nowhere.safetensors")
    assert Catalog(folder).checkpoints() == catalog.checkpoints()


@pytest.mark.parametrize("text", [
    "../Lora/style.safetensors", "../../secret.safetensors", "xl/../one.safetensors", "/etc/passwd", "..", ".", "", "xl", "xl/",
    "one.safetensors\0", "[", "a" * 100_000,
])
def test_a_name_is_never_a_path(folder, catalog, text):
    put(folder.parent / "secret.safetensors")
    for find in (catalog.find_checkpoint, catalog.find_lora, catalog.find_vae):
        with pytest.raises(UnknownName):
            find(text)


# --- which one is meant

@pytest.mark.parametrize("text", [
    "xl/base.safetensors", "xl\\base.safetensors", "base.safetensors", "base", "xl_base", " base ",
    "{title}", "{sha256}", "{hash}", "xl/base.safetensors [{hash}]", "base [{hash}]", "base [{sha256}]", "{old}",
    "base [{old}]", "{path}",
])
def test_a_checkpoint_is_found_by_everything_that_a1111_accepts(catalog, text):
    catalog.sha256(catalog.find_checkpoint("base"))
    file = catalog.find_checkpoint("base")
    spelled = text.format(title=file.title, sha256=file.sha256, hash=file.hash, old=old_hash(file.path),
                          path=file.path)
    if text == "{old}":  # what lies before 1 MiB does not count, so all the small files share theirs
        assert old_hash(file.path) == hash_of(b"")[:8]
        (catalog.root / "Stable-diffusion" / "xl" / "base.safetensors").write_bytes(bytes(0x100000) + b"tail")
        spelled = hash_of(b"tail")[:8]
    assert catalog.find_checkpoint(spelled).rel == "xl/base.safetensors"


def test_the_exact_path_comes_before_a_file_of_that_name_elsewhere(folder):
    put(folder / "Stable-diffusion" / "a" / "one.safetensors")
    catalog = Catalog(folder)
    assert rels(catalog.checkpoints())[0] == "a/one.safetensors"
    assert catalog.find_checkpoint("one.safetensors").rel == "one.safetensors"
    assert catalog.find_checkpoint("a_one").rel == "a/one.safetensors"


def test_a_title_from_elsewhere_is_taken_on_trust_until_the_hash_is_known(catalog):
    title = "one.safetensors [0123456789]"
    assert catalog.find_checkpoint(title).rel == "one.safetensors"
    catalog.sha256(catalog.find_checkpoint("one"))
    with pytest.raises(UnknownName):
        catalog.find_checkpoint(title)


def test_an_unknown_checkpoint_is_told_with_names_that_are_there(catalog):
    with pytest.raises(UnknownName, match='sd_model_checkpoint: no checkpoint called "on.safetensors"; did you mean "one.safe'):
        catalog.find_checkpoint("on.safetensors")
    with pytest.raises(UnknownName, match="valid: folder-v1.5, one.safetensors, two.safetensors, xl/base.safetensors$"):
        catalog.find_checkpoint("zzzz")


@pytest.mark.parametrize("text", ["bas", "saf", "base [ffffffffff]"])
def test_half_a_name_is_not_another_model(catalog, text):
    catalog.sha256(catalog.find_checkpoint("base"))
    with pytest.raises(UnknownName):
        catalog.find_checkpoint(text)


@pytest.mark.parametrize("find, text", [
    ("find_checkpoint", "old"), ("find_checkpoint", "old.ckpt"), ("find_vae", "fine.vae.pt"),
])
def test_a_pickle_asked_for_by_name_is_refused_with_the_way_to_convert_it(catalog, find, text):
    with pytest.raises(ModelError, match=r'is a pickle.*python -m tools\.convert .*(old\.ckpt|fine\.vae\.pt)"?$'):
        getattr(catalog, find)(text)


def test_pickles_are_listed_apart(catalog):
    assert rels(catalog.pickles("checkpoint")) == ["old.ckpt"] and rels(catalog.pickles("LoRA")) == []


@pytest.mark.parametrize("text", ["fine.safetensors", "fine"])
def test_a_vae_is_found_by_its_file_name(catalog, text):
    assert catalog.find_vae(text).rel == "fine.safetensors"


@pytest.mark.parametrize("checkpoint, vae", [("one", "xl/one.vae.safetensors"), ("two", None), ("base", None)])
def test_automatic_is_the_vae_whose_name_begins_with_the_checkpoints(catalog, checkpoint, vae):
    beside = catalog.vae_beside(catalog.find_checkpoint(checkpoint))
    assert (beside and beside.rel) == vae


def test_automatic_takes_the_first_of_several_as_a1111_does(folder):
    put(folder / "VAE" / "one-2.vae.safetensors")
    catalog = Catalog(folder)
    assert catalog.vae_beside(catalog.find_checkpoint("one")).rel == "one-2.vae.safetensors"


# --- hashes

def test_a_hash_is_computed_once_and_is_in_the_title_from_then_on(folder, catalog):
    content = (folder / "Stable-diffusion" / "one.safetensors").read_bytes()
    shares = []
    assert catalog.sha256(catalog.find_checkpoint("one"), shares.append) == hash_of(content) and shares == [1.0]
    assert catalog.find_checkpoint("one").title == f"one.safetensors [{hash_of(content)[:10]}]"
    assert catalog.sha256(catalog.find_checkpoint("one"), shares.append) and shares == [1.0]
    assert Catalog(folder).find_checkpoint("one").sha256 == hash_of(content)


def test_the_hash_of_a_folder_is_over_its_weights_in_the_order_of_their_names(tmp_path):
    folder = put_folder(tmp_path / "model")
    put(folder / "vae" / "diffusion_pytorch_model.safetensors", b"of the vae")
    catalog = Catalog(tmp_path)
    assert catalog.sha256(catalog.find_checkpoint("model")) == hash_of(b"of model" + b"of the vae")


def test_a_changed_file_is_hashed_anew(folder, catalog):
    path = folder / "Stable-diffusion" / "one.safetensors"
    before = catalog.sha256(catalog.find_checkpoint("one"))
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert catalog.find_checkpoint("one").sha256 is None
    assert catalog.sha256(catalog.find_checkpoint("one")) == hash_of(b"other") != before


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', '{"a": [1, 2, "short"]}', '{"a": ["x", 2, null]}', "\x00"])
def test_a_damaged_hash_file_is_as_good_as_none(folder, damage):
    put(folder / HASHES, damage.encode())
    catalog = Catalog(folder)
    assert catalog.sha256(catalog.find_checkpoint("one"))
    assert len(json.loads((folder / HASHES).read_text())) == 1


def test_hashes_are_remembered_in_memory_where_nothing_can_be_written(folder, tmp_path):
    catalog = Catalog(folder, cache=put(tmp_path / "file") / "hashes.json")
    catalog.sha256(catalog.find_checkpoint("one"))
    assert catalog.find_checkpoint("one").hash is not None


def test_writing_hashes_leaves_no_draft(folder, catalog):
    catalog.sha256(catalog.find_checkpoint("one"))
    assert [path.name for path in folder.iterdir() if path.is_file()] == [HASHES]


def test_a_file_that_is_gone_is_one_sentence(folder, catalog):
    file = catalog.find_checkpoint("one")
    file.path.unlink()
    with pytest.raises(ModelError, match='"one.safetensors" cannot be read: No such file'):
        catalog.sha256(file)


def test_the_files_are_gone_through_once_for_all_names_until_they_change(folder, monkeypatch):
    catalog, gone = Catalog(folder), []
    monkeypatch.setattr("pipeline.models.index", lambda files: gone.append(len(files)) or index(files))
    for _ in range(3):
        assert catalog.find_lora("style").rel == "style.safetensors" and catalog.find_lora("people/face").stem == "face"
    assert len(gone) == 1
    put(folder / "Lora" / "new.safetensors", b"new")
    catalog.refresh()
    assert catalog.find_lora("new").rel == "new.safetensors" and len(gone) == 2
    added = catalog.add(put(folder.parent / "elsewhere.safetensors", b"elsewhere"))
    assert catalog.find_checkpoint("elsewhere").path == added.path
    catalog.sha256(added)
    assert catalog.find_checkpoint("elsewhere").sha256 == hashlib.sha256(b"elsewhere").hexdigest()


def test_control_networks_are_listed_from_both_folders_and_found_by_name_hash_or_part(folder):
    file = put(folder / "ControlNet" / "control_v11p_sd15_canny.safetensors", b"." * (0x100000 + 0x10000))
    put(folder / "ControlNet" / "xl" / "config.json", b"{}")
    put(folder / "ControlNet" / "old.pth")
    put(folder.parent / "extensions" / "sd-webui-controlnet" / "models" / "openpose.safetensors")
    catalog = Catalog(folder.parent)
    title = f"control_v11p_sd15_canny [{old_hash(file)}]"
    assert [name.partition(" [")[0] for name, _ in catalog.control_network_names()] == ["control_v11p_sd15_canny", "openpose", "xl"]
    for name in (title, "control_v11p_sd15_canny", "Canny", "control_v11p_sd15_canny.safetensors"):
        assert catalog.find_control_network(name).path == file
    assert rels(catalog.checkpoints()) == rels(Catalog(folder).checkpoints()) and not any("ControlNet" in file.rel for file in catalog.checkpoints())
    with pytest.raises(UnknownName, match='alwayson_scripts: no ControlNet called "depth"'):
        catalog.find_control_network("depth")
    with pytest.raises(ModelError, match="is a pickle"):
        catalog.find_control_network("old.pth")


def test_forges_list_of_modules_pastes_as_the_files_it_names(tmp_path):
    for rel in ("VAE/ae", "text_encoder/clip_l", "text_encoder/deep/t5"):
        path = tmp_path / f"{rel}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": torch.zeros(1)}, path)
    catalog, current = Catalog(tmp_path), vars(Options())
    said = {"Module 1": "t5", "Module 2": "ae", "Module 3": "clip_l", "Module 4": "gone"}
    assert pasted_options(said, current, catalog.find_files) == (
        {"sd_vae": "ae", "sd_text_encoders": "t5, clip_l"}, ["The module gone was not found; the current one stays."])
    assert catalog.modules(["a/b/t5.safetensors", "clip_l"]) == {"sd_vae": "Automatic", "sd_text_encoders": "deep/t5.safetensors, clip_l.safetensors"}
    assert [file.stem for file in catalog.find_text_encoders("t5, clip_l")] == ["t5", "clip_l"]

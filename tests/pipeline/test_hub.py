"""Models of the Hub: what is downloaded of them, and what is said where they cannot be."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from huggingface_hub.errors import (DryRunError, GatedRepoError, HfHubHTTPError, IncompleteSnapshotError,
                                    LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError)

from pipeline.errors import ModelError
from pipeline.hub import HUB_ID, download, wanted

FILES = ["README.md", "model_index.json", "v1-5.safetensors", "v1-5.ckpt", "unet/config.json", "tokenizer/merges.txt",
         "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
         "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin", "vae/config.json",
         "vae/diffusion_pytorch_model.safetensors", "safety_checker/model.safetensors", "text_encoder/model.fp16.safetensors",
         "text_encoder_2/model-00001-of-00002.safetensors", "text_encoder_2/model-00002-of-00002.safetensors",
         "text_encoder_2/model.safetensors.index.json", "text_encoder_2/openvino_model.bin"]
WANTED = ["model_index.json", "unet/config.json", "tokenizer/merges.txt", "vae/config.json",
          "text_encoder_2/model.safetensors.index.json", "unet/diffusion_pytorch_model.fp16.safetensors",
          "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.fp16.safetensors",
          "text_encoder_2/model-00001-of-00002.safetensors", "text_encoder_2/model-00002-of-00002.safetensors"]


class Hub:
    """Stands for snapshot_download."""

    def __init__(self, files=FILES, unreachable=None, local="never downloaded"):
        self.files, self.unreachable, self.local, self.asked = files, unreachable, local, []

    def __call__(self, hub_id, *, dry_run=False, local_files_only=False, allow_patterns=None, tqdm_class=None):
        if dry_run and self.unreachable is not None:
            raise DryRunError("no dry run") from self.unreachable
        if dry_run:
            return [SimpleNamespace(filename=name) for name in self.files]
        if local_files_only:
            if isinstance(self.local, Exception):
                raise self.local
            return self.local
        self.asked.append((allow_patterns, tqdm_class))
        return f"/cache/{hub_id}"


def http_error(kind):
    return kind("refused", response=Mock(headers={}, status_code=401))


@pytest.mark.parametrize("text, is_one", [("owner/stable-diffusion-v1-5", True), ("a/b", True), ("a_b/c.d", True),
                                          ("name", False),
                                          ("a/b/c", False), ("../b", False), ("a/..", False), ("a/b.safetensors [12]", False),
                                          ("/b", False), ("C:\\a/b", False)])
def test_a_hub_id_has_an_owner_and_a_name(text, is_one):
    assert bool(HUB_ID.fullmatch(text)) is is_one


def test_only_what_a_model_is_loaded_from_is_downloaded_and_in_float16_where_there_is_such():
    assert wanted("a/b", FILES) == WANTED


def test_a_download_shows_its_progress_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    hub = Hub()
    assert str(download("a/b", hub)) == "/cache/a/b"
    (patterns, bar), = hub.asked
    assert patterns == WANTED and not bar(range(2)).disable


def test_a_repository_in_another_layout_is_refused_before_anything_is_downloaded():
    hub = Hub(files=["model.safetensors"])
    with pytest.raises(ModelError, match='"a/b" on the Hub is not in diffusers layout: it has no model_index.json'):
        download("a/b", hub)
    assert hub.asked == []


@pytest.mark.parametrize("unreachable", [OfflineModeIsEnabled("offline mode is enabled"), ConnectionError("no route"),
                                         http_error(RepositoryNotFoundError)])
def test_without_the_hub_what_was_downloaded_is_used(unreachable):
    hub = Hub(unreachable=unreachable, local="/cache/earlier")
    assert str(download("a/b", hub)) == "/cache/earlier" and hub.asked == []
    hub.local = IncompleteSnapshotError("the .bin files are missing", snapshot_path="/cache/our-part")
    assert str(download("a/b", hub)) == "/cache/our-part"


@pytest.mark.parametrize("unreachable, sentence", [
    (OfflineModeIsEnabled("offline"), '"a/b" has not been downloaded yet, and the Hub cannot be reached now'),
    (ConnectionError("no route"), '"a/b" has not been downloaded yet, and the Hub cannot be reached now'),
    (http_error(RepositoryNotFoundError), 'model "a/b" does not exist on the Hub, or it is private$'),
    (http_error(GatedRepoError), '"a/b" is available only to those who accept its terms'),
])
def test_what_hinders_a_download_is_one_sentence(unreachable, sentence):
    with pytest.raises(ModelError, match=sentence):
        download("a/b", Hub(unreachable=unreachable, local=LocalEntryNotFoundError("not here")))


@pytest.mark.parametrize("error", [OSError("No space left on device\nand more"), http_error(HfHubHTTPError)])
def test_a_download_that_breaks_off_is_one_sentence(error):
    def fetch(hub_id, **kwargs):
        raise error

    with pytest.raises(ModelError, match='"a/b" cannot be downloaded: (No space left on device|refused)$'):
        download("a/b", fetch)

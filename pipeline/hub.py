"""Models of the Hugging Face Hub by id, downloaded once into the Hub's own cache."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pipeline.errors import ModelError

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
"""owner/name"""
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""The subfolders whose weights are used."""
DEFAULT_VARIANT = re.compile(r"\w+(-\d+-of-\d+)?\.safetensors")
"""Weights without a variant; sharded ones are numbered."""
TEXTS = (".json", ".txt")


def download(hub_id: str, fetch: Callable[..., object] | None = None) -> Path:
    """The folder of a Hub model. Missing files are downloaded, with a progress bar.

    Offline (or with HF_HUB_OFFLINE), files already downloaded are used. Raises ModelError with one sentence.
    fetch: huggingface_hub.snapshot_download, or a stand-in.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (DryRunError, GatedRepoError, HTTPError, LocalEntryNotFoundError,
                                        RepositoryNotFoundError)
    from tqdm.auto import tqdm

    fetch = fetch or snapshot_download
    try:
        try:
            names = [file.filename for file in fetch(hub_id, dry_run=True)]
        except DryRunError as error:
            return downloaded(hub_id, fetch, error.__cause__)
        return Path(fetch(hub_id, allow_patterns=wanted(hub_id, names), tqdm_class=tqdm))
    except GatedRepoError as error:
        raise ModelError(f'"{hub_id}" is available only to those who accept its terms; accept them on its Hub page '
                         "and log in with: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f'model "{hub_id}" does not exist on the Hub, or it is private') from error
    except LocalEntryNotFoundError as error:
        raise ModelError(f'"{hub_id}" has not been downloaded yet, and the Hub cannot be reached now; it is needed once, '
                         "without HF_HUB_OFFLINE") from error
    except (OSError, HTTPError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f'"{hub_id}" cannot be downloaded: {reason}') from error


def downloaded(hub_id: str, fetch: Callable[..., object], reason: BaseException | None) -> Path:
    """The folder of a model downloaded earlier. Otherwise raises `reason` if that says more."""
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(fetch(hub_id, local_files_only=True))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)  # incomplete on purpose: only a part of the repository was wanted
    except LocalEntryNotFoundError:
        if isinstance(reason, RepositoryNotFoundError):
            raise reason
        raise


def wanted(hub_id: str, names: Iterable[str]) -> list[str]:
    """The repository's files that a model is loaded from, in float16 if available. Raises ModelError."""
    names = list(names)
    if "model_index.json" not in names:
        raise ModelError(f'"{hub_id}" on the Hub is not in diffusers layout: it has no model_index.json')
    keep = [name for name in names if name.endswith(TEXTS)]
    for part in PARTS:
        weights = [name for name in names if name.endswith(".safetensors") and str(PurePosixPath(name).parent) == part]
        default = [name for name in weights if DEFAULT_VARIANT.fullmatch(PurePosixPath(name).name)]
        keep += [name for name in weights if "fp16" in PurePosixPath(name).name] or default
    return keep

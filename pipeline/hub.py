"""Models of the Hugging Face Hub by their id, downloaded once into the Hub's own cache."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pipeline.errors import ModelError

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
"""owner/name"""
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""The folders whose weights are used."""
PLAIN = re.compile(r"\w+(-\d+-of-\d+)?\.safetensors")
"""Weights as they are loaded unless another variant is asked for; sharded ones have numbers."""
TEXTS = (".json", ".txt")


def download(hub_id: str, fetch: Callable[..., object] | None = None) -> Path:
    """The folder of a model of the Hub. What is not there yet is downloaded, with a progress bar.

    Without a connection, or with HF_HUB_OFFLINE, what is there must do. Raises ModelError with one sentence.
    fetch: huggingface_hub.snapshot_download, or what stands for it.
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
        raise ModelError(f'there is no model "{hub_id}" on the Hub, or it is private') from error
    except LocalEntryNotFoundError as error:
        raise ModelError(f'"{hub_id}" has not been downloaded yet, and the Hub cannot be reached now; it is needed once, '
                         "without HF_HUB_OFFLINE") from error
    except (OSError, HTTPError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f'"{hub_id}" cannot be downloaded: {reason}') from error


def downloaded(hub_id: str, fetch: Callable[..., object], reason: BaseException | None) -> Path:
    """The folder of a model that was downloaded earlier. Raises what hindered the Hub where that tells more."""
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(fetch(hub_id, local_files_only=True))
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)  # of what the repository holds only a part was wanted
    except LocalEntryNotFoundError:
        if isinstance(reason, RepositoryNotFoundError):
            raise reason
        raise


def wanted(hub_id: str, names: Iterable[str]) -> list[str]:
    """Of a repository's files those that a model is loaded from: in float16 where it has them so. Raises ModelError."""
    names = list(names)
    if "model_index.json" not in names:
        raise ModelError(f'"{hub_id}" on the Hub is not in diffusers layout: it has no model_index.json')
    keep = [name for name in names if name.endswith(TEXTS)]
    for part in PARTS:
        weights = [name for name in names if name.endswith(".safetensors") and str(PurePosixPath(name).parent) == part]
        plain = [name for name in weights if PLAIN.fullmatch(PurePosixPath(name).name)]
        keep += [name for name in weights if "fp16" in PurePosixPath(name).name] or plain
    return keep

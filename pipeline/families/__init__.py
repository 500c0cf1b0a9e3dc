"""Checkpoint in, `Family` out. A new family is one file beside this one and one row in FAMILIES."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from pipeline.errors import Cancelled, Interrupted, ModelError, PalimpsestError
from pipeline.families import placement, sd, sdxl, tiny
from pipeline.families.base import Family, ModelInfo, Placement
from pipeline.families.checkpoint import Checkpoint, Progress, build_modules, read_folder
from pipeline.families.original import read_file, read_vae
from pipeline.small_files import reason
from pipeline.weights import PREVIEW_DECODER


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognised and loaded."""

    facts: sd.Facts
    matches: Callable[[Checkpoint], bool]
    load: Callable[[sd.Facts, Checkpoint, ModelInfo, Placement, Progress], Family]


FAMILIES = {row.facts.name: row for row in (
    FamilyRow(sd.SD1, sd.is_sd1, sd.load),
    FamilyRow(sd.SD2, sd.is_sd2, sd.load),
    FamilyRow(sdxl.BASE, sdxl.is_base, sdxl.load),
    FamilyRow(sdxl.REFINER, sdxl.is_refiner, sdxl.load),
)}


def describe(path: Path | str) -> ModelInfo:
    """What is known of a checkpoint from its headers, without loading it or computing its hash. Raises ModelError.

    path: a diffusers folder, or a .safetensors file in the original layout.
    """
    with one_sentence(path):
        checkpoint = read_checkpoint(Path(path))
        facts = find_row(checkpoint).facts
        sizes = {name: part.size for name, part in checkpoint.parts.items()}
        edit_model = checkpoint.config("unet").get("in_channels") == sd.EDIT
    return ModelInfo(name=display_name(checkpoint.path), path=str(path), family=facts.name, sizes=sizes, edit_model=edit_model,
                     native_size=checkpoint.extra.get("native_size", facts.native_size),
                     own_latents="latent_rgb_factors" in checkpoint.extra)


def load(path: Path | str, place: Placement, info: ModelInfo | None = None, *, vae: Path | None = None,
         progress: Progress = lambda share: None) -> Family:
    """The checkpoint in a diffusers folder or a .safetensors file. Raises ModelError with one sentence where it cannot be.

    info: what describe() has said of it, where somebody has asked already. vae: a VAE to use in place of its own.
    """
    info = info or describe(path)
    with one_sentence(path):
        checkpoint = read_checkpoint(Path(path), vae)
        row = find_row(checkpoint)
        return row.load(row.facts, checkpoint, info, place, progress)


def change_vae(family: Family, path: Path | str, info: ModelInfo, vae: Path | None) -> None:
    """Give the loaded checkpoint of `path` another VAE, or its own again. Raises ModelError, and all is as before then."""
    with one_sentence(path):
        checkpoint = read_checkpoint(Path(path), vae)
        sd.check_supported(find_row(checkpoint).facts, checkpoint)
        only_vae = replace(checkpoint, parts={"vae": checkpoint.parts["vae"]})
        family.take_vae(build_modules(only_vae, family.placement)["vae"], info)


def tiny_decoder(folder: Path, info: ModelInfo, place: Placement) -> tiny.TinyDecoder | None:
    """The small decoder for a model's previews, its weights unread; None where there is no such thing.

    It lies in the model's own folder, or for all of a family in a folder like A1111's VAE-approx.
    """
    path = Path(info.path) / PREVIEW_DECODER
    if not (path / "config.json").is_file() and not info.own_latents and info.family in FAMILIES:
        path = folder / (FAMILIES[info.family].facts.latent_format.tiny or PREVIEW_DECODER)

    def read() -> nn.Module:
        with one_sentence(path):
            return tiny.read(path, place)

    return tiny.TinyDecoder(place, read) if (path / "config.json").is_file() else None


@contextmanager
def one_sentence(path: Path | str) -> Iterator[None]:
    """Whatever a file's content makes the readers of tensors and configs raise, as a ModelError."""
    try:
        yield
    except (PalimpsestError, Interrupted, Cancelled):
        raise
    except Exception as error:  # diffusers, transformers and tokenizers raise whatever they like, even Exception itself
        raise ModelError(f'model "{Path(path).name}" cannot be loaded: {reason(error)}') from error


def read_checkpoint(path: Path, vae: Path | None = None) -> Checkpoint:
    """What a file or folder holds, its weights unread; with the VAE of another file if asked. Raises ModelError."""
    checkpoint = read_file(path) if path.is_file() else read_folder(path)
    return checkpoint if vae is None else replace(checkpoint, parts=checkpoint.parts | {"vae": read_vae(vae)})


def find_row(checkpoint: Checkpoint) -> FamilyRow:
    """The family that a checkpoint belongs to. Raises ModelError."""
    for row in FAMILIES.values():
        if row.matches(checkpoint):
            return row
    raise ModelError(f'"{checkpoint.path.name}" is of no family that is known; valid: {", ".join(FAMILIES)}')


def display_name(path: Path) -> str:
    """The folder's name, or the file's without its extension."""
    return path.resolve().name if path.is_dir() else path.stem


__all__ = ["FAMILIES", "FamilyRow", "change_vae", "describe", "load", "placement", "tiny_decoder"]

"""From a checkpoint to a `Family`. A new family is one file beside this one and one row in FAMILIES."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from pipeline.errors import Cancelled, Interrupted, ModelError, PalimpsestError
from pipeline.families import flux1, flux2, original, placement, qwen_image, refusals, sd, sdxl, tiny, z_image
from pipeline.families.base import Facts, Family, ModelInfo, Sees
from pipeline.families.checkpoint import Checkpoint, Layout, LoadingCallback, build_modules, pipeline_class
from pipeline.families.latents import LatentFormat
from pipeline.families.placement import Placement, is_text_encoder
from pipeline.small_files import reason
from pipeline.weights import PREVIEW_DECODER, Weights


@dataclass(frozen=True)
class FamilyRow:
    """How a family is recognised and loaded."""

    facts: Facts
    layout: Layout
    matches: Callable[[Checkpoint], bool]
    """Whether the layout's checkpoint belongs to this family."""
    check: Callable[[Facts, Checkpoint], None]
    """Raises ModelError for an incomplete checkpoint, or one that computes differently from its family."""
    sees: Callable[[Checkpoint], Sees]
    load: Callable[[Facts, Checkpoint, ModelInfo, Placement, LoadingCallback], Family]
    """Raises ModelError."""


def any_of_it(checkpoint: Checkpoint) -> bool:
    """For the only family of its layout."""
    return True


def sees_nothing(checkpoint: Checkpoint) -> Sees:
    return "nothing"


STABLE_DIFFUSION = {"layout": original.LAYOUT, "check": sd.check_supported, "sees": sd.what_it_sees}
FLUX1 = {"layout": flux1.LAYOUT, "check": flux1.check, "sees": flux1.what_it_sees, "load": flux1.load}
FAMILIES = {row.facts.name: row for row in (
    FamilyRow(sd.SD1, matches=sd.is_sd1, load=sd.load, **STABLE_DIFFUSION),
    FamilyRow(sd.SD2, matches=sd.is_sd2, load=sd.load, **STABLE_DIFFUSION),
    FamilyRow(sdxl.BASE, matches=sdxl.is_base, load=sdxl.load, **STABLE_DIFFUSION),
    FamilyRow(sdxl.REFINER, matches=sdxl.is_refiner, load=sdxl.load, **STABLE_DIFFUSION),
    FamilyRow(flux2.KLEIN, flux2.LAYOUT, matches=any_of_it, check=flux2.check, sees=flux2.sees, load=flux2.load),
    FamilyRow(flux1.FILLING, matches=flux1.is_fill, **FLUX1),
    FamilyRow(flux1.KONTEXT, matches=flux1.is_kontext, **FLUX1),
    FamilyRow(flux1.SCHNELL, matches=flux1.is_schnell, **FLUX1),
    FamilyRow(flux1.DEV, matches=any_of_it, **FLUX1),
    FamilyRow(qwen_image.QWEN_IMAGE, qwen_image.LAYOUT, matches=any_of_it, check=qwen_image.check, sees=qwen_image.sees, load=qwen_image.load),
    FamilyRow(z_image.Z_IMAGE, z_image.LAYOUT, matches=any_of_it, check=z_image.check, sees=sees_nothing, load=z_image.load),
)}


@dataclass(frozen=True)
class Components:
    """What a checkpoint does not hold: files of their own for its parts, and what its tensors do not show."""

    vae: Path | None = None
    text_encoders: tuple[Path, ...] = ()
    edits: bool | None = None
    """Whether the model edits by instruction, where its tensors do not show that; None: as its file says."""


def describe(path: Path | str, components: Components = Components()) -> ModelInfo:
    """Facts about a checkpoint from its headers, without loading or hashing it. Raises ModelError.

    path: a diffusers folder, or a .safetensors file in the original layout.
    """
    with one_sentence(path):
        row, checkpoint = read_checkpoint(Path(path), components)
        sizes = {name: part.size(row.facts.parts[name].packs) for name, part in checkpoint.parts.items()}
    return ModelInfo(name=display_name(checkpoint.path), path=str(path), family=row.facts.name, sizes=sizes,
                     sees_source=row.sees(checkpoint) == "source",
                     references=0 if row.facts.may_edit and row.sees(checkpoint) != "reference" else row.facts.references, may_edit=row.facts.may_edit, native_size=checkpoint.extra.get("native_size", row.facts.native_size),
                     own_latents="latent_rgb_factors" in checkpoint.extra)


def load(path: Path | str, place: Placement, info: ModelInfo | None = None, *, components: Components = Components(),
         progress: LoadingCallback = lambda share: None) -> Family:
    """Load a checkpoint from a diffusers folder or .safetensors file. Raises ModelError with one sentence.

    info: the result of describe(), if known. components: files to use instead of the checkpoint's own parts.
    """
    info = info or describe(path, components)
    with one_sentence(path):
        row, checkpoint = read_checkpoint(Path(path), components)
        check_complete(row.facts, checkpoint)
        row.check(row.facts, checkpoint)
        return row.load(row.facts, checkpoint, info, place, progress)


def change_vae(family: Family, path: Path | str, info: ModelInfo, components: Components) -> None:
    """Give the loaded checkpoint of `path` another VAE, or its own again. Raises ModelError, and then changes nothing."""
    with one_sentence(path):
        row, checkpoint = read_checkpoint(Path(path), components)
        check_complete(row.facts, checkpoint)
        row.check(row.facts, checkpoint)
        only_vae = replace(checkpoint, parts={"vae": checkpoint.parts["vae"]})
        family.take_vae(build_modules(only_vae, row.facts.parts, family.placement)["vae"], info)


def tiny_decoder(folder: Path, info: ModelInfo, place: Placement) -> tiny.TinyDecoder | None:
    """The small decoder for a model's previews, its weights not read yet; None if there is none.

    It is in the model's own folder, or, shared by the family, in a folder like A1111's VAE-approx: a diffusers folder, or
    a file such as taesd_decoder.safetensors.
    """
    name = shared_latents(info).tiny
    for path in (Path(info.path) / PREVIEW_DECODER, *([folder / name] if name else [])):
        if (path / "config.json").is_file():
            return lazily(tiny.read, path, place)
    file = folder / f"{name}_decoder.safetensors"
    return lazily(tiny.read_file, file, place) if name and file.is_file() else None


def approx_decoder(folder: Path, info: ModelInfo, place: Placement) -> tiny.TinyDecoder | None:
    """A1111's Approx NN for a model's family from such a folder, its weights not read yet; None if there is none."""
    name = shared_latents(info).approx
    file = folder / f"{name}.safetensors"
    return lazily(tiny.read_approx, file, place) if name and file.is_file() else None


def shared_latents(info: ModelInfo) -> LatentFormat:
    """The latent format that a model shares with its family; an empty one if its latents are its own."""
    return LatentFormat() if info.own_latents or info.family not in FAMILIES else FAMILIES[info.family].facts.latent_format


def lazily(read: Callable[[Path, Placement], nn.Module], path: Path, place: Placement) -> tiny.TinyDecoder:
    def load() -> nn.Module:
        with one_sentence(path):
            return read(path, place)

    return tiny.TinyDecoder(place, load)


@contextmanager
def one_sentence(path: Path | str) -> Iterator[None]:
    """Turns whatever a file's content makes the readers raise into ModelError."""
    try:
        yield
    except (PalimpsestError, Interrupted, Cancelled):
        raise
    except Exception as error:  # diffusers, transformers and tokenizers raise anything, even Exception itself
        raise ModelError(f'model "{Path(path).name}" cannot be loaded: {reason(error)}') from error


def read_checkpoint(path: Path, components: Components = Components()) -> tuple[FamilyRow, Checkpoint]:
    """The family of a file or folder, and its checkpoint without weights. Raises ModelError."""
    layout, checkpoint = read_single(Weights(path)) if path.is_file() else read_diffusers(path)
    if components.edits is not None:
        checkpoint = replace(checkpoint, edits=components.edits)
    row, parts = find_row(layout, checkpoint), dict(checkpoint.parts)
    for file in components.text_encoders:
        if layout.read_text_encoder is None:
            raise ModelError(f'"{path.name}" takes no separate text encoder, got "{file.name}"')
        try:
            parts |= layout.read_text_encoder(file)
        except ModelError as error:
            needs = " and ".join(part.called for name, part in row.facts.separate.items() if is_text_encoder(name))
            raise refusals.wrong_text_encoder(file, path, row.facts.name, needs, error) from None
    if components.vae is not None:
        parts["vae"] = layout.read_vae(components.vae)
    return row, replace(checkpoint, parts=parts)


def completed(path: Path, chosen: Components, vaes: list[Path], text_encoders: list[Path]) -> Components:
    """`chosen`, and for each part that the checkpoint still lacks the first of the files that fits it. Raises ModelError."""
    with one_sentence(path):
        row, checkpoint = read_checkpoint(path, chosen)
        for name, part in row.facts.separate.items():
            if name in checkpoint.parts:
                continue
            for file in vaes if name == "vae" else text_encoders:
                with suppress(ModelError):
                    read = {"vae": row.layout.read_vae(file)} if name == "vae" else row.layout.read_text_encoder(file)
                    if name in read and part.suits(checkpoint, read[name]):
                        chosen = replace(chosen, vae=file) if name == "vae" else replace(chosen, text_encoders=(*chosen.text_encoders, file))
                        break
    return chosen


def check_complete(facts: Facts, checkpoint: Checkpoint) -> None:
    """Raise ModelError if a part that may be a file of its own is missing, or is another model's."""
    name = checkpoint.path.name
    missing = [part for part in facts.separate if part not in checkpoint.parts]
    if missing:
        wanted = " and ".join(f"{facts.separate[part].called} in {facts.separate[part].folder}" for part in missing)
        raise ModelError(f'"{name}" is not a complete model: it needs {wanted} too')
    for part, kind in facts.separate.items():
        if not kind.suits(checkpoint, checkpoint.parts[part]):
            raise ModelError(f'"{name}" cannot be used with this {part.replace("_", " ")}: it needs {kind.called}')


def read_single(weights: Weights) -> tuple[Layout, Checkpoint]:
    """The contents of a file, by the first layout that knows its tensors' names. Raises ModelError."""
    for layout in layouts():
        if (checkpoint := layout.read_file(weights)) is not None:
            return layout, checkpoint
    raise refusals.not_a_checkpoint(weights)


def read_diffusers(folder: Path) -> tuple[Layout, Checkpoint]:
    """The contents of a folder, by the layout of its pipeline class. Raises ModelError."""
    pipeline = pipeline_class(folder)
    for layout in layouts():
        if pipeline.startswith(layout.pipelines):
            return layout, layout.read_folder(folder)
    raise refusals.unknown_pipeline(folder, pipeline)


def layouts() -> list[Layout]:
    return list(dict.fromkeys(row.layout for row in FAMILIES.values()))


def find_row(layout: Layout, checkpoint: Checkpoint) -> FamilyRow:
    """The first family that the checkpoint belongs to. Raises ModelError."""
    for row in FAMILIES.values():
        if row.layout == layout and row.matches(checkpoint):
            return row
    raise ModelError(f'"{checkpoint.path.name}" belongs to no known model family; valid: {", ".join(FAMILIES)}')


def display_name(path: Path) -> str:
    """The folder's name, or the file's without its extension."""
    return path.resolve().name if path.is_dir() else path.stem


__all__ = ["FAMILIES", "Components", "FamilyRow", "approx_decoder", "change_vae", "completed", "describe", "load", "placement", "tiny_decoder"]

"""The networks that a prompt's tags name, brought into a job's models, and what is said of each."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from pipeline.embeddings import Embedding, read_vectors
from pipeline.errors import Interrupted, ModelError
from pipeline.families.base import Family
from pipeline.geometry import Size
from pipeline.networks import KINDS, TAG_SETTINGS, hashes_text, read_tags
from pipeline.prompt_parser import Network

if TYPE_CHECKING:
    from pipeline.processing import StableDiffusionProcessingImg2Img


def with_default_lora(p: "StableDiffusionProcessingImg2Img", tags: list[Network]) -> list[Network]:
    """The tags of a prompt and, where it does not name it, the LoRA of the options, which joins the prompts then."""
    name = p.options.sd_lora
    if name in ("", "None") or any(name in tag.args[:1] for tag in tags) or not p.networks.knows(name):
        return tags
    multiplier = str(p.options.extra_networks_default_multiplier)
    p.all_prompts = [f"{prompt}<lora:{name}:{multiplier}>" for prompt in p.all_prompts]
    return [*tags, Network("lora", (name, multiplier), {})]


def apply_networks(p: "StableDiffusionProcessingImg2Img", tags: list[Network]) -> None:
    """Bring the models' weights to what the tags of a prompt ask for, and say what became of each."""
    requests = read_tags(tags)
    try:
        applied = p.networks.apply(p.sd_model, requests, lambda: ask_to_stop(p))
        refined = p.networks.apply(p.refiner, requests if keeps_networks(p) else [], lambda: ask_to_stop(p)) if p.refiner else None
    except Interrupted:
        return  # no batch is begun
    p.encoder = replace(p.encoder, networks=applied.key, refiner_networks=refined.key if refined else ())
    for name, digest in applied.sha256.items():
        p.receipts.use("LoRA", name, digest)
    bundled, unread = read_bundled(applied.embeddings)
    for family in p.models:
        p.embeddings.offer(family.text_encoders, bundled)
    if applied.hashes and p.options.lora_add_hashes_to_infotext:
        p.extra_generation_params["Lora hashes"] = hashes_text(applied.hashes)
    unknown = [f'"<{tag.kind}:{tag.args[0] if tag.args else ""}>" in the prompt was left out: there is no such network.'
               for tag in tags if tag.kind not in KINDS]
    p.comments += [comment for comment in (*unknown, *unread, *applied.comments, *ignored(tags)) if comment not in p.comments]


def ask_to_stop(p: "StableDiffusionProcessingImg2Img") -> None:
    """Raise Interrupted where no batch is to be begun any more, or Cancelled; a skip waits for the sampling."""
    try:
        p.progress.checkpoint()
    except Interrupted:
        if p.progress.stopped:
            raise


def keeps_networks(p: "StableDiffusionProcessingImg2Img") -> bool:
    """Whether the refiner gets the prompt's networks too."""
    # A1111: a checkpoint of another config is a model of its own, which starts without; of the same, only weights change
    return config_of(p.sd_model, p.size) == config_of(p.refiner, p.size)


def config_of(family: Family, size: Size) -> tuple:
    """What tells apart the configs that A1111 would take for checkpoints: a .yaml beside the file, or one of its own."""
    beside = Path(family.info.path).with_suffix(".yaml")
    predicts = type(family.prediction(size)) if family.name == "sd2" else None
    return (beside,) if beside.is_file() else (family.name, family.sees, predicts)


def read_bundled(found: list[tuple[str, str, dict[str, Tensor]]]) -> tuple[list[Embedding], list[str]]:
    """The embeddings that travel in networks, and a sentence for each that cannot be used: what comes along fails no job."""
    embeddings, unread = [], []
    for network, name, tensors in found:
        try:
            embeddings.append(Embedding(name, read_vectors(name, tensors), network=network))
        except ModelError as error:
            unread.append(f'The embedding "{name}" in the LoRA "{network}" was not used: {error}')
    return embeddings, unread


def ignored(tags: list[Network]) -> list[str]:
    """A sentence for each setting in a network's tag that does nothing here."""
    return [f'"{key}={value}" of the LoRA "{tag.args[0]}" was not applied: a tag may set te, unet and dyn.'
            for tag in tags if tag.kind in KINDS for key, value in tag.named.items() if key not in TAG_SETTINGS]

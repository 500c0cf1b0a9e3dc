"""Applies a batch's prompts to the models: merges their networks, and records how their texts are read."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

from torch import Tensor

from pipeline.bound import StableDiffusionProcessing
from pipeline.embeddings import Embedding, read_vectors, ti_hashes
from pipeline.errors import Interrupted, ModelError
from pipeline.families.base import Family
from pipeline.families.cond import Cond
from pipeline.geometry import Size
from pipeline.networks import KINDS, TAG_SETTINGS, hashes_text, read_tags
from pipeline.options import infotext_name
from pipeline.prompt_parser import Network, parse_timeline


def with_default_lora(p: StableDiffusionProcessing, tags: list[Network]) -> list[Network]:
    """The prompt's tags, plus the options' default LoRA unless the prompt names it; it is added to the prompts too."""
    name = p.options.sd_lora
    if name in ("", "None") or any(name in tag.args[:1] for tag in tags) or not p.networks.knows(name):
        return tags
    multiplier = str(p.options.extra_networks_default_multiplier)
    p.all_prompts = [f"{prompt}<lora:{name}:{multiplier}>" for prompt in p.all_prompts]
    return [*tags, Network("lora", (name, multiplier), {})]


def apply_networks(p: StableDiffusionProcessing, tags: list[Network]) -> None:
    """Merge the networks of a prompt's tags into the models, and report on each."""
    requests = read_tags(tags)
    try:
        applied = p.networks.apply(p.sd_model, requests, lambda: ask_to_stop(p))
        refined = p.networks.apply(p.refiner, requests if keeps_networks(p) else [], lambda: ask_to_stop(p)) if p.refiner else None
    except Interrupted:
        return  # no batch starts
    p.encoder = replace(p.encoder, networks=applied.key, refiner_networks=refined.key if refined else ())
    for name, digest in applied.sha256.items():
        p.receipts.use("LoRA", name, digest)
    bundled, unread = read_bundled(applied.embeddings)
    for family in p.models:
        p.embeddings.offer(family.text_encoders, bundled)
    if applied.hashes and p.options.lora_add_hashes_to_infotext:
        p.extra_generation_params["Lora hashes"] = hashes_text(applied.hashes)
    unknown = [f'"<{tag.kind}:{tag.args[0] if tag.args else ""}>" in the prompt was left out: unknown kind of network.'
               for tag in tags if tag.kind not in KINDS]
    p.say(*unknown, *unread, *applied.comments, *ignored(tags))


def ask_to_stop(p: StableDiffusionProcessing) -> None:
    """Raise Interrupted if no batch may start any more, or Cancelled; a skip takes effect during sampling."""
    try:
        p.progress.checkpoint()
    except Interrupted:
        if p.progress.stopped:
            raise


def keeps_networks(p: StableDiffusionProcessing) -> bool:
    """Whether the prompt's networks apply to the refiner too."""
    # A1111: a checkpoint of another config becomes a new model, without networks; of the same config, only weights change
    return config_of(p.sd_model, p.size) == config_of(p.refiner, p.size)


def config_of(family: Family, size: Size) -> tuple:
    """Identifies the config that A1111 would use for a checkpoint: a .yaml beside the file, or a built-in one."""
    beside = Path(family.info.path).with_suffix(".yaml")
    predicts = type(family.prediction(size)) if family.name == "sd2" else None
    return (beside,) if beside.is_file() else (family.name, family.sees, predicts)


def read_bundled(found: list[tuple[str, str, dict[str, Tensor]]]) -> tuple[list[Embedding], list[str]]:
    """The embeddings bundled in networks, and a sentence for each that cannot be used; such a one does not fail the job."""
    embeddings, unread = [], []
    for network, name, tensors in found:
        try:
            embeddings.append(Embedding(name, read_vectors(name, tensors), network=network))
        except ModelError as error:
            unread.append(f'The embedding "{name}" in the LoRA "{network}" was not used: {error}')
    return embeddings, unread


def ignored(tags: list[Network]) -> list[str]:
    """A sentence for each setting in a network's tag that has no effect here."""
    return [f'"{key}={value}" of the LoRA "{tag.args[0]}" was not applied: a tag may set te, unet and dyn.'
            for tag in tags if tag.kind in KINDS for key, value in tag.named.items() if key not in TAG_SETTINGS]


def encode_empty(p: StableDiffusionProcessing, family: Family) -> Cond:
    """The empty prompt that pad_cond_uncond pads with.

    A1111: encoded when the model was loaded, so without networks in the weights and without the request's own options.
    """
    encoder = replace(p.encoder, family=family, options=p.standing)
    return encoder.encode_empty(before=lambda: p.networks.apply(family, []))


def record_prompt_options(p: StableDiffusionProcessing) -> None:
    """Record the options and embeddings that changed how these prompts are read."""
    texts = (*p.prompts, *p.negative_prompts)
    if p.options.use_old_scheduling and any(
            parse_timeline(text, p.encoder.calls, old_rule=True) != parse_timeline(text, p.encoder.calls) for text in texts):
        p.extra_generation_params[infotext_name("use_old_scheduling")] = True
    found, not_used = p.encoder.textual_inversions(p.prompts, p.negative_prompts)
    for embedding in chain(*found):
        if embedding.network is None:  # otherwise its file is recorded already
            p.receipts.use("embedding", embedding.name, embedding.hash)
    p.say(*not_used)
    if not p.sd_model.takes_negative_prompt and any(text.strip() for text in p.negative_prompts):
        p.say(f"{p.sd_model.info.name} does not use negative prompts, so it was ignored.")
    # A1111: in encoding order, negative prompt first
    for index, texts in enumerate(p.encoder.texts(p.prompts, p.negative_prompts)):
        hashes = ti_hashes(found[:index + 1])
        if hashes and p.options.textual_inversion_add_hashes_to_infotext:
            p.extra_generation_params["TI hashes"] = hashes
        if p.options.emphasis != "Original" and not p.encoder.reads_as_of_old and any("(" in text or "[" in text for text in texts):
            p.extra_generation_params[infotext_name("emphasis")] = p.options.emphasis

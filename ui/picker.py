"""Lists the LoRAs and embeddings: a click adds one to the prompt, a second click removes it."""

import re
from dataclasses import dataclass
from functools import partial

import gradio as gr

from pipeline.errors import PalimpsestError
from pipeline.models import Catalog, ModelFile, without_suffix
from pipeline.networks import LoraNames, trigger_words
from ui.events import QUEUED

MOST_WORDS = 24
"""A LoRA's most frequent trigger words to offer."""
PAGE = 24
"""Files shown at once."""
PROMPTS = ["Prompt", "Negative prompt"]


@dataclass
class Picker:
    """The accordion below the prompts."""

    part: gr.Textbox
    """The filter on names."""
    refresh: gr.Button
    loras: gr.Dataset
    words: gr.Dataset
    """Trigger words of the LoRA clicked last."""
    embeddings: gr.Dataset
    target: gr.Radio
    """The prompt that embeddings go into."""
    nothing: gr.Markdown
    """Shown instead of an empty list."""

    @property
    def lists(self) -> list[gr.blocks.Block]:
        return [self.loras, self.embeddings, self.target, self.nothing]


def build_picker() -> Picker:
    """Empty; listed() fills it when a page is opened."""
    with gr.Accordion("LoRA and embeddings", open=False, elem_id="picker"):
        with gr.Row(elem_classes="with-refresh"):
            part = gr.Textbox("", show_label=False, placeholder="Part of a name", container=False, elem_id="picker-filter")
            refresh = gr.Button("Refresh", size="sm", scale=0, min_width=72, elem_id="picker-refresh")
        loras = pills("LoRA", "picker-loras")
        words = pills("Trigger words", "picker-words")
        embeddings = pills("Embeddings", "picker-embeddings")
        target = gr.Radio(PROMPTS, value=PROMPTS[0], type="index", show_label=False, container=False, visible=False,
                          elem_id="picker-target")
        nothing = gr.Markdown(visible=False, elem_id="picker-nothing")
    return Picker(part, refresh, loras, words, embeddings, target, nothing)


def listed(catalog: Catalog, part: str = "") -> list[gr.blocks.Block]:
    """Updates for Picker.lists with the files whose names contain `part`."""
    loras, embeddings = ([label for label in map(label_of, files) if part.lower() in label.lower()]
                         for files in (catalog.loras(), catalog.embeddings()))
    return [filled(loras), filled(embeddings), gr.Radio(visible=bool(embeddings)),
            gr.Markdown(nothing_sentence(catalog, part), visible=not loras + embeddings)]


def nothing_sentence(catalog: Catalog, part: str) -> str:
    """The text shown instead of an empty list."""
    return "No name contains this." if part else (
        f"None found. Their folders: `{catalog.root / 'Lora'}`, `{catalog.root / 'embeddings'}`")


def pills(label: str, elem_id: str) -> gr.Dataset:
    """A list of names to click on, hidden while empty."""
    return gr.Dataset(label=label, components=["textbox"], samples=[], visible=False, samples_per_page=PAGE, elem_id=elem_id)


def filled(names: list[str]) -> gr.Dataset:
    """An update that fills the list with these names."""
    return gr.Dataset(samples=[[name] for name in names], visible=bool(names))


def label_of(file: ModelFile) -> str:
    """A file's name in the list: its path without extension."""
    return without_suffix(file.rel)


def wire_picker(picker: Picker, catalog: Catalog, prompt: gr.Textbox, negative_prompt: gr.Textbox) -> None:
    """Headers of files are read on separate threads when first clicked."""
    names = LoraNames(catalog)

    def add_lora(text: str, event: gr.SelectData) -> tuple[str, gr.Dataset]:
        label = event.value[0]
        file = next((file for file in catalog.loras() if label_of(file) == label), None)
        if file is None:
            raise PalimpsestError("This file no longer exists; Refresh lists the current ones.")
        words = trigger_words(names.metadata(file))[:MOST_WORDS]
        return with_tag(text, names.prompt_name(file)), filled(words)

    def add_word(text: str, event: gr.SelectData) -> str:
        return with_word(text, literally(event.value[0]))

    def add_embedding(target: int, positive: str, negative: str, event: gr.SelectData) -> tuple[str, str]:
        name = literally(event.value[0].rpartition("/")[2])
        return (positive, with_word(negative, name)) if target else (with_word(positive, name), negative)

    gr.on(None, partial(listed, catalog), picker.part, picker.lists, **QUEUED)
    picker.loras.select(add_lora, prompt, [prompt, picker.words], **QUEUED)
    picker.words.select(add_word, prompt, prompt, **QUEUED)
    picker.embeddings.select(add_embedding, [picker.target, prompt, negative_prompt], [prompt, negative_prompt], **QUEUED)


def with_tag(prompt: str, name: str) -> str:
    """The prompt with <lora:name:1> appended; if it has the LoRA already, without it, whatever its weight."""
    without = re.sub(rf" ?<lora:{re.escape(name)}(:[^>]*)?>", "", prompt)
    return f"{prompt} <lora:{name}:1>".lstrip() if without == prompt else without.lstrip()


def with_word(prompt: str, word: str) -> str:
    """The prompt with ", word" appended; if it has that already, without it."""
    without = re.sub(rf"(^|,)\s*{re.escape(word)}\s*(?=,|$)", "", prompt)
    return ", ".join(filter(None, [prompt, word])) if without == prompt else without.lstrip(", ")


def literally(word: str) -> str:
    """A word escaped for a prompt, so that its brackets are not emphasis."""
    return re.sub(r"([()\[\]\\])", r"\\\1", word)

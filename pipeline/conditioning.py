"""Prompts to what the network is conditioned on at each model call: editing schedules, AND, several pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pipeline.caches import Cache
from pipeline.embeddings import Embedding
from pipeline.families.base import Cond, Family, ModelInfo, SdxlConditions
from pipeline.geometry import Size
from pipeline.options import Options
from pipeline.prompt_parser import at_step, parse_schedule, split_and

Schedule = list[tuple[int, Cond]]
"""(end_step, a Cond of one row), as prompt_parser.parse_schedule gives the texts."""


@dataclass(frozen=True)
class Part:
    """One text of a prompt that AND joins."""

    schedule: Schedule
    weight: float


Parts = list[Part]
"""What one picture is conditioned on."""


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts for one job: `calls` model calls, with `options`."""

    family: Family
    options: Options
    calls: int
    cache: Cache
    networks: tuple = ()
    """What is merged into the family's weights."""
    refiner_networks: tuple = ()
    """What is merged into those of the model that takes over."""
    size: Size = Size(512, 512)
    """Of the picture that is asked for; SDXL is told it."""
    empties: Mapping[ModelInfo, Cond] = field(default_factory=dict)
    """By model: what pad_cond_uncond pads with, one row."""

    def positive(self, prompts: list[str]) -> list[Parts]:
        """One list of parts per prompt."""
        return [[Part(self._schedule(text), weight) for text, weight in split_and(prompt)] for prompt in prompts]

    def negative(self, prompts: list[str]) -> list[Schedule]:
        """One schedule per prompt; AND is an ordinary word here."""
        return [self._schedule(prompt, negative=True) for prompt in prompts]

    def texts(self, prompts: list[str], negative_prompts: list[str]) -> list[list[str]]:
        """Per encoding, the negative ones first, the texts that it is made of at one step or another."""
        parts = [text for prompt in dict.fromkeys(prompts) for text, _ in split_and(prompt)]
        return [[variant for _, variant in self._steps(text)] for text in (*dict.fromkeys(negative_prompts), *dict.fromkeys(parts))]

    def encode_empty(self, before: Callable[[], object]) -> Cond:
        """The empty prompt, one row, of a model without networks. before: is called where it has to be encoded."""
        return replace(self, networks=())._schedule("", before=before)[0][1]

    @property
    def empty(self) -> Cond:
        return self.empties[self.family.info]

    def textual_inversions(self, prompts: list[str], negative_prompts: list[str]) -> tuple[list[list[Embedding]], list[str]]:
        """The embeddings used in each encoding, and a sentence for each one that is named but cannot be used."""
        if self.options.use_old_emphasis_implementation and self.family.name == "sd1":
            return [], []  # A1111: not told where prompts are read as of old
        found, missed = [], {}
        for variants in self.texts(prompts, negative_prompts):
            for encoder in self.family.text_encoders[:1]:  # the names' tokens are the same in all of them
                used, not_used = encoder.find_embeddings(variants, emphasis=self.options.emphasis)
                found.append(used)
                missed |= dict.fromkeys(not_used)
        return found, list(missed)

    def count_tokens(self, prompt: str) -> int:
        """How many tokens the longest text takes that a prompt is at any step; chunks have 75."""
        texts = {text for part, _ in split_and(prompt) for _, text in self._steps(part)}
        return max(self.family.text_encoders[0].count(text, emphasis=self.options.emphasis,
                                                      comma_backtrack=self.options.comma_padding_backtrack) for text in texts)

    def _steps(self, text: str) -> list[tuple[int, str]]:
        return parse_schedule(text, self.calls, old_rule=self.options.use_old_scheduling)

    def _schedule(self, text: str, *, negative: bool = False, before: Callable[[], object] = lambda: None) -> Schedule:
        settings = {"emphasis": self.options.emphasis, "clip_skip": self.options.CLIP_stop_at_last_layers,
                    "comma_backtrack": self.options.comma_padding_backtrack, "sdxl": self._sdxl(negative),
                    "old_emphasis": self.options.use_old_emphasis_implementation}
        steps = self._steps(text)

        def encode() -> Schedule:
            before()
            conds = self.family.encode_prompts([variant for _, variant in steps], **settings)
            return [(end, conds[row:row + 1]) for row, (end, _) in enumerate(steps)]

        embeddings = tuple(encoder.embeddings.key for encoder in self.family.text_encoders[:1])
        kept = self.cache.get(("text", self.family.info, self.family.placement, self.networks, embeddings, tuple(steps),
                               *settings.values()), encode)
        return [(end, copied(cond)) for end, cond in kept]

    def _sdxl(self, negative: bool) -> SdxlConditions:
        options = self.options
        return SdxlConditions(
            width=self.size.width, height=self.size.height, crop_top=options.sdxl_crop_top, crop_left=options.sdxl_crop_left,
            aesthetic_score=options.sdxl_refiner_low_aesthetic_score if negative else options.sdxl_refiner_high_aesthetic_score,
            clip_l_skip=options.sdxl_clip_l_skip, negative=negative)


def copied(cond: Cond) -> Cond:
    return Cond(cond.crossattn.clone(), None if cond.vector is None else cond.vector.clone())


def positive_at(parts: list[Parts], call: int) -> tuple[Cond, list[list[tuple[int, float]]]]:
    """The parts of all pictures at a model call: their Cond, and per picture the (row, weight) that make it up."""
    rows, members = [], []
    for picture in parts:
        members.append([(len(rows) + offset, part.weight) for offset, part in enumerate(picture)])
        rows += [at_step(part.schedule, call)[1] for part in picture]
    return stack(rows), members


def negative_at(schedules: list[Schedule], call: int) -> Cond:
    """The negative prompts of all pictures at a model call."""
    return stack([at_step(schedule, call)[1] for schedule in schedules])


def stack(conds: list[Cond]) -> Cond:
    """One Cond of all rows; shorter ones are padded by repeating their last token."""
    longest = max(cond.crossattn.shape[1] for cond in conds)
    return Cond.cat([Cond(repeat_last(cond.crossattn, longest), cond.vector) for cond in conds])


def repeat_last(tokens: Tensor, length: int) -> Tensor:
    """(n, T, width) → (n, length, width) for a length of at least T."""
    missing = length - tokens.shape[1]
    return torch.hstack([tokens, tokens[:, -1:].repeat(1, missing, 1)]) if missing else tokens


def pad_with_empty(cond: Cond, length: int, empty: Cond) -> Cond:
    """`cond` with empty prompts appended until it has `length` tokens."""
    missing = length - cond.crossattn.shape[1]
    if missing <= 0:
        return cond
    padding = empty.crossattn.repeat(len(cond), missing // empty.crossattn.shape[1], 1)
    return Cond(torch.hstack([cond.crossattn, padding]), cond.vector)

"""Prompts to what the network is conditioned on at each model call: editing timelines, AND, several pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from pipeline.caches import Cache
from pipeline.embeddings import Embedding
from pipeline.errors import InvalidRequest
from pipeline.families.base import Family, ModelInfo
from pipeline.families.cond import Cond, Encoding, Reference
from pipeline.geometry import Size
from pipeline.options import Options
from pipeline.prompt_parser import at_step, parse_timeline, split_and

MAX_SUBPROMPTS = 100
"""Subprompts of a prompt, joined by AND."""
CHUNK = 77
"""Tokens per chunk: 75, a start and an end."""
MAX_CHUNKS = 4096
"""Limit on the chunks of a batch's prompts over all steps: each is kept encoded, so this many take gigabytes."""

Timeline = list[tuple[int, Cond]]
"""(end_step, a Cond of one row), parallel to the texts of prompt_parser.parse_timeline."""


@dataclass(frozen=True)
class Subprompt:
    """One of the texts that AND joins."""

    timeline: Timeline
    weight: float


Subprompts = list[Subprompt]
"""What one picture is conditioned on."""


@dataclass(frozen=True)
class PromptEncoder:
    """Encodes prompts for one job: `calls` model calls, with `options`."""

    family: Family
    options: Options
    calls: int
    cache: Cache
    networks: tuple = ()
    """Networks merged into the family's weights."""
    refiner_networks: tuple = ()
    """Networks merged into the refiner's weights."""
    size: Size = Size(512, 512)
    """Of the requested picture; SDXL is conditioned on it."""
    earlier: int = 0
    """Model calls of an earlier pass, from which the times of prompt editing count on; 0: there was none."""
    references: tuple[Reference, ...] = ()
    guidance: float = 3.5
    sources: tuple[Reference, ...] = ()
    """For a text encoder that sees the source: one for all prompts, or one for each."""
    empties: Mapping[ModelInfo, Cond] = field(default_factory=dict)
    """By model: the padding of pad_cond_uncond, one row."""

    @property
    def reads_as_of_old(self) -> bool:
        """Whether prompts are read in the attention grammar of 2022."""
        return self.options.use_old_emphasis_implementation and self.family.knows_old_emphasis

    def positive(self, prompts: list[str]) -> list[Subprompts]:
        """One list of subprompts per prompt. Raises InvalidRequest if there are too many."""
        encoded, chunks = [], 0
        for row, prompt in enumerate(prompts):
            encoded.append([])
            for text, weight in split_subprompts(prompt):
                subprompt = Subprompt(self._timeline(text, row=row), weight)
                chunks += sum(-(-cond.length // CHUNK) for _, cond in subprompt.timeline)
                check_chunks("prompt", chunks)
                encoded[-1].append(subprompt)
        return encoded

    def negative(self, prompts: list[str]) -> list[Timeline]:
        """One timeline per prompt; AND is an ordinary word here. Raises InvalidRequest if there are too many chunks."""
        return [self._timeline(prompt, negative=True, row=row) for row, prompt in enumerate(prompts)]

    def texts(self, prompts: list[str], negative_prompts: list[str]) -> list[list[str]]:
        """For each encoding, negative prompts first: the texts it is made of over the steps."""
        texts = dict.fromkeys(text for prompt in dict.fromkeys(prompts) for text, _ in split_subprompts(prompt))
        fields = dict.fromkeys(negative_prompts, "negative_prompt").items(), dict.fromkeys(texts, "prompt").items()
        found = [(self._steps(text), field) for text, field in chain(*fields)]
        for steps, field in found:  # before the texts are read in full
            self._check_length(steps, field)
        return [[variant for _, variant in steps] for steps, _ in found]

    def encode_empty(self, before: Callable[[], object]) -> Cond:
        """The empty prompt, one row, of a model without networks. before: called if it has to be encoded."""
        return replace(self, networks=())._timeline("", before=before)[0][1]

    @property
    def empty(self) -> Cond:
        return self.empties[self.family.info]

    def textual_inversions(self, prompts: list[str], negative_prompts: list[str]) -> tuple[list[list[Embedding]], list[str]]:
        """The embeddings used in each encoding, and a sentence for each one named that cannot be used."""
        if self.reads_as_of_old:
            return [], []  # A1111: not reported under the attention grammar of 2022
        found, missed = [], {}
        for variants in self.texts(prompts, negative_prompts):
            here = {}
            for encoder in self.family.text_encoders:  # a name may show in one tokenizer's ids only
                used, not_used = encoder.find_embeddings(variants, self._how())
                here = dict.fromkeys(used) | here
                missed |= dict.fromkeys(not_used)
            found.append(list(here))
        return found, list(missed)

    def count_tokens(self, prompt: str) -> int:
        """Tokens of the longest text that a prompt becomes at any step; chunks have 75."""
        texts = {text for subprompt, _ in split_and(prompt) for _, text in self._steps(subprompt)}
        return max(self.family.text_encoders[0].count(text, self._how()) for text in texts)

    def _steps(self, text: str) -> list[tuple[int, str]]:
        old = self.options.use_old_scheduling
        # A1111: by the old rule, a second pass reads a prompt as the first one did
        return parse_timeline(text, self.earlier if old and self.earlier else self.calls, old_rule=old, earlier=self.earlier)

    def _timeline(self, text: str, *, negative: bool = False, row: int = 0, before: Callable[[], object] = lambda: None) -> Timeline:
        how, steps = self._how(negative=negative, row=row), self._steps(text)
        self._check_length(steps, "negative_prompt" if negative else "prompt")

        def encode() -> Timeline:
            before()
            conds = self.family.encode_prompts([variant for _, variant in steps], how)
            return [(end, conds[row:row + 1]) for row, (end, _) in enumerate(steps)]

        embeddings = tuple(encoder.embeddings.key for encoder in self.family.text_encoders[:1] if encoder.embeddings is not None)
        kept = self.cache.get(("text", self.family.info, self.family.placement, self.networks, embeddings, tuple(steps), how), encode)
        return [(end, cond.copied()) for end, cond in kept]

    def _check_length(self, steps: list[tuple[int, str]], field: str) -> None:
        """Raise InvalidRequest if a prompt, with all texts that editing makes of it, is too long to encode."""
        longest = max((text for _, text in steps), key=len)
        if len(steps) * len(longest) > 75 * MAX_CHUNKS:  # counts characters, and each token has at least one
            tokens = self.family.text_encoders[0].count(longest, self._how())
            check_chunks(field, len(steps) * -(-tokens // 75))

    def _how(self, *, negative: bool = False, row: int = 0) -> Encoding:
        options = self.options
        return Encoding(
            emphasis=options.emphasis, comma_backtrack=options.comma_padding_backtrack, clip_skip=options.CLIP_stop_at_last_layers,
            clip_l_skip=options.sdxl_clip_l_skip, old_emphasis=self.reads_as_of_old, negative=negative,
            size=self.size, references=self.references, source=self.sources[row % len(self.sources)] if self.sources else None,
            guidance=self.guidance, crop_top=options.sdxl_crop_top, crop_left=options.sdxl_crop_left,
            aesthetic_score=options.sdxl_refiner_low_aesthetic_score if negative else options.sdxl_refiner_high_aesthetic_score)


def split_subprompts(prompt: str) -> list[tuple[str, float]]:
    """The texts that AND joins, with their weights. Raises InvalidRequest if there are too many."""
    texts = split_and(prompt)
    if len(texts) > MAX_SUBPROMPTS:
        raise InvalidRequest("prompt", f"prompt: AND may join at most {MAX_SUBPROMPTS} parts, got {len(texts)}")
    return texts


def check_chunks(field: str, chunks: int) -> None:
    if chunks > MAX_CHUNKS:
        raise InvalidRequest(field, f"{field}: over all steps it takes {chunks} chunks of 75 tokens; at most {MAX_CHUNKS} are allowed. "
                                    "Use fewer steps, fewer pictures at once, or less of [a|b] and AND")


def positive_at(subprompts: list[Subprompts], call: int) -> tuple[Cond, list[list[tuple[int, float]]]]:
    """The subprompts of all pictures at a model call: their Cond, and per picture its (row, weight) pairs."""
    rows, members = [], []
    for picture in subprompts:
        members.append([(len(rows) + offset, subprompt.weight) for offset, subprompt in enumerate(picture)])
        rows += [at_step(subprompt.timeline, call)[1] for subprompt in picture]
    return Cond.cat(rows), members


def negative_at(timelines: list[Timeline], call: int) -> Cond:
    """The negative prompts of all pictures at a model call."""
    return Cond.cat([at_step(timeline, call)[1] for timeline in timelines])

"""From prompts to token features, as in A1111, with 75-token chunks, BREAK, weights, clip skip."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from html import unescape
from itertools import groupby
from typing import Protocol

import torch
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from torch import Tensor

from pipeline.embeddings import Embedding, EmbeddingTable
from pipeline.errors import InvalidRequest
from pipeline.families.cond import Cond, Encoding
from pipeline.prompt_parser import parse_attention

CHUNK_LENGTH = 75
"""Prompt tokens per chunk; a start and an end token make it 77."""
MAX_CHUNKS = 64
"""No real prompt is longer, and one request must not hold up all others."""


@dataclass
class Chunk:
    """Up to 75 tokens with one weight each, under construction."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    embeddings: list[tuple[int, Embedding]] = field(default_factory=list)
    """(position, embedding): its vectors replace the tokens from there on."""


class Tokens(Protocol):
    """A tokenizer that chunks are built with."""

    start: int
    end: int
    comma: int | None
    brackets: dict[int, float]
    """By token: the factor of its brackets on the weight of all later tokens, in the grammar of 2022."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without start and end."""


class ClipTokens:
    """A transformers CLIPTokenizer as `Tokens`."""

    def __init__(self, tokenizer):
        from ftfy import fix_text  # slow to import, and needed only with a model

        self._tokenizer, self._fix_text = tokenizer, fix_text
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        vocabulary = tokenizer.get_vocab()
        self.comma = vocabulary.get(",</w>")
        self.count = max(vocabulary.values()) + 1
        """All ids are below this."""

    @cached_property
    def brackets(self) -> dict[int, float]:
        factors = ((token, bracket_factor(text)) for text, token in self._tokenizer.get_vocab().items())
        return {token: factor for token, factor in factors if factor != 1.0}

    def as_open_clip(self) -> "OpenClipTokens":
        return OpenClipTokens(self._tokenizer)

    def encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        # cleaned like CLIP's training captions: plain quotes, normal widths, no entities
        texts = [self._fix_text(text).lower() for text in texts]
        return self._tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


OPEN_CLIP_SPECIAL = ("<start_of_text>", "<end_of_text>")
"""OpenCLIP's names for CLIP's <|startoftext|> and <|endoftext|>, which are plain text to OpenCLIP."""
OPEN_CLIP_WORDS = (rf"{'|'.join(OPEN_CLIP_SPECIAL)}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+")


class OpenClipTokens(ClipTokens):
    """Tokenizes like open_clip 2.20's SimpleTokenizer, for text encoders trained with it."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self._special = dict(zip(OPEN_CLIP_SPECIAL, (self.start, self.end)))
        self._words = Split(Regex(OPEN_CLIP_WORDS), "removed", invert=True)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [self._ids(unescape(unescape(self._fix_text(text))).lower()) for text in texts]

    def _ids(self, text: str) -> list[int]:
        """Word by word: the words, rejoined by spaces, tokenize as they are, and none is a special token of CLIP."""
        words = [word for word, _ in self._words.pre_tokenize_str(text)]
        ids = []
        for special, run in groupby(words, key=self._special.get):
            ids += [special] * len(list(run)) if special is not None else super().encode([" ".join(run)])[0]
        return ids


def bracket_factor(text: str) -> float:
    """The factor of a token's brackets on the weight; opening and closing ones cancel out."""
    factor = 1.0
    for character in text:
        factor *= {"(": 1.1, ")": 1 / 1.1, "[": 1 / 1.1, "]": 1.1}.get(character, 1.0)
    return factor


class ChunkBuilder:
    """Fills chunks one word at a time."""

    def __init__(self, comma: int | None, comma_backtrack: int):
        self.chunks: list[Chunk] = []
        self._comma, self._backtrack = comma, comma_backtrack
        self._chunk, self._last_comma = Chunk(), -1

    def close(self) -> None:
        """End the chunk, even if it is empty."""
        self.chunks.append(self._chunk)
        self._chunk, self._last_comma = Chunk(), -1

    def add(self, token: int, weight: float, embedding: Embedding | None) -> None:
        """Append a token, or an embedding's vectors in its place; starts a new chunk if this one is too full."""
        since_comma = len(self._chunk.tokens) - self._last_comma
        if token == self._comma:
            self._last_comma = len(self._chunk.tokens)
        elif len(self._chunk.tokens) == CHUNK_LENGTH and self._last_comma != -1 and since_comma <= self._backtrack:
            self._cut_behind_comma()
        count = 1 if embedding is None else embedding.count
        if len(self._chunk.tokens) + count > CHUNK_LENGTH:
            self.close()
        if embedding is not None:
            self._chunk.embeddings.append((len(self._chunk.tokens), embedding))
        self._chunk.tokens += [token] if embedding is None else [0] * count
        self._chunk.weights += [weight] * count

    def finish(self) -> list[Chunk]:
        if self._chunk.tokens or not self.chunks:
            self.close()
        return self.chunks

    def _cut_behind_comma(self) -> None:
        # A1111: embeddings after the comma do not move along; they act on the remaining chunk's padding
        cut, whole = self._last_comma + 1, self._chunk
        self._chunk = Chunk(whole.tokens[:cut], whole.weights[:cut], whole.embeddings)
        self.close()
        self._chunk = Chunk(whole.tokens[cut:], whole.weights[cut:])


def build_chunks(tokens: Tokens, text: str, *, emphasis: str, comma_backtrack: int,
                 embeddings: EmbeddingTable = EmbeddingTable()) -> list[Chunk]:
    """The prompt as chunks; always at least one, the last may be short.

    A chunk ends after its last comma if that is at most `comma_backtrack` tokens from its end. Emphasis "None" reads
    brackets and BREAK literally. An embedding's name must lie within a piece of one weight.
    """
    builder = ChunkBuilder(tokens.comma, comma_backtrack)
    for (piece, weight), ids in encode_pieces(tokens, text, emphasis):
        if piece == "BREAK" and weight == -1:
            builder.close()
            continue
        for token, embedding in embeddings.split(ids):
            builder.add(token, weight, embedding)
    chunks = builder.finish()
    if len(chunks) > MAX_CHUNKS:
        raise InvalidRequest("prompt", f"prompt: needs {len(chunks)} chunks of {CHUNK_LENGTH} tokens; at most {MAX_CHUNKS} are allowed")
    return chunks


def read_old(tokens: Tokens, text: str, *, emphasis: str, embeddings: EmbeddingTable = EmbeddingTable()) -> Chunk:
    """The prompt as one chunk of at most 75 tokens, truncated, with brackets read among the tokens."""
    chunk, weight = Chunk(), 1.0
    brackets = {} if emphasis == "None" else tokens.brackets
    for token, embedding in embeddings.split(tokens.encode([text])[0]):
        if token in brackets:
            weight *= brackets[token]
            continue
        if embedding is not None and len(chunk.tokens) < CHUNK_LENGTH:
            chunk.embeddings.append((len(chunk.tokens), embedding))
        count = 1 if embedding is None else embedding.count
        chunk.tokens += [token] if embedding is None else [0] * count
        chunk.weights += [weight] * count
    return Chunk(chunk.tokens[:CHUNK_LENGTH], chunk.weights[:CHUNK_LENGTH], chunk.embeddings)


def encode_pieces(tokens: Tokens, text: str, emphasis: str) -> list[tuple[tuple[str, float], list[int]]]:
    """((piece, weight), token ids) for each piece of one weight."""
    pieces = [(text, 1.0)] if emphasis == "None" else parse_attention(text)
    return list(zip(pieces, tokens.encode([piece for piece, _ in pieces])))


class ClipTextEncoder:
    """A transformers CLIP text model that encodes weighted prompts of any length.

    model: a CLIPTextModel, or a CLIPTextModelWithProjection.
    name: "clip_l" or "clip_g": selects its vectors in an embedding for several encoders.
    padding: the id after the end token; None: the end token itself. OpenCLIP's towers, in SD2 and SDXL, have 0.
    layer: the hidden layer to take, counted from the end: 1 the last, 2 the one before. A request's clip_skip overrides it.
    final_norm: whether the model's final layer norm is applied to that layer: in SD1 and SD2, but not in SDXL.
    pooled: whether the features of the first chunk's end token are returned too, projected if the model has a projection.

        SD1     (defaults)            SDXL's first   layer=2, final_norm=False
        SD2     padding=0, layer=2    its second     name="clip_g", padding=0, layer=2, final_norm=False, pooled=True
    """

    def __init__(self, model, tokens: Tokens, *, name: str = "clip_l", padding: int | None = None, layer: int = 1,
                 final_norm: bool = True, pooled: bool = False):
        self.model = model
        self.tokens = tokens
        self.name, self.width = name, model.config.hidden_size
        self.embeddings = EmbeddingTable()
        """Embeddings that prompts may use; set by EmbeddingShelf.offer()."""
        self._padding, self._layer, self._final_norm, self._pooled = padding, layer, final_norm, pooled

    def encode(self, texts: list[str], how: Encoding, *, clip_skip: int | None = None) -> Cond:
        """Tokens (len(texts), 77 chunks, width) float32; shorter texts are padded with empty chunks.

        extra["pooled"]: (len(texts), their width) float32 if the encoder is `pooled`; weights do not affect it.
        clip_skip: 1 is the last layer; None: the encoder's own layer. Emphasis "Original" keeps the mean of each
        chunk over all texts, so the texts of one prompt editing schedule belong in one call.
        Raises InvalidRequest if clip_skip exceeds the number of layers.
        """
        chunked = [self._chunks(text, how) for text in texts]
        count = max(len(chunks) for chunks in chunked)
        deepest = self.model.config.num_hidden_layers + 1
        if clip_skip is not None and clip_skip > deepest:
            raise InvalidRequest("CLIP_stop_at_last_layers", f"CLIP_stop_at_last_layers must be at most {deepest} with this "
                                                             f"model's text encoder, got {clip_skip}")
        layer = min(max(clip_skip or self._layer, 1), deepest)
        features, pooled = [], None
        for index in range(count):
            chunks = [chunks[index] if index < len(chunks) else Chunk() for chunks in chunked]
            z, vector = self._run(chunks, layer)
            weights = [[1.0, *chunk.weights, *[1.0] * (CHUNK_LENGTH + 1 - len(chunk.weights))] for chunk in chunks]
            features.append(emphasize(z, torch.tensor(weights, dtype=z.dtype).to(z.device, non_blocking=True), how.emphasis))
            pooled = vector if pooled is None else pooled
        return Cond(torch.hstack(features), {} if pooled is None else {"pooled": pooled})

    def count(self, text: str, how: Encoding) -> int:
        """Tokens of a text; every chunk but the last counts as full."""
        chunks = self._chunks(text, replace(how, old_emphasis=False))
        return CHUNK_LENGTH * (len(chunks) - 1) + len(chunks[-1].tokens)

    def find_embeddings(self, texts: list[str], how: Encoding) -> tuple[list[Embedding], list[str]]:
        """The embeddings that texts name, and a sentence for each named one that cannot be used."""
        found, missed = {}, {}
        for text in texts:
            for _, ids in encode_pieces(self.tokens, text, how.emphasis):
                missed |= dict.fromkeys(self.embeddings.missed(ids))
                found |= dict.fromkeys(embedding for _, embedding in self.embeddings.split(ids) if embedding)
        return list(found), list(missed)

    def _chunks(self, text: str, how: Encoding) -> list[Chunk]:
        if how.old_emphasis:
            return [read_old(self.tokens, text, emphasis=how.emphasis, embeddings=self.embeddings)]
        return build_chunks(self.tokens, text, emphasis=how.emphasis, comma_backtrack=how.comma_backtrack, embeddings=self.embeddings)

    def _run(self, chunks: list[Chunk], layer: int) -> tuple[Tensor, Tensor | None]:
        """The features (n, 77, width) of a layer counted from the end, and the pooled features; both float32."""
        def insert(_module, _args, features: Tensor) -> Tensor:
            return self._insert_embeddings(features, chunks)

        ids = torch.tensor([self._padded(chunk) for chunk in chunks]).to(self.model.device, non_blocking=True)
        with self.model.get_input_embeddings().register_forward_hook(insert):
            output = self.model(input_ids=ids, output_hidden_states=True)
        z = output.hidden_states[-layer]
        if self._final_norm:
            z = self.model.base_model.final_layer_norm(z)
        if not self._pooled:
            return z.float(), None
        return z.float(), (output.text_embeds if "text_embeds" in output else output.pooler_output).float()

    def _insert_embeddings(self, features: Tensor, chunks: list[Chunk]) -> Tensor:
        """Token features (n, 77, width) before the first layer, with embeddings' vectors in place."""
        features = features.clone()
        for row, chunk in zip(features, chunks):
            for offset, embedding in chunk.embeddings:
                start = offset + 1  # after the start token
                vectors = embedding.vectors_for(self.name)[:len(row) - start]
                row[start:start + len(vectors)] = vectors.to(row)
        return features

    def _padded(self, chunk: Chunk) -> list[int]:
        """77 ids: start, tokens, end, padding."""
        ids = [self.tokens.start, *chunk.tokens, *[self.tokens.end] * (CHUNK_LENGTH + 1 - len(chunk.tokens))]
        if self._padding is None:
            return ids
        # A1111: everything after the first end token is padding, even if the prompt itself spells that token
        text = ids.index(self.tokens.end) + 1
        return [*ids[:text], *[self._padding] * (len(ids) - text)]


def emphasize(z: Tensor, weights: Tensor, emphasis: str) -> Tensor:
    """Token features z (n, 77, width) with each token's weight (n, 77) applied in the given mode."""
    if emphasis in ("None", "Ignore"):
        return z
    weighted = z * weights[..., None]
    if emphasis == "No norm":
        return weighted
    return weighted * (z.mean() / weighted.mean())

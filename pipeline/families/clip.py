"""Prompt to token features the way A1111 does it: 75-token chunks, BREAK, weights, clip skip."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import InvalidRequest
from pipeline.prompt_parser import parse_attention

CHUNK_LENGTH = 75
"""Prompt tokens per chunk; a start and an end token make it 77."""
MAX_CHUNKS = 64
"""More is nobody's prompt, and one request would hold up all others."""


@dataclass
class Chunk:
    """Up to 75 tokens with one weight each, in the making."""

    tokens: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


class Tokens(Protocol):
    """The token ids that chunks are built from."""

    start: int
    end: int
    comma: int | None

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without start and end."""


class ClipTokens:
    """A transformers CLIPTokenizer as `Tokens`."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.start, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.comma = tokenizer.get_vocab().get(",</w>")

    def encode(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]


def build_chunks(tokens: Tokens, text: str, *, emphasis: str, comma_backtrack: int) -> list[Chunk]:
    """The prompt as chunks; always at least one, the last may be short.

    A chunk is cut behind its last comma if that is at most `comma_backtrack` tokens from its end. Emphasis "None"
    takes brackets and BREAK literally.
    """
    pieces = [(text, 1.0)] if emphasis == "None" else parse_attention(text)
    ids = tokens.encode([piece for piece, _ in pieces])
    chunks, chunk, last_comma = [], Chunk(), -1

    def close() -> None:
        nonlocal chunk, last_comma
        chunks.append(chunk)
        chunk, last_comma = Chunk(), -1

    for (piece, weight), piece_ids in zip(pieces, ids):
        if piece == "BREAK" and weight == -1:
            close()
            continue
        for token in piece_ids:
            full = len(chunk.tokens) == CHUNK_LENGTH
            if token == tokens.comma:
                last_comma = len(chunk.tokens)
            elif full and comma_backtrack and last_comma != -1 and CHUNK_LENGTH - last_comma <= comma_backtrack:
                cut = last_comma + 1
                tail = Chunk(chunk.tokens[cut:], chunk.weights[cut:])
                chunk = Chunk(chunk.tokens[:cut], chunk.weights[:cut])
                close()
                chunk = tail
            if len(chunk.tokens) == CHUNK_LENGTH:
                close()
            chunk.tokens.append(token)
            chunk.weights.append(weight)
    if chunk.tokens or not chunks:
        close()
    if len(chunks) > MAX_CHUNKS:
        raise InvalidRequest("prompt", f"prompt: it needs {len(chunks)} chunks of {CHUNK_LENGTH} tokens; at most {MAX_CHUNKS}")
    return chunks


class ClipTextEncoder:
    """A transformers CLIPTextModel that encodes weighted prompts of any length."""

    def __init__(self, model, tokens: Tokens):
        self.model = model
        self.tokens = tokens

    def encode(self, texts: list[str], *, emphasis: str, clip_skip: int, comma_backtrack: int) -> Tensor:
        """(len(texts), 77 chunks, width) float32; shorter texts are padded with empty chunks.

        clip_skip 1 is the last layer. Emphasis "Original" keeps the mean of each chunk over all texts, so the
        variants of one prompt editing schedule belong in one call.
        """
        chunked = [build_chunks(self.tokens, text, emphasis=emphasis, comma_backtrack=comma_backtrack) for text in texts]
        count = max(len(chunks) for chunks in chunked)
        features = []
        for index in range(count):
            chunks = [chunks[index] if index < len(chunks) else Chunk() for chunks in chunked]
            ids = torch.tensor([self._padded(chunk) for chunk in chunks], device=self.model.device)
            weights = torch.tensor([[1.0, *chunk.weights, *[1.0] * (CHUNK_LENGTH + 1 - len(chunk.weights))]
                                    for chunk in chunks], device=self.model.device)
            features.append(emphasize(self._layer(ids, clip_skip), weights, emphasis))
        return torch.hstack(features)

    def _padded(self, chunk: Chunk) -> list[int]:
        """77 ids: start, the chunk's, end; SD1 pads with the end token."""
        return [self.tokens.start, *chunk.tokens, *[self.tokens.end] * (CHUNK_LENGTH + 1 - len(chunk.tokens))]

    def _layer(self, ids: Tensor, clip_skip: int) -> Tensor:
        if clip_skip <= 1:
            return self.model(input_ids=ids).last_hidden_state.float()
        hidden = self.model(input_ids=ids, output_hidden_states=True).hidden_states
        return self.model.final_layer_norm(hidden[-min(clip_skip, len(hidden))]).float()


def emphasize(z: Tensor, weights: Tensor, emphasis: str) -> Tensor:
    """Token features z (n, 77, width) with each token's weight (n, 77) applied in the given mode."""
    if emphasis in ("None", "Ignore"):
        return z
    weighted = z * weights[..., None]
    if emphasis == "No norm":
        return weighted
    return weighted * (z.mean() / weighted.mean())

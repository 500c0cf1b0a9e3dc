"""What text encoders share that know neither weights of words nor embeddings: brackets are text."""

import gzip
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.errors import InvalidRequest
from pipeline.families.cond import Encoding

WEIGHTED = re.compile(r"\([^()]*:\s*\d*\.?\d+\s*\)")
"""A prompt's (word:1.2)."""


class PlainText:
    """The part that has to do with tokens. tokenizer: a gzipped tokenizer.json. longest: tokens that the network takes."""

    embeddings = None

    def __init__(self, tokenizer: Path, longest: int):
        self._tokenizer, self._longest = Tokenizer.from_buffer(gzip.decompress(tokenizer.read_bytes())), longest

    def count(self, text: str, how: Encoding) -> int:
        """Tokens of the text itself."""
        return len(self._ids(text))

    def find_embeddings(self, texts: list[str], how: Encoding) -> tuple[list, list[str]]:
        return [], []

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _check_length(self, tokens: int, how: Encoding) -> None:
        """Raise InvalidRequest for too long a prompt."""
        if tokens > self._longest:
            field = "negative_prompt" if how.negative else "prompt"
            raise InvalidRequest(field, f"{field}: takes {tokens} tokens; this model takes at most {self._longest}")


def note_on_weights(texts: Sequence[str], model: str) -> list[str]:
    """A sentence if a prompt asks for weights."""
    found = next((match[0] for text in texts if (match := WEIGHTED.search(text))), None)
    return [] if found is None else [f"{model} knows no weights of words, so {found} was read as it stands."]

"""Builds CLIP's tokenizer from a folder's words and merges, and nothing else in it.

transformers' own from_pretrained() reads several more files, each of which may change the tokenizer's behaviour; a
downloaded folder must not be able to.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.small_files import read_bytes, read_json, reason

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MAX_BYTES = 1 << 24
"""Per file; CLIP's own have 0.5 to 4 MB."""
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def clip_tokenizer(folder: Path) -> "CLIPTokenizer":
    """The tokenizer from a folder's vocab.json and merges.txt, or from its tokenizer.json. Raises ModelError."""
    from transformers import CLIPTokenizer

    words, merges, added = read_words(folder)
    check_words(folder, words | added)
    try:
        tokenizer = CLIPTokenizer(vocab=words, merges=merges)
        tokenizer.add_tokens(sorted(added, key=added.get))
    except Exception as error:  # tokenizers raises Exception itself for a merge of unknown words
        raise ModelError(f'the tokenizer of "{folder.parent.name}" cannot be read: {reason(error)}') from error
    if tokenizer.get_vocab() != words | added:
        raise ModelError(f'the tokenizer of "{folder.parent.name}" cannot be used: the ids of its added tokens '
                         "must follow those of its words")
    return tokenizer


def read_words(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    """(words with ids, merges in order, added words with ids). Raises ModelError."""
    words, merges = read_json(folder / "vocab.json", MAX_BYTES), read_merges(folder / "merges.txt")
    if words is not None and merges is not None:
        added = read_json(folder / "added_tokens.json") or {}
        return words, merges, {word: number for word, number in added.items() if word not in words}
    whole = read_json(folder / "tokenizer.json", MAX_BYTES)
    if whole is None:
        raise ModelError(f'"{folder.parent.name}/{folder.name}" has neither vocab.json with merges.txt nor tokenizer.json')
    try:
        words = dict(whole["model"]["vocab"])
        merges = [pair(merge) for merge in whole["model"]["merges"]]
        added = {entry["content"]: entry["id"] for entry in whole.get("added_tokens", [])}
        return words, merges, {word: number for word, number in added.items() if word not in words}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f'"{folder.parent.name}/{folder.name}/tokenizer.json" cannot be read: '
                         f"{reason(error)}") from error


def read_merges(path: Path) -> list[tuple[str, str]] | None:
    """The pairs in a merges.txt; None if the file does not exist. Raises ModelError."""
    try:
        lines = read_bytes(path, MAX_BYTES).decode("utf-8").split("\n")
        return [pair(line) for line in lines if line.strip() and not line.startswith("#version")]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f'"{path.parent.name}/{path.name}" cannot be read: {reason(error)}') from error


def pair(merge: Any) -> tuple[str, str]:
    """A merge, given as "a b" or as a list, as (a, b). Raises ValueError."""
    parts = merge.split() if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise ValueError("each merge must be two words")
    return parts[0], parts[1]


def check_words(folder: Path, words: dict[Any, Any]) -> None:
    """Raise ModelError unless the words are text with ids from 0 on, each once, as in CLIP."""
    sound = all(isinstance(word, str) and type(number) is int for word, number in words.items())
    if not sound or sorted(words.values()) != list(range(len(words))):
        raise ModelError(f'the tokenizer of "{folder.parent.name}" cannot be used: its words must have the ids from 0 on, each exactly once')
    missing = [word for word in SPECIAL if word not in words]
    if missing:
        raise ModelError(f'the tokenizer of "{folder.parent.name}" cannot be used: it lacks the word "{missing[0]}"')

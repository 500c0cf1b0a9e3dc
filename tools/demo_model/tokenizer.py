"""A byte-pair tokenizer in CLIP's format, trained on the scenes' captions.

As in CLIP (Radford et al. 2021): 256 bytes, the same 256 ending a word, merges, then the start and end tokens.
"""
from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from random import Random

from transformers import CLIPTokenizer

from tools.demo_model.captions import caption
from tools.demo_model.scenes import sample_scenes

START, END, LENGTH = "<|startoftext|>", "<|endoftext|>", 77
WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")


def byte_letters() -> list[str]:
    """The printable letter that stands for each byte, in CLIP's order of the vocabulary."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + n) for n in range(len(hidden))]


def join(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined, n = [], 0
    while n < len(symbols):
        both = symbols[n:n + 2] == pair
        joined.append(symbols[n] + symbols[n + 1] if both else symbols[n])
        n += 2 if both else 1
    return tuple(joined)


def learn_merges(words: Counter[str], limit: int) -> list[tuple[str, str]]:
    """The most frequent pairs, one after another, until every word is one token or `limit` is reached."""
    pieces = {word: (*word[:-1], word[-1] + "</w>") for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in pieces.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        pieces = {word: join(symbols, best) for word, symbols in pieces.items()}
    return merges


def train_tokenizer(folder: Path, *, captions: int = 20000, limit: int = 1400, seed: int = 3) -> CLIPTokenizer:
    """Writes vocab.json, merges.txt and the settings that `CLIPTokenizer` loads, and loads them."""
    random, words = Random(seed), Counter()
    for scene in sample_scenes(captions, seed):
        words.update(word for word in WORD.findall(caption(scene, random)) if word.isalpha())
    letters = byte_letters()
    merges = learn_merges(words, limit)
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {token: n for n, token in enumerate(dict.fromkeys(vocabulary))}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = dict(tokenizer_class="CLIPTokenizer", bos_token=START, eos_token=END, unk_token=END, pad_token=END,
                    do_lower_case=True, errors="replace", model_max_length=LENGTH, add_prefix_space=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def token_rows(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    """77 numbers for each text: start, tokens, end, and the end token again to the end."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH)["input_ids"]

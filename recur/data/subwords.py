"""Text as pieces of words, learned from text: byte-pair encoding (Sennrich et al. 2016).

A text is first cut into words, numbers and signs, each with the space before it, if there is one (written `▁`), so
that the pieces put together are the text again. Pieces that stand next to each other often become one. Every character
of the training texts is a piece, so known letters spell any word; a word with a character that is none is
UNK, which stands for the word itself: who translates it copies it.
"""

from __future__ import annotations

import heapq
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from recur.data.text import END, PAD, SPECIAL, UNK, is_unspaced
from recur.errors import RecurError

__all__ = ["END", "PAD", "UNK", "Subwords", "clean", "learn_pieces", "split_words"]

SPACE: Final = "▁"
FORMAT: Final = 1
MAX_PIECES: Final = 1 << 20
LONGEST_WORD: Final = 64  # characters; longer ones are cut
_WORD: Final = re.compile(rf"{SPACE}?(?:[^\W\d_]{{1,{LONGEST_WORD}}}|\d|[^\w\s{SPACE}]|_)|{SPACE}")
_SIGNS: Final = str.maketrans("\u2018\u2019\u201c\u201d\u201e\u00a0", '\'\'""" ')


def clean(text: str) -> str:
    """One form for all ways to write the same: Unicode NFKC, plain quotes, single spaces, no control characters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).replace(SPACE, "_")
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())


def split_words(text: str) -> list[str]:
    """The words and signs of a clean text, `▁` before those that a space precedes; the first one always has it."""
    return _WORD.findall(SPACE + text.replace(" ", SPACE)) if text else []


def learn_pieces(texts: Iterable[str], size: int, *, least: int = 2) -> list[str]:
    """`size` pieces: all characters that are seen `least` times, then the merges in the order they were learned.

    Words with characters of an unspaced script, such as Chinese, stay in characters: they are whole clauses, and what
    often stands together in them is seldom a word.
    """
    words: Counter[str] = Counter()
    for text in texts:
        words.update(split_words(clean(text)))
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    pieces = sorted((letter for letter, count in letters.items() if count >= least), key=lambda x: (-letters[x], x))
    known = set(pieces)

    def spells(word: str) -> bool:
        return known.issuperset(word) and not any(is_unspaced(letter) for letter in word)

    items = [(list(word), count) for word, count in sorted(words.items()) if spells(word)]
    pairs: Counter[tuple[str, str]] = Counter()
    where: dict[tuple[str, str], set[int]] = defaultdict(set)
    for place, (parts, count) in enumerate(items):
        for pair in pairwise(parts):
            pairs[pair] += count
            where[pair].add(place)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    while len(pieces) < size and queue:
        count, pair = heapq.heappop(queue)
        if -count != pairs[pair]:  # an old entry; the pair was pushed again when its number changed
            continue
        if -count < least:
            break
        merged = pair[0] + pair[1]
        if merged not in known:
            known.add(merged)
            pieces.append(merged)
        changed: set[tuple[str, str]] = set()
        for place in sorted(where.pop(pair)):
            parts, times = items[place]
            for old in pairwise(parts):
                pairs[old] -= times
                changed.add(old)
            after = _merge(parts, pair, merged)
            items[place] = (after, times)
            for new in pairwise(after):
                pairs[new] += times
                where[new].add(place)
                changed.add(new)
        for each in changed:
            if pairs[each] > 0 and each != pair:
                heapq.heappush(queue, (-pairs[each], each))
        pairs.pop(pair, None)
    return pieces


def _merge(parts: Sequence[str], pair: tuple[str, str], merged: str) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(parts):
        if at + 1 < len(parts) and (parts[at], parts[at + 1]) == pair:
            found.append(merged)
            at += 2
        else:
            found.append(parts[at])
            at += 1
    return found


class Subwords:
    """Pieces and their numbers: 0 PAD, 1 END, 2 UNK, one token a language (`<en>`), then the pieces."""

    def __init__(
        self, pieces: Sequence[str], languages: Sequence[str], allowed: Mapping[str, Iterable[int]] | None = None
    ) -> None:
        """`allowed`: the numbers that may be written in each language, all when None.

        Raises RecurError for pieces that are empty or appear twice, and for numbers that do not exist.
        """
        self.pieces, self.languages = tuple(pieces), tuple(languages)
        self.tokens: tuple[str, ...] = (*SPECIAL, *(f"<{lang}>" for lang in languages), *pieces)
        self.first = len(SPECIAL) + len(self.languages)
        self._ids = {piece: number for number, piece in enumerate(self.tokens) if number >= self.first}
        if len(self._ids) != len(self.pieces) or "" in self._ids or len(set(languages)) != len(self.languages):
            raise RecurError("a piece or a language is empty or there twice; expected different ones; train again")
        self._letters = {piece for piece in self._ids if len(piece) == 1}
        self._allowed: dict[str, NDArray[np.int64]] = {}
        for lang in self.languages:
            ids = range(self.first, len(self.tokens)) if allowed is None else allowed.get(lang, ())
            numbers = np.unique(np.fromiter((END, UNK, *ids), np.int64))
            if numbers[0] < END or numbers[-1] >= len(self.tokens) or PAD in numbers:
                raise RecurError(f"pieces of {lang!r} with numbers that do not exist; train again")
            self._allowed[lang] = numbers
        self._split = lru_cache(maxsize=1 << 16)(self._split_word)

    def __len__(self) -> int:
        return len(self.tokens)

    def language_id(self, lang: str) -> int:
        """The number of a language's token. Errors: KeyError."""
        return len(SPECIAL) + self.languages.index(lang)

    def allowed(self, lang: str) -> NDArray[np.int64]:
        """The numbers that may be written in a language, END and UNK among them, in rising order."""
        return self._allowed[lang]

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's pieces; a word with an unknown character is one UNK."""
        return [number for word in split_words(clean(text)) for number in self.encode_word(word)]

    def encode_word(self, word: str) -> tuple[int, ...]:
        """The numbers of one word of `split_words`."""
        return self._split(word)

    def _split_word(self, word: str) -> tuple[int, ...]:
        if not self._letters.issuperset(word):
            return (UNK,)
        parts = list(word)
        while len(parts) > 1:
            best, place = len(self.tokens), -1
            for at in range(len(parts) - 1):
                rank = self._ids.get(parts[at] + parts[at + 1], best)
                if rank < best:
                    best, place = rank, at
            if place < 0:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        return tuple(self._ids[part] for part in parts)

    def decode(self, numbers: Iterable[int], copies: Sequence[str] = ()) -> str:
        """The text of some pieces; the n-th UNK becomes `copies[n]`, or nothing when there are fewer."""
        rest = iter(copies)
        parts = [
            next(rest, "") if number == UNK else self.tokens[number]
            for number in numbers
            if number == UNK or number >= self.first
        ]
        return "".join(parts).replace(SPACE, " ").strip()

    def to_bytes(self) -> bytes:
        """The same from the same pieces, on every machine."""
        content = {
            "format": FORMAT,
            "kind": "subwords",
            "languages": list(self.languages),
            "pieces": list(self.pieces),
            "allowed": {lang: ids[ids >= self.first].tolist() for lang, ids in self._allowed.items()},
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "tokenizer.json") -> Self:
        """Read what `to_bytes` wrote. Errors: RecurError for anything else."""
        again = "get the bundle again, or train it again"
        try:
            content: Any = json.loads(data.decode("utf-8"))
            if content["format"] != FORMAT or content["kind"] != "subwords":
                raise ValueError("of another kind")
            pieces, languages, allowed = content["pieces"], content["languages"], content["allowed"]
            whole = all(isinstance(piece, str) for piece in (*pieces, *languages)) and len(pieces) <= MAX_PIECES
            if not whole or not all(
                type(n) is int and 0 <= n < MAX_PIECES * 2 for ids in allowed.values() for n in ids
            ):
                raise ValueError("of other types than expected")
            return cls(pieces, languages, allowed)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecurError(f"{source}: no pieces of words ({error}); {again}") from error

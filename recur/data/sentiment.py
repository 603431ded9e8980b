"""Words, phrases and labels of texts that say whether something is good or bad.

A text is read as a line of tokens. In spaced scripts a token is a word in lower case, with English contractions apart
(`doesn't` -> `does n't`), in unspaced ones a character. Exclamation and question marks, emoticons and pictures such
as ❤ are tokens too; other punctuation is dropped.

N-grams (of one or two tokens) are known by a number only, a hash of `BITS` bits, so that no list of them is needed
(Weinberger et al. 2009).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.data.text import UNSPACED, is_unspaced

BITS: Final = 20
WINDOW: Final = 128  # tokens that the network reads at a time
ORDERS: Final = 2  # n-grams of so many tokens at most
LANGUAGE_TOKENS: Final = 500  # from which the language of a text is told
_PIECE: Final = 1 << 16  # characters that are normalised at a time

_CHARACTERS: Final = "".join(f"{chr(low)}-{chr(high)}" for low, high in UNSPACED)
_LETTER: Final = rf"[^\W_{_CHARACTERS}]"
_TOKEN: Final = re.compile(
    rf"[{_CHARACTERS}]"
    rf"|{_LETTER}{{1,64}}?(?=n't(?!{_LETTER}))|n't(?!{_LETTER})|'(?:s|re|ve|ll|d|m)(?!{_LETTER})"
    rf"|{_LETTER}{{1,64}}"  # so that a line without spaces is no single word of megabytes
    r"|[!?]|[:;=]-?[)(dp](?!\w)"
    "|[\u2600-\u27bf\U0001f300-\U0001faff]"
)
_MARKUP: Final = re.compile(r"<br ?/?>")
_QUOTES: Final = str.maketrans("\u2018\u2019\u02bc\u00b4`", "'''''")
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def tokens(text: str) -> Iterator[str]:
    """The tokens of a text of any length, as they are needed."""
    for piece in _pieces(text):
        plain = piece.translate(_QUOTES).lower()
        if not plain.isascii():
            plain = unicodedata.normalize("NFKC", plain).lower()
        if "<" in plain:
            plain = _MARKUP.sub(" ", plain)
        yield from _TOKEN.findall(plain)


def _pieces(text: str) -> Iterator[str]:
    """Parts of a long text, cut at white space where there is any."""
    at = 0
    while len(text) - at > _PIECE:
        cut = max(text.rfind(" ", at, at + _PIECE), text.rfind("\n", at, at + _PIECE))
        stop = cut if cut > at else at + _PIECE
        yield text[at:stop]
        at = stop
    yield text[at:]


def language_of(words: Sequence[str]) -> str:
    """`zh` where at least a third of the first tokens are characters of an unspaced script, else `en`."""
    some = words[:LANGUAGE_TOKENS]
    return "zh" if some and 3 * sum(map(is_character, some)) >= len(some) else "en"


@lru_cache(maxsize=1 << 16)
def is_character(token: str) -> bool:
    """Whether a token is one character of an unspaced script."""
    return len(token) == 1 and is_unspaced(token)


@lru_cache(maxsize=1 << 18)
def _number(token: str) -> int:
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) | 1 << 32


def ngrams(words: Sequence[str]) -> NDArray[np.int64]:
    """The buckets [N] of all n-grams of a line of tokens, each once, in rising order."""
    if not words:
        return np.zeros(0, np.int64)
    return np.unique(np.concatenate(placed_ngrams(words)))


def placed_ngrams(words: Sequence[str]) -> list[NDArray[np.int64]]:
    """The bucket of the n-gram that begins at each token: one array for each n, of which each is one shorter."""
    numbers = np.fromiter(map(_number, words), np.uint64, len(words))
    total, found = numbers, []
    for order in range(min(ORDERS, len(words))):
        if order:
            total = (total[:-1] * _SECOND) ^ numbers[order:]
        mixed = total * _FIRST
        mixed ^= mixed >> np.uint64(29)
        mixed *= _SECOND
        found.append((mixed >> np.uint64(64 - BITS)).astype(np.int64))
    return found

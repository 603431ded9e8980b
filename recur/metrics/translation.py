"""BLEU and chrF of translations, equal to what sacreBLEU computes (Papineni et al. 2002; Popović 2015; Post 2018).

BLEU counts n-grams of 1 to 4 tokens of the whole corpus; where none of a length is right, half of one is, then a
quarter (NIST's smoothing, `exp`). Tokens are cut as by mteval-v13a, or are single characters. chrF is the F-score,
recall counting twice, of n-grams of 1 to 6 characters without white space.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

Cut = Literal["13a", "char"]
ORDERS: Final = 4
CHARACTERS: Final = 6
_RULES: Final = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),  # signs
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),  # a full stop or comma, unless a digit precedes it
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),  # likewise, unless a digit follows
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),  # a dash after a digit
)
_ENTITIES: Final = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def cut_tokens(text: str, cut: Cut = "13a") -> list[str]:
    """The tokens that BLEU counts."""
    if cut == "char":
        return [char for char in text.strip() if not char.isspace()]
    line = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, char in _ENTITIES:
        line = line.replace(entity, char)
    line = f" {line} "
    for pattern, spaced in _RULES:
        line = pattern.sub(spaced, line)
    return line.split()


def bleu(candidates: Sequence[str], references: Sequence[str], *, lower: bool = True, cut: Cut = "13a") -> float:
    """Corpus BLEU from 0 to 100, with one reference each. Errors: ValueError for different numbers of them."""
    _check(candidates, references)
    matched, total = [0] * ORDERS, [0] * ORDERS
    length = wanted = 0
    for candidate, reference in zip(candidates, references, strict=True):
        if lower:
            candidate, reference = candidate.lower(), reference.lower()
        words, truth = cut_tokens(candidate.rstrip(), cut), cut_tokens(reference.rstrip(), cut)
        length += len(words)
        wanted += len(truth)
        for order in range(1, ORDERS + 1):
            got, right = _grams(words, order), _grams(truth, order)
            matched[order - 1] += sum((got & right).values())
            total[order - 1] += max(len(words) - order + 1, 0)
    if not matched[0] or not all(total):
        return 0.0
    smooth, logs = 1.0, 0.0
    for right_ones, all_ones in zip(matched, total, strict=True):
        if not right_ones:
            smooth *= 2
        logs += math.log(100 * right_ones / all_ones if right_ones else 100 / (smooth * all_ones))
    brevity = 1.0 if length >= wanted else math.exp(1 - wanted / length)
    return brevity * math.exp(logs / ORDERS)


def chrf(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF2 from 0 to 100, with one reference each. Errors: ValueError for different numbers of them."""
    _check(candidates, references)
    counts = [[0, 0, 0] for _ in range(CHARACTERS)]
    for candidate, reference in zip(candidates, references, strict=True):
        letters, truth = "".join(candidate.split()), "".join(reference.split())
        for order, entry in enumerate(counts, 1):
            got, right = _grams(letters, order), _grams(truth, order)
            # A sentence too short for the order counts only where the other is too, as in the published code.
            entry[0] += got.total() if right else 0
            entry[1] += right.total()
            entry[2] += (got & right).total()
    precision = recall = 0.0
    orders = 0
    for got_all, right_all, both in counts:
        if got_all and right_all:
            precision += both / got_all
            recall += both / right_all
            orders += 1
    if not orders:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def _grams(items: Sequence[str], order: int) -> Counter[Sequence[str]]:
    if isinstance(items, str):
        return Counter(items[at : at + order] for at in range(len(items) - order + 1))
    return Counter(tuple(items[at : at + order]) for at in range(len(items) - order + 1))


def _check(candidates: Sequence[str], references: Sequence[str]) -> None:
    if len(candidates) != len(references) or not candidates:
        raise ValueError(f"{len(candidates)} candidates, {len(references)} references; give as many, one at least")

"""Scores of captions: corpus BLEU-1..4, ROUGE-L and CIDEr-D, in plain Python and NumPy.

Every function takes tokens, not text, and returns the corpus score and the score of each picture.
The constants (and the corner cases, such as an empty caption) are those of the COCO caption evaluation code, so the
numbers can be put next to published ones.

Sources: Papineni et al. 2002 (BLEU); Lin 2004 (ROUGE-L); Vedantam, Zitnick and Parikh 2015 (CIDEr, CIDEr-D).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Token = Hashable
NGram = tuple[Token, ...]
References = Sequence[Sequence[Sequence[Token]]]  # [N][references of a picture][tokens]
Candidates = Sequence[Sequence[Token]]  # [N][tokens]

MAX_ORDER = 4  # BLEU and CIDEr-D both count runs of one to four tokens
_BLEU_TINY, _BLEU_SMALL = 1e-15, 1e-9  # added to numerators and denominators, as the COCO code does
_ROUGE_BETA = 1.2  # weight of recall over precision
_CIDER_SIGMA = 6.0  # width, in tokens, of the length penalty
_CIDER_SCALE = 10.0


def _ngrams(tokens: Sequence[Token], order: int) -> Iterator[NGram]:
    """The runs of `order` tokens, from left to right."""
    return zip(*(tokens[start:] for start in range(order)), strict=False)


def _check(references: References, candidates: Candidates) -> None:
    if len(references) != len(candidates):
        raise ValueError(f"got {len(candidates)} candidates for {len(references)} pictures; give one candidate each")
    if not len(references):
        raise ValueError("got no pictures; give at least one")
    for picture, captions in enumerate(references):
        if not len(captions):
            raise ValueError(f"picture {picture} has no reference; give at least one")


def bleu(references: References, candidates: Candidates) -> tuple[tuple[float, float, float, float], Floats]:
    """Corpus BLEU-1..4 with the closest reference length: ((BLEU-1, .., BLEU-4), score of each picture [N, 4]).

    Clipped counts and lengths are summed over the corpus before the geometric mean is taken. Of two references equally
    close to the candidate's length the shorter counts. Each score is between 0 and 1. Raises ValueError for unequal
    lengths, no picture, or a picture without a reference.
    """
    _check(references, candidates)
    correct = np.zeros((len(candidates), MAX_ORDER))
    guessed = np.zeros((len(candidates), MAX_ORDER))
    lengths = np.zeros((len(candidates), 2))  # candidate, closest reference
    for place, (captions, tokens) in enumerate(zip(references, candidates, strict=True)):
        size = len(tokens)
        lengths[place] = size, min((abs(len(caption) - size), len(caption)) for caption in captions)[1]
        for order in range(1, MAX_ORDER + 1):
            most: Counter[NGram] = Counter()
            for caption in captions:
                most |= Counter(_ngrams(caption, order))
            counts = Counter(_ngrams(tokens, order))
            correct[place, order - 1] = sum((counts & most).values())
            guessed[place, order - 1] = max(0, size - order + 1)
    corpus = _bleu(correct.sum(axis=0), guessed.sum(axis=0), lengths.sum(axis=0))
    one, two, three, four = (float(value) for value in corpus)
    return (one, two, three, four), _bleu(correct, guessed, lengths)


def _bleu(correct: Floats, guessed: Floats, lengths: Floats) -> Floats:
    """BLEU of every order [..., 4] from counts [..., 4] and lengths [..., 2] (candidate, reference)."""
    precisions = (correct + _BLEU_TINY) / (guessed + _BLEU_SMALL)
    means: Floats = np.cumprod(precisions, axis=-1) ** (1.0 / np.arange(1, MAX_ORDER + 1))
    ratio = (lengths[..., :1] + _BLEU_TINY) / (lengths[..., 1:] + _BLEU_SMALL)
    brevity: Floats = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return means * brevity


def rouge_l(references: References, candidates: Candidates) -> tuple[float, Floats]:
    """ROUGE-L with beta 1.2: (mean, score of each picture [N]), between 0 and 1.

    From the longest common subsequence with each reference, the best precision and the best recall (not necessarily of
    the same reference) make F = (1 + beta^2) P R / (R + beta^2 P). An empty caption equals an empty reference. Raises
    ValueError for unequal lengths, no picture, or a picture without a reference.
    """
    _check(references, candidates)
    scores = np.zeros(len(candidates))
    weight = _ROUGE_BETA**2
    for place, (captions, tokens) in enumerate(zip(references, candidates, strict=True)):
        # COCO's code splits an empty caption into one empty word
        candidate = list(tokens) or [""]
        precision = recall = 0.0
        for caption in captions:
            reference = list(caption) or [""]
            common = _common_subsequence(candidate, reference)
            precision = max(precision, common / len(candidate))
            recall = max(recall, common / len(reference))
        if precision and recall:
            scores[place] = (1 + weight) * precision * recall / (recall + weight * precision)
    return float(scores.mean()), scores


def _common_subsequence(first: Sequence[Token], second: Sequence[Token]) -> int:
    """Length of the longest common subsequence, row by row."""
    row = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for place, other in enumerate(second, start=1):
            above = row[place]
            row[place] = diagonal + 1 if token == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


class CiderD:
    """CIDEr-D against a fixed set of references; document frequencies and norms are computed once.

    references: [N][references of a picture][tokens]; a token is anything hashable (a word, or its id). When END is part
    of the references and of the candidates it counts like any word, which is what self-critical training wants.

    For a run of tokens g of order n with document frequency d(g) (in how many pictures a reference has it), the weight
    is count(g) * log(N / max(1, d(g))). A candidate's vector is clipped at the reference's, their cosine is damped by
    exp(-(difference of length)^2 / (2 * 6^2)), averaged over the references and n = 1..4, and multiplied by 10.
    The logarithm factors out of clipping and product, so a reference is stored as bare counts.

    Raises ValueError when there is no picture, or one without a reference.
    """

    def __init__(self, references: References) -> None:
        _check(references, [()] * len(references))
        self._unseen = math.log(len(references)) ** 2
        keys: dict[NGram, NGram] = {}  # one object for each distinct run, shared by all pictures
        patterns: dict[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]] = {}
        documents: Counter[NGram] = Counter()
        # for each picture and order: run -> ((reference, count), ...)
        self._postings: list[list[dict[NGram, tuple[tuple[int, int], ...]]]] = []
        for captions in references:
            orders: list[dict[NGram, tuple[tuple[int, int], ...]]] = []
            for order in range(1, MAX_ORDER + 1):
                found: dict[NGram, list[tuple[int, int]]] = {}
                for number, tokens in enumerate(captions):
                    for run, count in Counter(_ngrams(tokens, order)).items():
                        found.setdefault(keys.setdefault(run, run), []).append((number, count))
                documents.update(found.keys())
                orders.append({run: patterns.setdefault(tuple(at), tuple(at)) for run, at in found.items()})
            self._postings.append(orders)
        # only squares of log(N / d) are needed, by clipping, product and norm alike
        log_of = [0.0] + [math.log(count) for count in range(1, max(documents.values(), default=0) + 1)]
        log_n = math.log(len(references))
        self._squares: dict[NGram, float] = {run: (log_n - log_of[count]) ** 2 for run, count in documents.items()}
        # bigrams of each reference (the length that COCO's code compares) and 1 / (norm * references * orders)
        self._lengths = [[max(len(tokens) - 1, 0) for tokens in captions] for captions in references]
        self._scales: list[list[list[float]]] = []
        for orders, captions in zip(self._postings, references, strict=True):
            share = _CIDER_SCALE / (MAX_ORDER * len(captions))
            scales = []
            for postings in orders:
                sums = [0.0] * len(captions)
                for run, pattern in postings.items():
                    square = self._squares[run]
                    for number, count in pattern:
                        sums[number] += square * count * count
                scales.append([share / math.sqrt(total) if total > 0 else 0.0 for total in sums])
            self._scales.append(scales)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._postings)

    def score(self, candidates: Candidates, pictures: Sequence[int]) -> Floats:
        """The CIDEr-D [N] of each candidate (tokens) against the references of the picture of that number.

        The same picture may come many times, in any order. Raises ValueError for unequal lengths, IndexError for a
        picture that is not there.
        """
        if len(candidates) != len(pictures):
            raise ValueError(f"got {len(candidates)} candidates and {len(pictures)} pictures; give one picture each")
        scores = np.empty(len(candidates), dtype=np.float64)
        for place, (tokens, picture) in enumerate(zip(candidates, pictures, strict=True)):
            scores[place] = self._score(tokens, int(picture))
        return scores

    def _score(self, tokens: Sequence[Token], picture: int) -> float:
        length = max(len(tokens) - 1, 0)
        damping = [math.exp(-((length - other) ** 2) / (2 * _CIDER_SIGMA**2)) for other in self._lengths[picture]]
        square_of, unseen, total = self._squares.get, self._unseen, 0.0
        for order, (postings, scales) in enumerate(
            zip(self._postings[picture], self._scales[picture], strict=True), start=1
        ):
            if len(tokens) < order:
                break
            counts: dict[NGram, int] = {}
            for run in _ngrams(tokens, order):
                counts[run] = counts.get(run, 0) + 1
            norm, dot = 0.0, [0.0] * len(scales)
            for run, count in counts.items():
                square = square_of(run, unseen)
                norm += square * count * count
                pattern = postings.get(run)
                if pattern is not None:
                    for number, other in pattern:
                        dot[number] += square * (count if count < other else other) * other
            if norm > 0.0:
                cosines = sum(value * scale * damp for value, scale, damp in zip(dot, scales, damping, strict=True))
                total += cosines / math.sqrt(norm)
        return total


def cider_d(references: References, candidates: Candidates) -> tuple[float, Floats]:
    """CIDEr-D, n = 1..4, sigma 6, document frequencies from the references given: (mean, score of each picture [N]).

    Between 0 and 10 (published numbers are often multiplied by 100). A single picture scores 0, since every run of
    tokens is then in all pictures. Raises ValueError for unequal lengths, no picture, or a picture without reference.
    """
    _check(references, candidates)
    scores = CiderD(references).score(candidates, range(len(candidates)))
    return float(scores.mean()), scores

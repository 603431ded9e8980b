"""Is a text good or bad? With a probability that can be believed, and what each word had to do with it.

>>> classifier = recur.load("sentiment")
>>> classifier(["a stirring, funny film", "房间很脏"])  # doctest: +SKIP

B texts, N windows, T tokens of a window, E embedding, H hidden units of a direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, BundleError
from recur.data.ahead import as_they_come
from recur.data.lines import Line, groups
from recur.data.sentiment import LANGUAGE_TOKENS, ORDERS, language_of, placed_ngrams, tokens
from recur.data.text import UNK
from recur.engine.native import Stack
from recur.engine.reference import Cell
from recur.errors import InputError
from recur.predict.voice import calibrated, precision_of

EXPLAINED: Final = 1000  # tokens of the longest text whose words are weighed one by one
GROUP: Final = 64  # windows that are computed together
FEATURES: Final = ("network", "wide", "network_short", "wide_short")

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sentiment:
    """What the model says about one text.

    `probability` is that of `label`, calibrated: of texts with this probability, about that share has this label.
    `words`, when asked for, are the text's tokens, each with how far it moves the log-odds of the second label (`pos`):
    the difference to the text in which it is unknown. `running` are the tokens with the probability of the second
    label after each. Both are empty for texts of more than 1,000 tokens.
    """

    text: str
    label: str
    probability: float
    language: str
    words: tuple[tuple[str, float], ...]
    model: str
    running: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One plain object, ready for `json.dumps`."""
        found: dict[str, Any] = {
            "text": self.text,
            "label": self.label,
            "probability": round(self.probability, 4),
            "language": self.language,
            "words": [[word, round(weight, 4)] for word, weight in self.words],
            "model": self.model,
        }
        if self.running:
            found["running"] = [[word, round(probability, 4)] for word, probability in self.running]
        return found


class _Pooled:
    """The greatest and the summed value of each of `size` = 2H units so far, over `count` tokens."""

    def __init__(self, size: int) -> None:
        self.most: Floats = np.full(size, -1, np.float32)  # no unit is ever below
        self.total = np.zeros(size)
        self.count = 0

    def add(self, states: Floats) -> None:
        """The states [T, 2H] of further tokens."""
        self.join(states.max(axis=0), states.sum(axis=0, dtype=np.float64), len(states))

    def join(self, most: Floats, total: NDArray[np.float64], count: int) -> None:
        """What another part of the text amounts to."""
        self.most = np.maximum(self.most, most)
        self.total = self.total + total
        self.count += count


class _Grams:
    """The n-grams of a text that comes in parts, each once; memory does not grow beyond that of all buckets."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self._before: tuple[str, ...] = ()
        self._parts: list[Ids] = []

    def add(self, words: Sequence[str]) -> None:
        """The next tokens."""
        if len(self.first) < LANGUAGE_TOKENS:
            self.first += words[: LANGUAGE_TOKENS - len(self.first)]
        # Those of the tokens before come again and are counted once all the same.
        line = (*self._before, *words)
        self._parts += placed_ngrams(line)
        self._before = line[-(ORDERS - 1) :]
        if len(self._parts) > 64:
            self._parts = [self.buckets()]

    def buckets(self) -> Ids:
        """All of them, in rising order."""
        return np.unique(np.concatenate(self._parts)) if self._parts else np.zeros(0, np.int64)


class SentimentClassifier:
    """Judges texts with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Errors: BundleError when the bundle is for something else."""
        if bundle.task != "sentiment":
            raise BundleError(
                f"{bundle.path}: a model for {bundle.task!r}; expected one for 'sentiment'; choose another"
            )
        self.bundle, self.name, meta = bundle, bundle.name, bundle.meta
        self.languages: tuple[str, ...] = tuple(meta["languages"])
        self.labels: tuple[str, str] = tuple(meta["labels"])
        self.window = int(meta["window"])
        weights = bundle.weights
        self._ids = {word: number for number, word in enumerate(bundle.vocabulary().tokens)}
        self._embedding = weights["embedding.weight"]
        self._stack = Stack(
            {name.removeprefix("rnn."): value for name, value in weights.items() if name.startswith("rnn.")},
            cell=cast(Cell, meta["cell"]),
            bidirectional=True,
            precision=precision_of(bundle),
            threads=threads,
        )
        self._head, self._bias = weights["head.weight"][0].astype(np.float64), float(weights["head.bias"][0])
        self._wide = weights["wide.weight"].reshape(len(self.languages), -1)  # [languages, buckets]
        self._wide_bias = weights["wide.bias"]
        self._calibration = meta.get("calibration") or {}

    def __call__(
        self, texts: str | Iterable[str], *, batch: int = 32, words: bool = True, running: bool = False
    ) -> list[Sentiment]:
        """What is thought of each text, or of a single one. Errors: InputError for the first that has no words."""
        given = groups([texts] if isinstance(texts, str) else texts, batch)
        return [_good(result) for result in self._results(given, words, running)]

    def stream(
        self,
        texts: Iterable[str | Line | InputError],
        *,
        batch: int = 32,
        words: bool = True,
        running: bool = False,
    ) -> Iterator[Sentiment | InputError]:
        """Results in the order of the texts, as they are ready; one that fails gives its InputError.

        `texts` is iterated in a thread of its own, two batches ahead at most; when it is slow (a pipe), what it gave is
        not kept waiting. What is computed from a text takes the same memory however long it is.
        """
        return self._results(as_they_come(texts, batch, name="recur-texts"), words, running)

    def _results(
        self, batches: Iterable[Sequence[str | Line | InputError]], words: bool, running: bool
    ) -> Iterator[Sentiment | InputError]:
        place = 0
        for group in batches:
            ready = [_named(item, place + number) for number, item in enumerate(group, 1)]
            place += len(group)
            features = iter(self._features([line.text for line in ready if isinstance(line, Line)]))
            for line in ready:
                if isinstance(line, InputError):
                    yield line
                    continue
                language, found = next(features)
                if found is None:
                    yield InputError(line.where, "no word in it", "give some words")
                else:
                    yield self._result(line.text, language, found, words, running)

    def judge(self, texts: Sequence[str]) -> list[tuple[str, float] | None]:
        """Language of each text and the probability of the second label; None for texts without a word."""
        return [
            None if found is None else (language, self._calibrated(language, found))
            for language, found in self._features(texts)
        ]

    def features(self, texts: Sequence[str]) -> list[tuple[str, dict[str, float]] | None]:
        """Language and `FEATURES` of each text, which the calibration weighs; None for texts without a word."""
        return [None if found is None else (language, found) for language, found in self._features(texts)]

    # ------------------------------------------------------------------------------------------------------- inside

    def _result(self, text: str, language: str, found: dict[str, float], words: bool, running: bool) -> Sentiment:
        probability = self._calibrated(language, found)
        second = probability >= 0.5
        result = Sentiment(
            text=text,
            label=self.labels[second],
            probability=probability if second else 1 - probability,
            language=language,
            words=(),
            model=self.name,
        )
        if words or running:
            read = list(islice(tokens(text), EXPLAINED + 1))
            if len(read) <= EXPLAINED:
                if words:
                    result = replace(result, words=tuple(zip(read, self._occluded(read, language), strict=True)))
                if running:
                    result = replace(result, running=tuple(zip(read, self._running(read), strict=True)))
        return result

    def _calibrated(self, language: str, found: dict[str, float]) -> float:
        return calibrated(self._entry(language), found)

    def _entry(self, language: str) -> dict[str, Any]:
        """The calibration of a language, or of the first one where the model does not know it."""
        plain = {"features": ["network"], "weights": [1.0], "bias": 0.0}
        return cast(
            dict[str, Any],
            self._calibration.get(language) or self._calibration.get(self.languages[0]) or plain,
        )

    def _combined(self, language: str, network: float, wide: float, length: int) -> dict[str, float]:
        short = length**-0.5
        return dict(zip(FEATURES, (network, wide, network * short, wide * short), strict=True))

    def _features(self, texts: Sequence[str]) -> list[tuple[str, dict[str, float] | None]]:
        found: list[tuple[str, dict[str, float] | None]] = []
        pooled = [_Pooled(len(self._head) // 2) for _ in texts]
        wide = []
        waiting: list[tuple[int, Ids]] = []
        for place, text in enumerate(texts):
            grams = _Grams()
            for read in groups(tokens(text), self.window):
                waiting.append((place, self._numbers(read)))
                grams.add(read)
                if len(waiting) == GROUP:
                    self._read(waiting, pooled)
                    waiting = []
            wide.append(grams)
        if waiting:
            self._read(waiting, pooled)
        for each, grams in zip(pooled, wide, strict=True):
            language = language_of(grams.first)
            if not each.count:
                found.append((language, None))
            else:
                logits = self._logit(each), self._wide_logit(language, grams.buckets())
                found.append((language, self._combined(language, *logits, each.count)))
        return found

    def _numbers(self, words: Sequence[str]) -> Ids:
        return np.fromiter((self._ids.get(word, UNK) for word in words), np.int64, len(words))

    def _scan(self, windows: Sequence[Ids]) -> tuple[Floats, Ids]:
        """States [N, T, 2H] of windows of different lengths [N]."""
        lengths = np.array([len(each) for each in windows])
        ids = np.zeros((len(windows), int(lengths.max())), np.int64)
        for row, each in zip(ids, windows, strict=True):
            row[: len(each)] = each
        return self._stack.scan(self._embedding[ids], lengths=lengths).outputs, lengths

    def _read(self, waiting: Sequence[tuple[int, Ids]], pooled: Sequence[_Pooled]) -> None:
        states, lengths = self._scan([ids for _, ids in waiting])
        for (place, _), state, length in zip(waiting, states, lengths.tolist(), strict=True):
            pooled[place].add(state[:length])

    def _logit(self, pooled: _Pooled) -> float:
        size = len(pooled.total)
        mean = pooled.total / pooled.count
        return float(pooled.most @ self._head[:size] + mean @ self._head[size:] + self._bias)

    def _wide_logit(self, language: str, buckets: Ids) -> float:
        row = self.languages.index(language) if language in self.languages else 0
        return float(self._wide_bias[row] + self._wide[row, buckets].sum() / max(len(buckets), 1) ** 0.5)

    # -------------------------------------------------------------------------------------------------- explanation

    def _variants(self, words: Sequence[str], variants: Sequence[tuple[int, Ids]], *, later: bool) -> Iterator[_Pooled]:
        """The text with one window replaced, for each (its number, its tokens); it ends there unless `later`."""
        windows = [self._numbers(each) for each in groups(words, self.window)]
        states, lengths = self._scan(windows)
        size = len(self._head) // 2
        parts = []
        for state, length in zip(states, lengths.tolist(), strict=True):
            parts.append(_Pooled(size))
            parts[-1].add(state[:length])
        for group in groups(variants, GROUP):
            states, lengths = self._scan([ids for _, ids in group])
            for (number, _), state, length in zip(group, states, lengths.tolist(), strict=True):
                whole = _Pooled(size)
                whole.add(state[:length])
                for place, part in enumerate(parts):
                    if place < number or (later and place > number):
                        whole.join(part.most, part.total, part.count)
                yield whole

    def _occluded(self, words: Sequence[str], language: str) -> list[float]:
        """By how much each word moves the log-odds: the text as it is, less the text in which the word is unknown."""
        variants: list[tuple[int, Ids]] = []
        for number, read in enumerate(groups(words, self.window)):
            ids = self._numbers(read)
            for place in range(len(read)):
                other = ids.copy()
                other[place] = UNK
                variants.append((number, other))
        grams = placed_ngrams(words)
        counts = Counter(bucket for each in grams for bucket in each.tolist())
        everything = np.array(sorted(counts), np.int64)
        length = len(words)
        # The text as it is comes last: it goes through the same arithmetic as the others.
        last = self._numbers(words[length - (length - 1) % self.window - 1 :])
        variants.append(((length - 1) // self.window, last))
        odds: list[float] = []
        for place, pooled in enumerate(self._variants(words, variants, later=True)):
            kept = everything
            if place < length:
                touched = Counter(
                    each[at].item()
                    for order, each in enumerate(grams)
                    for at in range(max(0, place - order), min(place, len(each) - 1) + 1)
                )
                gone = [bucket for bucket, times in touched.items() if times >= counts[bucket]]
                kept = everything[~np.isin(everything, gone)]
            logits = self._logit(pooled), self._wide_logit(language, kept)
            odds.append(self._log_odds(language, self._combined(language, *logits, length)))
        return [odds[-1] - each for each in odds[:-1]]

    def _log_odds(self, language: str, found: dict[str, float]) -> float:
        entry = self._entry(language)
        pairs = zip(entry["features"], entry["weights"], strict=True)
        return float(entry["bias"]) + sum(float(weight) * found[name] for name, weight in pairs)

    def _running(self, words: Sequence[str]) -> list[float]:
        """The probability of the second label after each word, of the text up to there."""
        variants: list[tuple[int, Ids]] = []
        for number, read in enumerate(groups(words, self.window)):
            ids = self._numbers(read)
            variants += [(number, ids[:stop]) for stop in range(1, len(ids) + 1)]
        language = language_of(words)
        grams = _Grams()
        found: list[float] = []
        for stop, pooled in enumerate(self._variants(words, variants, later=False), 1):
            grams.add(words[stop - 1 : stop])
            logits = self._logit(pooled), self._wide_logit(language, grams.buckets())
            found.append(self._calibrated(language, self._combined(language, *logits, stop)))
        return found


def _good(result: Sentiment | InputError) -> Sentiment:
    if isinstance(result, InputError):
        raise result
    return result


def _named(item: str | Line | InputError, place: int) -> Line | InputError:
    """A text with where it is from."""
    return Line(f"text {place}", item) if isinstance(item, str) else item

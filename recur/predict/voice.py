"""One language of a captioner: its decoder, how it is searched, and how sure a result is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast, get_args

import numpy as np

from recur.bundle import Bundle, BundleError
from recur.bundle.consensus import PREFIX
from recur.data.text import END, Vocabulary
from recur.engine import core
from recur.engine.decoder import CaptionDecoder
from recur.engine.hypotheses import Hypothesis
from recur.engine.native import Decoder, Precision
from recur.engine.reference import Array, Cell, IntArray
from recur.engine.search import beam_search, search_features
from recur.errors import RecurError
from recur.predict.consensus import Consensus, consensus_of

AGREEMENT = "agreement"  # among what a calibration reads: how well a sentence fits what people are likely to say
END_WORD = "<end>"  # among the alternatives: the sentence could have ended here


@dataclass(frozen=True)
class Voice:
    """One language, ready to be searched: V words by place, END included.

    `decoder` is the compiled core's, or the NumPy one where the core is not there; `ids` [V] are the words' ids in the
    vocabulary, in rising order, `start` is that of the language token.
    """

    language: str
    decoder: Decoder | CaptionDecoder
    ids: IntArray
    start: int
    words: tuple[str, ...]  # [V]
    calibration: Mapping[str, Any] | None
    beam: int
    limits: Mapping[str, Any]  # keyword arguments of the search
    may_repeat: frozenset[int] | None = None  # places of the words that may come twice in a sentence, all when None
    consensus: Consensus | None = None

    def search(self, features: Array, beam: int, n_best: int) -> list[tuple[Hypothesis, ...]]:
        """The best hypotheses of pictures, features [B, R, F]; tokens are places in `words`.

        All of the beam are put into order before the best are taken: those that say a thing twice ("a crowd of people
        in a crowd") come last, and where the bundle has a second opinion, it decides among the others.
        """
        if self.may_repeat is None and self.consensus is None:
            return self._search(features, beam, n_best)
        found = self.ordered(features, self._search(features, beam, max(beam, n_best)))
        return [several[:n_best] for several in found]

    def ordered(self, features: Array, found: Sequence[tuple[Hypothesis, ...]]) -> list[tuple[Hypothesis, ...]]:
        """What a search found in pictures with features [B, R, F], the best first as `search` orders it."""
        scores = [[0.0] * len(each) for each in found]
        if self.consensus is not None and any(len(each) > 1 for each in found):
            scores = self.consensus.scores(features, found)
        out = []
        for several, marks in zip(found, scores, strict=True):
            rank = [(self.repeats(each.tokens.tolist()), -mark) for each, mark in zip(several, marks, strict=True)]
            out.append(tuple(several[place] for place in sorted(range(len(several)), key=rank.__getitem__)))
        return out

    def repeats(self, places: Sequence[int]) -> bool:
        """Whether a word comes twice that people say once in a sentence, of places in `words`."""
        if self.may_repeat is None or len({*places}) == len(places):
            return False
        kept = [place for place in places if place not in self.may_repeat]
        return len({*kept}) < len(kept)

    def _search(self, features: Array, beam: int, n_best: int) -> list[tuple[Hypothesis, ...]]:
        if isinstance(self.decoder, CaptionDecoder):
            step, first = self.decoder.start(features)
            return beam_search(step, first, end=self.decoder.end, beam=beam, n_best=n_best, **self.limits)
        limits = {**self.limits, "no_end_after": [int(self.ids[place]) for place in self.limits["no_end_after"]]}
        prompt = np.full((len(features), 1), self.start)
        try:
            found = self.decoder.beam_search(features, prompt=prompt, end=END, beam=beam, n_best=n_best, **limits)
        except ValueError as error:  # features or scores that are not finite: the model's fault, not the caller's
            raise RecurError(
                f"the model cannot be searched ({error}); choose another model, or train it again"
            ) from error
        return [tuple(map(self.by_place, each)) for each in found]

    def by_place(self, found: Hypothesis) -> Hypothesis:
        """What the core's decoder found, its ids turned into places in `words`."""
        return replace(found, tokens=self._places[found.tokens], alternatives=self._places[found.alternatives])

    @cached_property
    def _places(self) -> IntArray:
        """The place of each id of the vocabulary up to the highest that is a word; what lies between means nothing."""
        places = np.zeros(int(self.ids[-1]) + 1, np.int64)
        places[self.ids] = np.arange(len(self.ids))
        return places

    def search_with_runner_up(self, features: Array, beam: int, n_best: int) -> list[tuple[Hypothesis, ...]]:
        """As `search`, but two hypotheses at least: the confidence may need to know how far behind the second one is.

        A beam of 1 finds no second one, and the confidence would not be the one that was calibrated: then a beam of 2
        looks for it.
        """
        found = self.search(features, beam, max(n_best, min(beam, 2)))
        if beam > 1 or self.calibration is None or "margin" not in self.calibration["features"]:
            return found
        return [
            (best, *[other for other in others if not np.array_equal(other.tokens, best.tokens)][:1])
            for (best,), others in zip(found, self.search(features, 2, 2), strict=True)
        ]

    def confidences(self, found: Sequence[Sequence[Hypothesis]], features: Array) -> list[float | None]:
        """For each picture, with features [B, R, F], the calibrated probability that the first of its hypotheses is
        acceptable; None without calibration.
        """
        calibration = self.calibration
        if calibration is None:
            return [None] * len(found)
        return [calibrated(calibration, signs) for signs in self.signs(found, features)]

    def signs(self, found: Sequence[Sequence[Hypothesis]], features: Array) -> list[dict[str, float]]:
        """What tells how good the first hypothesis of each picture is: `search_features`, and what the second opinion
        says of it.
        """
        signs = [search_features(several) for several in found]
        if self.consensus is not None:
            agreement = self.consensus.agreement(features, [several[:1] for several in found])
            for each, (agreed,) in zip(signs, agreement, strict=True):
                each[AGREEMENT] = agreed
        return signs


def calibrated(calibration: Mapping[str, Any], features: Mapping[str, float]) -> float:
    """sigmoid(weights . features + bias): the share of captions with these `search_features` that are acceptable."""
    total = float(calibration["bias"])
    for name, weight in zip(calibration["features"], calibration["weights"], strict=True):
        total += float(weight) * features[name]
    return 0.5 * (math.tanh(0.5 * total) + 1)


def precision_of(bundle: Bundle) -> Precision:
    """The precision to compute a bundle's captions in: that of its weights, unless `RECUR_PRECISION` names another.

    Weights that were stored in 8 bits stay exactly what they are; only what they are multiplied with is rounded.
    Errors: RecurError for a name that is none.
    """
    wanted = os.environ.get("RECUR_PRECISION", "")
    names = get_args(Precision)
    if wanted and wanted not in names:
        raise RecurError(f"RECUR_PRECISION {wanted!r}; expected one of {', '.join(names)}; set one of them, or none")
    return cast(Precision, wanted or ("int8" if bundle.stored == "int8" else "float32"))


def _decoder(bundle: Bundle, ids: IntArray, start: int, network: Decoder | None) -> Decoder | CaptionDecoder:
    cell, layers = cast(Cell, bundle.meta["cell"]), int(bundle.meta["layers"])
    if network is not None:
        return network.with_words(ids)
    weights = {name: values for name, values in bundle.weights.items() if not name.startswith(PREFIX)}
    if core.chosen(None)[0] is None:
        return CaptionDecoder(weights, cell=cell, layers=layers, ids=ids, language=start, end=END)
    return Decoder(weights, cell=cell, layers=layers, words=ids, precision=precision_of(bundle))


def make_voice(bundle: Bundle, vocabulary: Vocabulary, language: str, like: Voice | None = None) -> Voice:
    """The voice of one language of a bundle; `like`, a voice of another one, shares its network.

    Errors: BundleError for settings that make no sense.
    """
    meta, decode = bundle.meta, bundle.meta["decode"]

    def setting(name: str, default: object) -> Any:
        value = decode.get(name, default)
        return value.get(language, default) if isinstance(value, dict) else value

    ids = np.flatnonzero(vocabulary.allowed(language))
    words = tuple(END_WORD if number == END else vocabulary.tokens[number] for number in ids)
    start = vocabulary.language_id(language)
    shared = None if like is None or isinstance(like.decoder, CaptionDecoder) else like.decoder
    decoder = _decoder(bundle, ids, start, shared)
    try:
        last = frozenset(setting("no_end_after", ()))
        calibration = meta.get("calibration", {}).get(language)
        limits: dict[str, Any] = {
            "max_length": int(setting("max_length", 24)),
            "min_length": int(setting("min_length", 1)),
            "length_penalty": float(setting("length_penalty", 0.0)),
            "no_repeat_ngram": int(setting("no_repeat_ngram", 0)),
            "no_end_after": [place for place, word in enumerate(words) if word in last],
        }
        beam = int(setting("beam", 5))
        repeatable = decode.get("may_repeat", {}).get(language)
        may_repeat = None
        if repeatable is not None:
            several = frozenset(repeatable)
            may_repeat = frozenset(place for place, word in enumerate(words) if word in several)
        consensus = consensus_of(bundle.weights, decode.get("consensus", {}), language, ids)
        if not (1 <= beam <= 1024 and 0 <= limits["min_length"] <= limits["max_length"] <= 1000):
            raise ValueError(f"beam {beam}, {limits}")
        if limits["length_penalty"] < 0 or limits["no_repeat_ngram"] < 0:
            raise ValueError(f"{limits}")
        if calibration is not None:
            names = {**search_features([_EXAMPLE]), **({} if consensus is None else {AGREEMENT: 0.0})}
            if not {*calibration["features"]} <= {*names}:
                raise ValueError(f"calibration on {calibration['features']}; expected some of {', '.join(names)}")
            if any(abs(float(number)) > 1e9 for number in (*calibration["weights"], calibration["bias"])):
                raise ValueError(f"calibration with {calibration['weights']}, {calibration['bias']}")
            calibrated(calibration, names)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{bundle.path}: 'decode' or 'calibration' make no sense ({error!r}); train again") from error
    return Voice(language, decoder, ids, start, words, calibration, beam, limits, may_repeat, consensus)


_EXAMPLE = Hypothesis(
    tokens=np.zeros(1, np.int64),
    log_probs=np.zeros(1),
    end_log_prob=0.0,
    log_prob=0.0,
    score=0.0,
    alternatives=np.zeros((1, 0), np.int64),
    alternative_probs=np.zeros((1, 0)),
    entropies=np.zeros(2),
    attention=None,
)

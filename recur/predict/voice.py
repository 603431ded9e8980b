"""One language of a captioner: its decoder, how it is searched, and how sure a result is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from recur.bundle import Bundle, BundleError
from recur.data.text import END, Vocabulary
from recur.engine.decoder import CaptionDecoder
from recur.engine.reference import Array, Cell
from recur.engine.search import Hypothesis, beam_search, search_features

END_WORD = "<end>"  # among the alternatives: the sentence could have ended here


@dataclass(frozen=True)
class Voice:
    """One language, ready to be searched: V words by place, END included."""

    language: str
    decoder: CaptionDecoder
    words: tuple[str, ...]  # [V]
    calibration: Mapping[str, Any] | None
    beam: int
    limits: Mapping[str, Any]  # keyword arguments of the search

    def search(self, features: Array, beam: int, n_best: int) -> list[tuple[Hypothesis, ...]]:
        """The best hypotheses of pictures, features [B, R, F]; tokens are places in `words`."""
        step, first = self.decoder.start(features)
        return beam_search(step, first, end=self.decoder.end, beam=beam, n_best=n_best, **self.limits)

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

    def confidence(self, hypotheses: Sequence[Hypothesis]) -> float | None:
        """The calibrated probability that the first of these is acceptable, None without calibration."""
        return None if self.calibration is None else calibrated(self.calibration, search_features(hypotheses))


def calibrated(calibration: Mapping[str, Any], features: Mapping[str, float]) -> float:
    """sigmoid(weights . features + bias): the share of captions with these `search_features` that are acceptable."""
    total = float(calibration["bias"])
    for name, weight in zip(calibration["features"], calibration["weights"], strict=True):
        total += float(weight) * features[name]
    return 0.5 * (math.tanh(0.5 * total) + 1)


def make_voice(bundle: Bundle, vocabulary: Vocabulary, language: str) -> Voice:
    """The voice of one language of a bundle. Errors: BundleError for settings that make no sense."""
    meta, decode = bundle.meta, bundle.meta["decode"]

    def setting(name: str, default: object) -> Any:
        value = decode.get(name, default)
        return value.get(language, default) if isinstance(value, dict) else value

    ids = np.flatnonzero(vocabulary.allowed(language))
    words = tuple(END_WORD if number == END else vocabulary.tokens[number] for number in ids)
    decoder = CaptionDecoder(
        bundle.weights,
        cell=cast(Cell, meta["cell"]),
        layers=int(meta["layers"]),
        ids=ids,
        language=vocabulary.language_id(language),
        end=END,
    )
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
        if not (1 <= beam <= 1024 and 0 <= limits["min_length"] <= limits["max_length"] <= 1000):
            raise ValueError(f"beam {beam}, {limits}")
        if limits["length_penalty"] < 0 or limits["no_repeat_ngram"] < 0:
            raise ValueError(f"{limits}")
        if calibration is not None:
            names = search_features([_EXAMPLE])
            if not {*calibration["features"]} <= {*names}:
                raise ValueError(f"calibration on {calibration['features']}; expected some of {', '.join(names)}")
            if any(abs(float(number)) > 1e9 for number in (*calibration["weights"], calibration["bias"])):
                raise ValueError(f"calibration with {calibration['weights']}, {calibration['bias']}")
            calibrated(calibration, names)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{bundle.path}: 'decode' or 'calibration' make no sense ({error!r}); train again") from error
    return Voice(language, decoder, words, calibration, beam, limits)


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

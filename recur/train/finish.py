"""From trained weights to a bundle one can trust: how to search, how sure to be, what was measured.

Everything here goes through the runtime, on the dev split: width and length penalty of the beam and its second opinion
(which is learned from the train split) are chosen by CIDEr-D and BLEU-4 together, the confidence is fitted and checked
by cross-validation, and the card and its plots are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, check_target, read_bundle, update_bundle, write_bundle
from recur.bundle.consensus import PREFIX
from recur.data.captions import read_captions
from recur.data.images import iterate_pictures
from recur.data.text import detokenize
from recur.engine.hypotheses import Hypothesis
from recur.engine.reference import Array
from recur.errors import InputError, RecurError
from recur.files import write_atomically
from recur.hub import resolve
from recur.metrics.calibration import (
    brier_score,
    cross_validate,
    expected_calibration_error,
    fit_logistic,
    risk_coverage,
    risk_coverage_area,
    sigmoid,
)
from recur.metrics.caption import bleu, cider_d
from recur.metrics.captions_report import evaluate_captions
from recur.predict.caption import Captioner
from recur.predict.consensus import consensus_of, pooled
from recur.predict.voice import AGREEMENT, Voice, make_voice
from recur.train.caption_data import Split, keep, make_split, repeatable_words
from recur.train.card import render_card
from recur.train.consensus import LENGTH, LOG_PROB, OTHERS, Tensors, fit_consensus, thinned
from recur.train.plot import plot_reliability, plot_training
from recur.train.team import is_first

PENALTIES = (0.0, 0.4, 0.8)
CALIBRATION_FEATURES = (
    "mean_log_prob",
    "min_log_prob",
    "mean_entropy",
    "max_entropy",
    "first_entropy",
    "margin",
    "length",
    AGREEMENT,
)
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HUMAN_QUANTILE = 0.25
FALLBACK_LEVEL = 0.3
FOLDS = 5
GAIN = 0.003  # of the score on dev, that a second opinion or a wider beam must bring to be kept
BEAMS = (5, 10)  # the wider one only where a second opinion makes more of it


def calibrate_bundle(
    *, model: str | Path, data: Path, out: Path, images: Path | None = None, language: str | None = None
) -> Path:
    """A captioner with its search chosen and its confidence fitted on `data`, written as the bundle `out` (which may be
    `model`); its networks stay as they are. Of several processes the first one does it.

    Raises RecurError when the data lacks a split or a language.
    """
    if not is_first():
        return out
    check_target(out)
    source = resolve(model)
    bundle = read_bundle(source, task="caption")
    train, dev = splits_for(bundle, data, images=images, language=language)
    update_bundle(source, {}, out=out)
    finish_bundle(out, train=train, dev=dev, log=bundle.meta.get("training", {}).get("log", []))
    return out


def splits_for(bundle: Bundle, data: Path, *, images: Path | None, language: str | None) -> tuple[Split, Split]:
    """Train and dev split of `data`, in the languages of a bundle. Errors: RecurError when something is missing."""
    found = read_captions(data, images=images, language=language)
    train, dev = make_split(found, "train"), make_split(found, "dev")
    missing = sorted({*bundle.meta["languages"]} - {*found.languages})
    if missing or not len(train) or not len(dev):
        what = f"no captions in {', '.join(missing)}" if missing else f"{len(train)} train and {len(dev)} dev pictures"
        raise RecurError(f"{data}: {what}; expected some of each, in the languages of {bundle.path}")
    return train, dev


def finish_bundle(path: Path, *, train: Split, dev: Split, log: Sequence[Mapping[str, Any]]) -> None:
    """Choose the search, calibrate the confidence, measure, and write card and plots of the bundle at `path`."""
    bundle = read_bundle(path, task="caption")
    captioner = Captioner(bundle)
    features, kept = look(captioner, dev)
    opinions = _opinions(bundle, captioner, train)
    weights = {name: value for name, value in bundle.weights.items() if not name.startswith(PREFIX)}
    vocabulary = bundle.vocabulary()
    twice = {lang: repeatable_words(train, vocabulary, lang) for lang in captioner.languages}
    decode: dict[str, Any] = {**bundle.meta["decode"], "may_repeat": twice, "consensus": {}}
    plain = replace(bundle, meta={**bundle.meta, "decode": decode, "calibration": {}})
    calibration: dict[str, Any] = {}
    results: dict[str, Any] = {}
    penalties: dict[str, float] = {}
    beams = dict.fromkeys(captioner.languages, BEAMS[0])
    curves: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
    for lang in captioner.languages:
        rows = [i for i, row in enumerate(kept) if dev.tokens[lang][row]]
        if not rows:
            continue
        references = [[list(words) for words in dev.tokens[lang][kept[i]]] for i in rows]
        seen = features[rows]
        voice = replace(make_voice(plain, vocabulary, lang), beam=BEAMS[0])
        by_penalty = [replace(voice, limits={**voice.limits, "length_penalty": each}) for each in PENALTIES]
        best = max((_Trial.of(each, seen, references) for each in by_penalty), key=lambda trial: trial.score)
        penalties[lang] = best.voice.limits["length_penalty"]
        if lang in opinions:
            tensors, rare = opinions[lang]
            entries = [
                {lang: {"rare": rare, "log_prob": log_prob, "others": others, "length": length}}
                for log_prob, others, length in product(LOG_PROB, OTHERS, LENGTH)
            ]
            several = [consensus_of(tensors, each, lang, voice.ids) for each in entries]
            for width in BEAMS:
                wide = replace(best.voice, beam=width, consensus=None)
                found = searched(wide, seen)
                trials = [_Trial.of(replace(wide, consensus=each), seen, references, found) for each in several]
                place = max(range(len(trials)), key=lambda each: (trials[each].score, each))
                if trials[place].score >= best.score + GAIN:
                    best = trials[place]
                    weights |= tensors
                    decode["consensus"] |= entries[place]
        beams[lang] = best.voice.beam
        words = best.words
        signs = best.voice.signs(best.found, seen)
        calibration[lang], curves[lang] = calibrate(signs, words, references)
        texts = [list(dev.pictures[kept[i]].captions[lang]) for i in rows]
        results[lang] = evaluate_captions(texts, [detokenize(each, lang) for each in words], lang)
    decode["length_penalty"] = penalties
    decode["beam"] = beams
    meta = {**bundle.meta, "decode": decode, "calibration": calibration, "results": {"dev": results}}
    write_bundle(
        path,
        meta,
        weights,
        tokenizer=bundle.tokenizer,
        encoder=bundle.encoder,
        card=render_card(meta),
        quantize=bundle.stored,
    )
    plots = path.with_name(path.name + ".work")
    if log:
        write_atomically(plots / "training.png", plot_training(log))
    for lang, (confidence, good) in curves.items():
        write_atomically(plots / f"confidence-{lang}.png", plot_reliability(confidence, good))


@dataclass(frozen=True)
class _Trial:
    """What a voice says of the dev pictures, and its CIDEr-D and BLEU-4 together: the first alone likes sentences that
    say more than people do.
    """

    voice: Voice
    found: list[tuple[Hypothesis, ...]]
    words: list[list[str]]
    score: float

    @classmethod
    def of(
        cls,
        voice: Voice,
        features: NDArray[np.float32],
        references: Sequence[Sequence[Sequence[str]]],
        found: Sequence[tuple[Hypothesis, ...]] | None = None,
    ) -> Self:
        """Search, unless it is told what is `found`, and score."""
        several = searched(voice, features) if found is None else found
        best = [each[:2] for each in voice.ordered(features, several)]
        words = [[voice.words[token] for token in each[0].tokens] for each in best]
        return cls(voice, best, words, cider_d(references, words)[0] + bleu(references, words)[0][3])


def searched(voice: Voice, features: NDArray[np.float32], *, batch: int = 32) -> list[tuple[Hypothesis, ...]]:
    """All hypotheses in the beam of every picture, features [N, R, F]; tokens are places in the words of the voice."""
    found: list[tuple[Hypothesis, ...]] = []
    for start in range(0, len(features), batch):
        found += voice.search(features[start : start + batch], max(voice.beam, 2), max(voice.beam, 2))
    return found


def calibrate(
    signs: Sequence[Mapping[str, float]], words: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[dict[str, Any], tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """The confidence of one language from the `signs` of a voice, and (out-of-fold confidence, acceptable) of every
    picture.

    A caption is acceptable when its CIDEr-D is at least the level that three of four human captions reach against
    the other people's captions of the same picture.
    """
    level = human_level(references)
    _, scores = cider_d(references, words)
    good = scores >= level
    names = [name for name in CALIBRATION_FEATURES if name in signs[0]]
    x = np.array([[row[name] for name in names] for row in signs])
    weights, bias = fit_logistic(x, good)
    folds = min(FOLDS, len(good))
    if folds > 1:
        confidence = cross_validate(x, good, folds=folds)
        measured = f"{folds}-fold cross-validation on {len(good)} dev pictures"
    else:
        confidence = sigmoid(x @ weights + bias)
        measured = "the one dev picture that it was fitted on, which says nothing about others"
    coverage, risk = risk_coverage(confidence, good)
    entry = {
        "features": names,
        "weights": [float(w) for w in weights],
        "bias": float(bias),
        "criterion": f"sentence CIDEr-D of at least {level:.3f} against the human captions of the picture",
        "level": level,
        "acceptable": float(good.mean()),
        "ece": expected_calibration_error(confidence, good),
        "ece_equal_width": expected_calibration_error(confidence, good, equal="width"),
        "brier": brier_score(confidence, good),
        "risk_coverage": [[share, float(np.interp(share, coverage, risk))] for share in COVERAGES],
        "risk_coverage_area": risk_coverage_area(confidence, good),
        "measured": measured,
    }
    return entry, (confidence, good)


def human_level(references: Sequence[Sequence[Sequence[str]]]) -> float:
    """CIDEr-D that three of four human captions reach against the others of their picture."""
    several = [rows for rows in references if len(rows) > 2]
    if len(several) < 20:
        return FALLBACK_LEVEL
    levels: list[float] = []
    for place in range(2):
        others = [[words for i, words in enumerate(rows) if i != place] for rows in several]
        levels += cider_d(others, [rows[place] for rows in several])[1].tolist()
    return float(np.quantile(levels, HUMAN_QUANTILE))


def _opinions(bundle: Bundle, captioner: Captioner, train: Split) -> dict[str, tuple[Tensors, float]]:
    """The second opinion of each language on what the encoder sees in the train split, rounded as it is stored."""
    seen, kept = look(captioner, train, pooled, thinned(train))
    known, words = keep(train, kept), bundle.vocabulary()
    found = {lang: fit_consensus(seen, known, words, lang, bundle.stored) for lang in captioner.languages}
    return {lang: each for lang, each in found.items() if each is not None}


def look(
    captioner: Captioner,
    split: Split,
    then: Callable[[Array], Array] | None = None,
    rows: Sequence[int] | None = None,
) -> tuple[NDArray[np.float32], list[int]]:
    """Features [N, R, F] of the pictures of a split (of `rows` only) that can be read, or what `then` makes of them;
    and their rows.
    """
    wanted = range(len(split)) if rows is None else rows
    parts: list[NDArray[np.float32]] = []
    kept: list[int] = []
    waiting: list[NDArray[np.uint8]] = []
    pictures = iterate_pictures((split.files[row] for row in wanted), size=captioner.size, workers=2, ahead=64)
    for row, (_, square) in zip(wanted, pictures, strict=True):
        if not isinstance(square, InputError):
            kept.append(row)
            waiting.append(square.pixels)
        if waiting and (len(waiting) == 16 or row == wanted[-1]):
            seen = captioner.encoder(np.stack(waiting))
            parts.append(seen if then is None else then(seen))
            waiting = []
    return np.concatenate(parts), kept

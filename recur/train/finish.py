"""From trained weights to a bundle one can trust: how to search, how sure to be, what was measured.

Everything here goes through the runtime, on the dev split: the width and length penalty of the beam are chosen by
CIDEr-D, the confidence is fitted and checked by cross-validation, and the card and its plots are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recur.bundle import Bundle, read_bundle, update_bundle
from recur.data.images import iterate_pictures
from recur.data.text import detokenize
from recur.engine.search import Hypothesis, search_features
from recur.errors import InputError
from recur.files import write_atomically
from recur.metrics.calibration import (
    brier_score,
    cross_validate,
    expected_calibration_error,
    fit_logistic,
    risk_coverage,
    risk_coverage_area,
    sigmoid,
)
from recur.metrics.caption import cider_d
from recur.metrics.captions_report import evaluate_captions
from recur.predict.caption import Captioner
from recur.train.caption_data import Split
from recur.train.card import render_card
from recur.train.plot import plot_reliability, plot_training

PENALTIES = (0.0, 0.4, 0.8)
CALIBRATION_FEATURES = (
    "mean_log_prob",
    "min_log_prob",
    "mean_entropy",
    "max_entropy",
    "first_entropy",
    "margin",
    "length",
)
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HUMAN_QUANTILE = 0.25
FALLBACK_LEVEL = 0.3
FOLDS = 5


def finish_bundle(path: Path, *, dev: Split, log: Sequence[Mapping[str, Any]]) -> None:
    """Choose the search, calibrate the confidence, measure, and write card and plots of the bundle at `path`."""
    bundle = read_bundle(path, task="caption")
    captioner = Captioner(bundle)
    features, kept = look(captioner, dev)
    decode: dict[str, Any] = dict(bundle.meta["decode"])
    calibration: dict[str, Any] = {}
    results: dict[str, Any] = {}
    penalties: dict[str, float] = {}
    curves: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
    for lang in captioner.languages:
        rows = [i for i, row in enumerate(kept) if dev.tokens[lang][row]]
        if not rows:
            continue
        references = [[list(words) for words in dev.tokens[lang][kept[i]]] for i in rows]
        seen = features[rows]
        best: tuple[float, float, list[tuple[Hypothesis, ...]]] | None = None
        for penalty in PENALTIES:
            found = search(bundle, {**decode, "length_penalty": penalty}, seen, lang)
            score, _ = cider_d(references, [_words(bundle, each[0]) for each in found])
            if best is None or score > best[0]:
                best = (score, penalty, found)
        assert best is not None
        penalties[lang] = best[1]
        words = [_words(bundle, each[0]) for each in best[2]]
        calibration[lang], curves[lang] = calibrate(best[2], words, references)
        texts = [list(dev.pictures[kept[i]].captions[lang]) for i in rows]
        results[lang] = evaluate_captions(texts, [detokenize(each, lang) for each in words], lang)
    decode["length_penalty"] = penalties
    meta = {**bundle.meta, "decode": decode, "calibration": calibration, "results": {"dev": results}}
    update_bundle(
        path, {"decode": decode, "calibration": calibration, "results": {"dev": results}}, card=render_card(meta)
    )
    plots = path.with_name(path.name + ".work")
    if log:
        write_atomically(plots / "training.png", plot_training(log))
    for lang, (confidence, good) in curves.items():
        write_atomically(plots / f"confidence-{lang}.png", plot_reliability(confidence, good))


def search(
    bundle: Bundle, decode: Mapping[str, Any], features: NDArray[np.float32], lang: str, *, batch: int = 32
) -> list[tuple[Hypothesis, ...]]:
    """The two best hypotheses of every picture, searched as `decode` says."""
    captioner = Captioner(replace(bundle, meta={**bundle.meta, "decode": decode}))
    found: list[tuple[Hypothesis, ...]] = []
    for start in range(0, len(features), batch):
        found += captioner.search(features[start : start + batch], lang=lang, n_best=2)
    return found


def calibrate(
    found: Sequence[Sequence[Hypothesis]], words: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[dict[str, Any], tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """The confidence of one language, and (out-of-fold confidence, acceptable) of every picture.

    A caption is acceptable when its CIDEr-D is at least the level that three of four human captions reach against
    the other people's captions of the same picture.
    """
    level = human_level(references)
    _, scores = cider_d(references, words)
    good = scores >= level
    table = [search_features(each) for each in found]
    x = np.array([[row[name] for name in CALIBRATION_FEATURES] for row in table])
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
        "features": list(CALIBRATION_FEATURES),
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


def look(captioner: Captioner, dev: Split) -> tuple[NDArray[np.float32], list[int]]:
    """Features [N, R, F] of the dev pictures that can be read, and their rows."""
    parts: list[NDArray[np.float32]] = []
    kept: list[int] = []
    waiting: list[NDArray[np.uint8]] = []
    for row, (_, square) in enumerate(iterate_pictures(dev.files, size=captioner.size, workers=2, ahead=64)):
        if not isinstance(square, InputError):
            kept.append(row)
            waiting.append(square.pixels)
        if len(waiting) == 16:
            parts.append(captioner.encoder(np.stack(waiting)))
            waiting = []
    if waiting:
        parts.append(captioner.encoder(np.stack(waiting)))
    return np.concatenate(parts), kept


def _words(bundle: Bundle, hypothesis: Hypothesis) -> list[str]:
    return bundle.vocabulary().decode(hypothesis.tokens)

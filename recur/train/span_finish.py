"""From trained weights to a span reader one can trust: the calibration, what was measured, the card.

Everything goes through the runtime, on questions about passages that were held out of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from recur.bundle import read_bundle, update_bundle
from recur.bundle.span import CALIBRATED
from recur.data.passages import Asked
from recur.metrics.calibration import cross_validate, expected_calibration_error, fit_logistic
from recur.metrics.spans import span_scores
from recur.predict.span import SpanReader, is_right

FOLDS: Final = 5
EVERY: Final = 5  # one question in so many is asked of another passage too: one in six of all, as in training
CRITERION: Final = "an answer with an F1 of 50 % or more against one that is known, or no answer where there is none"


def finish_span(path: Path, held: Sequence[Sequence[Asked]], *, seed: int = 1) -> None:
    """Calibrate the bundle at `path` on the held-out questions of each file, measure it on them, and write its card.

    The weights stay as they are. One question in five is asked a second time, of another passage of its file, which
    has no answer to it, so that the confidence in "no answer" is calibrated too.
    """
    reader = SpanReader(read_bundle(path, task="span"))
    asked = [each for part in held for each in part]
    every = asked + [each for part in held for each in elsewhere(part, seed)]
    found = [reader.features(each.passage, each.question) for each in every]
    right = np.array([is_right(told.answer, each) for (told, _), each in zip(found, every, strict=True)])
    table = np.array([[features[name] for name in CALIBRATED] for _, features in found])
    alone = np.array([told.probability for told, _ in found])
    groups = [each.group for each in every]
    weights, bias = fit_logistic(table, right)
    folds = min(FOLDS, len(set(groups)))
    calibration: dict[str, Any] = {
        "features": list(CALIBRATED),
        "weights": weights.tolist(),
        "bias": bias,
        "criterion": CRITERION,
        "questions": len(asked),
        "elsewhere": len(every) - len(asked),
        "ece_alone": round(expected_calibration_error(alone, right), 4),
    }
    results: dict[str, Any] = {
        **span_scores(
            [told.answer for told, _ in found[: len(asked)]],
            [[each.passage[start:end] for start, end in each.answers] for each in asked],
        ),
        "acceptable": round(float(right[: len(asked)].mean()), 4),
    }
    if folds > 1:
        honest = cross_validate(table, right, folds=folds, groups=groups)
        calibration["measured"] = f"{folds}-fold cross-validation, whole passages left out"
        calibration["ece"] = round(expected_calibration_error(honest, right), 4)
    meta = {**reader.bundle.meta, "calibration": calibration, "results": {"held out": results}}
    update_bundle(path, {"calibration": calibration, "results": meta["results"]}, card=span_card(meta))


def elsewhere(asked: Sequence[Asked], seed: int) -> list[Asked]:
    """Every fifth question, asked of another passage."""
    random = np.random.default_rng(seed)
    found = []
    for each in asked[::EVERY]:
        others = [other for other in asked if other.group != each.group]
        if others:
            other = others[int(random.integers(len(others)))]
            found.append(Asked(other.passage, each.question, (), other.group))
    return found


def span_card(meta: Mapping[str, Any]) -> str:
    """CARD.md of a span reader."""
    training, calibration, results = meta["training"], meta["calibration"], meta["results"]["held out"]
    ece = f"{calibration['ece']:.3f} ({calibration['measured']})" if "ece" in calibration else "not measured"
    return f"""# {meta["name"]}

Answers a question with a part of a passage, or says that there is no answer. It runs on a plain CPU and holds nothing
that can be executed.

## Network

- Two LSTMs, both directions, {meta["hidden"]} units each, read question and passage; two pointers
  (after Chen et al. 2017).
- Words are sums of four hashed parts of {meta["embedding"]} numbers, so none is unknown.
- Windows of {meta["window"]} tokens; an answer has {meta["longest"]} tokens at most.

## Data and terms

- Trained on: {training["data_name"] or "questions of the person who trained it"}, {training["questions"]} questions.
- Terms: {training["terms"] or "not stated"}.

## Training

`{training["command"]}`, seed {training["seed"]}.

## Measured

On {results["questions"]} questions about the tenth of the passages that was held out: F1 {results["f1"]}, exact match
{results["em"]}; {100 * results["acceptable"]:.1f} % of the answers are acceptable.

## Confidence

The confidence is the probability that the answer is acceptable: {calibration["criterion"]}.
It is a logistic function of the log-probability of the answer, its lead, its length, and whether it is no answer,
fitted on the held-out questions and {calibration["elsewhere"]} of them asked of another passage, which has no answer.
Expected calibration error: {ece}; of the network's own probability {calibration["ece_alone"]:.3f}.

## Limits

- Trained on few questions it finds the right sentence more often than the right words. Read the passage.
"""

"""From trained weights to a sentiment bundle one can trust: the calibration, what was measured, the card.

Everything goes through the runtime, on texts that were held out of training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recur.bundle import read_bundle, update_bundle
from recur.data.labelled import Labelled
from recur.data.sentiment import BITS
from recur.metrics.calibration import (
    brier_score,
    cross_validate,
    expected_calibration_error,
    fit_logistic,
)
from recur.predict.sentiment import FEATURES, SentimentClassifier
from recur.train.card import LANGUAGES

FOLDS = 5
TOGETHER = 32


def finish_sentiment(path: Path, held: Sequence[Labelled], names: Sequence[str]) -> None:
    """Calibrate the bundle at `path`, measure it on the held-out texts of each data set, and write its card."""
    classifier = SentimentClassifier(read_bundle(path, task="sentiment"))
    x: dict[str, list[list[float]]] = defaultdict(list)
    y: dict[str, list[bool]] = defaultdict(list)
    source: dict[str, list[int]] = defaultdict(list)
    for number, part in enumerate(held):
        for start in range(0, len(part), TOGETHER):
            some = slice(start, start + TOGETHER)
            for found, label in zip(classifier.features(part.texts[some]), part.labels[some], strict=True):
                if found is not None:
                    language, features = found
                    x[language].append([features[name] for name in FEATURES])
                    y[language].append(label == classifier.labels[1])
                    source[language].append(number)
    calibration: dict[str, Any] = dict(classifier.bundle.meta.get("calibration") or {})
    results: dict[str, Any] = {}
    for language, rows in x.items():
        table, good, origin = np.array(rows), np.array(y[language]), np.array(source[language])
        weights, bias = fit_logistic(table, good)
        probability = cross_validate(table, good, folds=min(FOLDS, len(good))) if len(good) > 1 else np.full(1, 0.5)
        calibration[language] = {
            "features": list(FEATURES),
            "weights": weights.tolist(),
            "bias": bias,
            "measured": f"{FOLDS}-fold cross-validation on {len(good)} held-out texts",
        }
        for number in np.unique(origin):
            here = origin == number
            results[f"{names[number]} ({language})"] = {
                **measured(probability[here], good[here]),
                "network_alone": float(((table[here, 0] > 0) == good[here]).mean()),
                "wide_alone": float(((table[here, 1] > 0) == good[here]).mean()),
            }
    meta = {**classifier.bundle.meta, "calibration": calibration, "results": {"held out": results}}
    update_bundle(path, {"calibration": calibration, "results": meta["results"]}, card=sentiment_card(meta))


def measured(probability: NDArray[np.float64], good: NDArray[np.bool_]) -> dict[str, float | int]:
    """Texts, accuracy, expected calibration error and Brier score of probabilities [N] of the second label."""
    return {
        "texts": len(good),
        "accuracy": float(((probability >= 0.5) == good).mean()),
        "ece": expected_calibration_error(probability, good),
        "brier": brier_score(probability, good),
    }


def sentiment_card(meta: Mapping[str, Any]) -> str:
    """The card of a sentiment bundle as Markdown, from its bundle.json."""
    training, labels = meta["training"], meta["labels"]
    rows = [
        f"| {name} | {entry['texts']} | {entry['accuracy']:.3f} | {entry['ece']:.3f} | {entry['brier']:.3f} "
        f"| {entry['network_alone']:.3f} | {entry['wide_alone']:.3f} |"
        for name, entry in meta["results"]["held out"].items()
    ]
    spoken = " and ".join(LANGUAGES.get(lang, lang) for lang in meta["languages"])
    commands = ", then ".join(f"`{command}`" for command in (*training.get("before", ()), training["command"]))
    return f"""# {meta["name"]}

Says whether a text in {spoken} is `{labels[1]}` or `{labels[0]}`, with a probability. A recurrent network reads the
words both ways; what a linear model of words and pairs of words says is added. It runs on a plain CPU and holds nothing
that can be executed.

## Use

```sh
recur sentiment --model {meta["name"]} "a stirring, funny film"
```

## Network

- {meta["cell"].upper()}, one layer, both directions, {meta["hidden"]} units each, on word vectors of
  {meta["embedding"]} numbers; {meta["vocabulary_size"]} words and characters.
- A text of any length is read in windows of {meta["window"]} tokens; the greatest and the mean value of each unit over
  all tokens go to one logit.
- A linear model of words and pairs, hashed to {BITS} bits, one a language (a skip connection around the network).
- The probability is a logistic function of the two logits and the length, fitted on held-out texts.

## Data and terms

- Trained on: {training.get("data_name") or "labelled texts of the person who trained it"}, {training["texts"]} texts.
- Terms: {training.get("terms") or "not stated"}.
- SHA-256 of texts and labels: `{training["data"]}`.

## Training

{commands}, seed {training["seed"]}.

## Measured

On held-out texts, in cross-validation where the probability is concerned. ECE is the expected calibration error.

| data | texts | accuracy | ECE | Brier score | network alone | linear model alone |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## Limits

- It knows praise and blame as they are written in reviews of its training data. Irony, news, questions and texts about
  both good and bad get a label all the same; the probability was fitted on texts like those it was trained on.
- Do not use it to decide anything about a person.
"""

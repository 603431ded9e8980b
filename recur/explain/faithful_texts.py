"""Is what the pages of texts show true? What a page names must matter more than something else drawn at random.

sentiment: the word that is said to speak most for the label is taken out of the text, and another one drawn at random.
translate: of each word of the translation, the source word that it is said to be read from, and another one.
generate: the unit that is said to follow a rule was named on the first half of a text; on the second half it must go
with the rule more closely than another unit of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from recur.data.sentiment import tokens
from recur.data.subwords import clean, split_words
from recur.explain.faithful import FELT, Tally
from recur.explain.follow import RULES, correlations, rule_values
from recur.predict.language import LanguageModel
from recur.predict.sentiment import EXPLAINED, SentimentClassifier
from recur.predict.translation import LONGEST, Translator


def sentiment_faithfulness(classifier: SentimentClassifier, texts: Iterable[str], *, seed: int = 0) -> dict[str, Any]:
    """For each text: by how much the log-probability of its label falls without the word that speaks most for it, and
    without another. Texts of fewer than two words, or of too many to be weighed, are not counted.
    """
    random = np.random.default_rng(seed)
    every, felt = Tally(), Tally()
    read = 0
    for text in texts:
        words = [word for _, word in zip(range(EXPLAINED + 1), tokens(text), strict=False)]
        if not 2 <= len(words) <= EXPLAINED:
            continue
        between = "" if classifier([text], words=False)[0].language == "zh" else " "
        (told,) = classifier([between.join(words)])
        if len(told.words) < 2:
            continue
        read += 1
        second = told.label == classifier.labels[1]
        strength = [weight if second else -weight for _, weight in told.words]
        own = int(np.argmax(strength))
        other = int(random.choice([place for place in range(len(strength)) if place != own]))
        plain = [word for word, _ in told.words]
        without = [between.join(plain[:gone] + plain[gone + 1 :]) for gone in (own, other)]
        costs = []
        for found in classifier.judge(without):
            probability = 0.5 if found is None else found[1] if second else 1 - found[1]
            costs.append(math.log(told.probability) - math.log(max(probability, 1e-12)))
        every.add(*costs)
        if max(costs) >= FELT:
            felt.add(*costs)
    return {"task": "sentiment", "texts": read, "all": every.told(), "felt": felt.told()}


def translation_faithfulness(
    translator: Translator, texts: Iterable[str], source: str, target: str, *, seed: int = 0
) -> dict[str, Any]:
    """For each word of each translation: by how much its log-probability falls, the words before it given, when the
    source word that it is said to be read from is taken out, and when another is. Sentences of one word, with words
    that cannot be spelled, or too long for one part are not counted.
    """
    random = np.random.default_rng(seed)
    every, felt = Tally(), Tally()
    read = 0
    for text in texts:
        words = split_words(clean(text))
        part = translator.sentence(words)
        if len(words) < 2 or part.strange or len(part.ids) > LONGEST:
            continue
        (best,) = translator.search([part], target, 1, 0.0)
        numbers = best.tokens.tolist()
        spelled = translator.spelled(numbers)
        if not spelled:
            continue
        read += 1
        assert best.attention is not None
        attention = best.attention[:, : len(part.ids)]
        fewer = [translator.sentence(words[:gone] + words[gone + 1 :]) for gone in range(len(words))]
        scores = translator.log_probs([part, *fewer], numbers, target)
        for _, places in spelled:
            shares = np.bincount(part.owner, attention[places].mean(axis=0), minlength=len(words))
            own = int(shares.argmax())
            other = int(random.choice([place for place in range(len(words)) if place != own]))
            costs = [float((scores[0, places] - scores[1 + gone, places]).sum()) for gone in (own, other)]
            every.add(*costs)
            if max(costs) >= FELT:
                felt.add(*costs)
    return {
        "task": "translate",
        "from": source,
        "to": target,
        "texts": read,
        "all": every.told(),
        "felt": felt.told(),
    }


def reading_faithfulness(model: LanguageModel, text: str, *, seed: int = 0) -> dict[str, Any]:
    """For each rule: how closely the unit that follows it best on the first half of the text goes with it on the second
    half, and another unit of its layer drawn at random. Rules that a half has no case of are left out.
    """
    random = np.random.default_rng(seed)
    middle = len(text) // 2
    halves = [text[:middle], text[middle:]]
    hidden = [model.trace(half).hidden for half in halves]
    rules = []
    for name in RULES:
        first, second = (correlations(rule_values(name, half), h) for half, h in zip(halves, hidden, strict=True))
        if not first.any() or not second.any():
            continue
        layer, unit = divmod(int(np.abs(first).argmax()), first.shape[1])
        others = [place for place in range(first.shape[1]) if place != unit]
        if not others:
            continue
        rules.append(
            {
                "rule": name,
                "layer": layer + 1,
                "unit": unit + 1,
                "named_on": round(float(first[layer, unit]), 4),
                "own": round(abs(float(second[layer, unit])), 4),
                "other": round(abs(float(second[layer, int(random.choice(others))])), 4),
            }
        )
    closer = sum(each["own"] > each["other"] for each in rules) / max(1, len(rules))
    return {"task": "generate", "characters": len(text), "own_goes_closer": closer, "rules": rules}

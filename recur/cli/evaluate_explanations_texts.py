"""What `recur evaluate explanations` asks of models of texts and of passages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recur.cli.texts import Texts
from recur.data.characters import read_text
from recur.data.lines import Line
from recur.data.passages import read_asked
from recur.errors import RecurError
from recur.explain.faithful_texts import reading_faithfulness, sentiment_faithfulness, translation_faithfulness
from recur.explain.span import span_faithfulness
from recur.explain.texts import READ
from recur.predict.language import LanguageModel
from recur.predict.sentiment import SentimentClassifier
from recur.predict.span import SpanReader
from recur.predict.translation import Translator


def measure_texts(
    model: Any, data: str, column: str | None, source: str | None, target: str | None, limit: int | None, seed: int
) -> dict[str, Any]:
    """The measurement of a model of texts on the texts in `data`. Errors: RecurError for other models, and no texts."""
    told: dict[str, Any]
    if isinstance(model, LanguageModel):
        text = read_text(Path(data))[0][: 2 * READ]
        if len(text) < 4:
            raise RecurError(f"{data}: {len(text)} characters; expected a text that has two halves; name another")
        told = reading_faithfulness(model, text, seed=seed)
    else:
        texts = [each.text for each in islice((t for t in Texts([], data, column) if isinstance(t, Line)), limit)]
        if not texts:
            raise RecurError(f"{data}: no texts; expected some; name another file")
        if isinstance(model, SentimentClassifier):
            told = sentiment_faithfulness(model, texts, seed=seed)
        elif isinstance(model, Translator):
            told = translation_faithfulness(model, texts, *model.direction(source, target), seed=seed)
        else:
            raise RecurError(
                f"{model.name}: its explanations cannot be measured; choose a captioner or a model of texts"
            )
    return {"model": model.name, "data": data, **told}


def measure_spans(reader: SpanReader, data: Path, split: str, limit: int | None, seed: int) -> dict[str, Any]:
    """The measurement of a model that answers with parts of passages, on the questions in `data`. Errors: RecurError,
    for no questions too."""
    asked = [each for each in read_asked(data)[0] if split == "all" or each.held_out == (split == "dev")]
    if not asked or split == "test":
        raise RecurError(f"{data}: no question in split {split!r}; expected train, dev or all; choose with --split")
    told = span_faithfulness(reader, asked[:limit], seed=seed)
    return {"model": reader.name, "data": str(data), "split": split, **told}


def told_lines(told: dict[str, Any]) -> Iterator[str]:
    """A measurement as lines for people."""
    if told["task"] == "generate":
        for each in told["rules"]:
            yield (
                f"{each['rule']:<28} layer {each['layer']}, unit {each['unit']}  named on {each['named_on']:+.2f}  "
                f"on the other half: own {each['own']:.2f}, another {each['other']:.2f}"
            )
        yield f"own goes closer: {100 * told['own_goes_closer']:.1f} % of {len(told['rules'])} rules"
        return
    parts = (
        {f"{told['task']}  ": told}
        if "all" in told
        else {f"{part:<10}": told[part] for part in ("question", "passage")}
    )
    for name, part in parts.items():
        for kind in ("all", "felt"):
            each = part[kind]
            yield (
                f"{name}{kind:<5} {each['words']:>6} words  own word costs more: "
                f"{100 * each['own_costs_more']:.1f} %  cost in nats: own {each['cost_own']:.3f}, "
                f"another {each['cost_other']:.3f}"
            )

"""What a text thinks, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from recur.serve.tasks import Options, Row


class SentimentOptions(Options):
    """A text, and what is to be told of it."""

    text: str = Field(min_length=1, max_length=100_000, description="The text.")
    words: bool = Field(True, description="Tell what each word had to do with it, and the probability after each.")


def sentiment(classifier: Any, texts: Sequence[str], options: SentimentOptions) -> list[Any]:
    """Judgements of texts that wait together."""
    found = classifier.stream(texts, words=options.words, running=options.words)
    return [each if isinstance(each, Exception) else each.to_json() for each in found]


ROWS = (
    Row(
        path="sentiment",
        task="sentiment",
        summary="Is a text good or bad, and what made it so",
        takes_picture=False,
        options=SentimentOptions,
        prepare=lambda classifier, picture, options, max_pixels: options.text,
        key=lambda options: options.words,
        run=sentiment,
        example={
            "text": "a funny film",
            "label": "pos",
            "probability": 0.96,
            "language": "en",
            "words": [["a", 0.01], ["funny", 2.4], ["film", -0.1]],
            "model": "sentiment",
        },
        tab="sentiment.js",
    ),
)

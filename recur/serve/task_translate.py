"""Translations over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from recur.predict.translation import Translation
from recur.serve.tasks import Options, Row


class TranslateOptions(Options):
    """A text, and between which languages."""

    text: str = Field(min_length=1, max_length=20_000, description="The text.")
    source: str | None = Field(None, max_length=20, description="Its language, where the model knows several.")
    target: str | None = Field(None, max_length=20, description="The language to translate into.")
    beam: int | None = Field(None, ge=1, le=64, description="Hypotheses kept at every step; the model's own if absent.")
    detail: bool = Field(
        False, description="Tell the attention to every word of the source too: `parts`, the first 20 sentences."
    )


def prepare(translator: Any, picture: bytes, options: Any, max_pixels: int) -> str:
    """The text. Errors: RecurError for languages that the model does not know."""
    translator.direction(options.source, options.target)
    text: str = options.text
    return text


def translate(translator: Any, texts: Sequence[str], options: TranslateOptions) -> list[Any]:
    """Translations of texts that wait together."""
    found = translator.stream(texts, source=options.source, target=options.target, beam=options.beam)
    return [each if isinstance(each, Exception) else _told(each, options.detail) for each in found]


def _told(translation: Translation, detail: bool) -> dict[str, Any]:
    told = translation.to_json()
    return told | {"parts": [part.to_json() for part in translation.parts]} if detail else told


ROWS = (
    Row(
        path="translate",
        task="translate",
        summary="A text in another language, and which word came from which",
        takes_picture=False,
        options=TranslateOptions,
        prepare=prepare,
        key=lambda options: (options.source, options.target, options.beam, options.detail),
        run=translate,
        example={
            "source": "A dog runs.",
            "translation": "Ein Hund rennt.",
            "log_prob": -1.2,
            "alignment": [["Ein", "A", 0.9], ["Hund", "dog", 0.95], ["rennt", "runs", 0.9]],
            "from": "en",
            "to": "de",
            "model": "translator",
        },
        tab="translate.js",
    ),
)

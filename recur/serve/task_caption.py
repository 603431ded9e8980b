"""Captions, and their explanations, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from recur.data.images import Square, read_square
from recur.errors import InputError, RecurError
from recur.explain.explanation import explain_beginning, explain_square
from recur.predict.caption import Captioner
from recur.serve.tasks import Options, Row


class CaptionOptions(Options):
    """Options of a caption."""

    lang: str | None = Field(
        None, max_length=100, description="Languages, such as `en` or `en,zh`; the first one if absent."
    )
    beam: int | None = Field(None, ge=1, le=64, description="Hypotheses kept at every step; the model's own if absent.")
    n_best: int = Field(1, ge=1, le=64, description="How many captions to tell.")
    min_confidence: float | None = Field(None, ge=0, le=1, description="Below it, `caption` is null.")
    words: bool = Field(True, description="Tell each word, with its probability, its runners-up and its region.")


class ExplainOptions(Options):
    """Options of an explanation."""

    lang: str | None = Field(None, max_length=100, description="Languages, such as `en,zh`; all of them if absent.")
    beam: int | None = Field(None, ge=1, le=64, description="Hypotheses kept at every step; the model's own if absent.")
    detail: Literal["words", "inside"] = Field(
        "words", description="`inside` adds the search as a tree, and the states and gates of every step."
    )
    beginning: list[str] | None = Field(
        None,
        max_length=200,
        description="Words that the sentence is to begin with, in the one language that `lang` names; "
        "`<end>` as the last of them ends it there. In a form: a JSON array.",
    )

    @field_validator("beginning", mode="before")
    @classmethod
    def _from_form(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            raise ValueError("expected a JSON array of words") from None


def _languages(lang: str | None) -> tuple[str, ...] | None:
    """A comma list of language tags; None when there is none."""
    tags = tuple(dict.fromkeys(tag.strip().lower() for tag in (lang or "").split(",") if tag.strip()))
    return tags or None


def prepare(captioner: Captioner, picture: bytes, options: Any, max_pixels: int) -> Square:
    """Decode the picture. Errors: InputError; RecurError for a language that the model does not have."""
    for language in _languages(options.lang) or ():
        captioner.voice(language)
    square = read_square(picture, size=captioner.size, max_pixels=max_pixels)
    if isinstance(square, InputError):
        raise InputError("picture", square.what, square.fix)
    return square


def caption(captioner: Captioner, squares: Sequence[Square], options: CaptionOptions) -> list[dict[str, Any]]:
    """Captions of pictures that wait together, computed together."""
    every = captioner.describe(
        squares,
        _languages(options.lang) or captioner.languages[:1],
        beam=options.beam,
        n_best=options.n_best,
        min_confidence=options.min_confidence,
        words=options.words,
    )
    return [
        {
            "captions": [_without_path(one.to_json()) for one in captions],
            "width": square.width,
            "height": square.height,
            "notes": list(square.notes),
        }
        for square, captions in zip(squares, every, strict=True)
    ]


def explanation(captioner: Captioner, squares: Sequence[Square], options: ExplainOptions) -> list[Any]:
    """Explanations: the encoder reads the pictures together, the rest is done for each."""
    features = captioner.encode(squares)
    languages = _languages(options.lang)
    out: list[Any] = []
    for number, square in enumerate(squares):
        seen = features[number : number + 1]
        try:
            if options.beginning is None:
                out.append(
                    explain_square(
                        captioner,
                        square,
                        seen,
                        languages=languages,
                        beam=options.beam,
                        detail=options.detail == "inside",
                        continuations=False,
                    )
                )
            elif languages is None or len(languages) != 1:
                raise RecurError("beginning: in no language; expected one; name it with lang")
            else:
                out.append(
                    explain_beginning(captioner, square, seen, languages[0], options.beginning, beam=options.beam)
                )
        except RecurError as error:
            out.append(error)
    return out


def events(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """A caption as a stream: its words in their order, then the caption itself, for each language."""
    out: list[tuple[str, Any]] = []
    for one in result["captions"]:
        out += [("word", {"language": one["language"], **word}) for word in one["words"]]
        out.append(("caption", {**one, "words": []}))
    return out


def _without_path(told: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key != "path"}


EXAMPLE = {
    "captions": [
        {
            "caption": "a brown dog runs",
            "language": "en",
            "confidence": 0.71,
            "log_prob": -3.21,
            "words": [
                {
                    "word": "a",
                    "log_prob": -0.3,
                    "alternatives": [["the", 0.1], ["two", 0.05]],
                    "region": [0, 40, 210, 333],
                }
            ],
            "n_best": [["a brown dog runs", -3.21]],
            "model": "captioner",
        }
    ],
    "width": 500,
    "height": 333,
    "notes": [],
}

ROWS = (
    Row(
        path="caption",
        task="caption",
        summary="A sentence about a picture",
        takes_picture=True,
        options=CaptionOptions,
        prepare=prepare,
        key=lambda options: options.model_dump_json(),
        run=caption,
        example=EXAMPLE,
        events=events,
    ),
    Row(
        path="explain/caption",
        task="caption",
        summary="Where each word of a caption came from, and what it might have been",
        takes_picture=True,
        options=ExplainOptions,
        prepare=prepare,
        key=lambda options: options.model_dump_json(),
        run=explanation,
        example={"picture": {"name": None, "width": 500, "height": 333}, "model": "captioner", "sentences": []},
    ),
)

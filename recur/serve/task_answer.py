"""Questions about a story or a passage, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from recur.explain.span import explain_span
from recur.serve.tasks import Options, Row


class AnswerOptions(Options):
    """A passage, and what is asked about it."""

    passage: str = Field(min_length=1, max_length=100_000, description="The passage.")
    question: str = Field(min_length=1, max_length=10_000, description="The question.")


class SpanOptions(AnswerOptions):
    """A passage, what is asked about it, and how much is told."""

    detail: bool = Field(False, description="Tell what the answer rests on, too, as `recur explain answer` does.")


def prepare(reader: Any, picture: bytes, options: AnswerOptions, max_pixels: int) -> tuple[Any, str]:
    """What is read of the passage, and the question. Raises InputError for a passage without a word."""
    return reader.story(options.passage), options.question


def answer(reader: Any, items: Sequence[Any], options: AnswerOptions) -> list[Any]:
    """Answers to questions that wait together."""
    return [each if isinstance(each, Exception) else each.to_json() for each in reader.answer(items)]


def prepare_span(reader: Any, picture: bytes, options: SpanOptions, max_pixels: int) -> Any:
    """A passage with its question; with `detail` the whole answer, which takes too long for the one thread that
    predicts. Raises InputError for a passage or question without a word."""
    if options.detail:
        return explain_span(reader, options.passage, options.question).data
    return prepare(reader, picture, options, max_pixels)


def point(reader: Any, items: Sequence[Any], options: SpanOptions) -> list[Any]:
    """Parts of passages for questions that wait together, or what was prepared."""
    return list(items) if options.detail else answer(reader, items, options)


ROWS = (
    Row(
        path="answer",
        task="answer",
        summary="Answer a question about a passage",
        takes_picture=False,
        options=AnswerOptions,
        prepare=prepare,
        key=lambda options: None,
        run=answer,
        example={
            "question": "Where is the football?",
            "answer": "garden",
            "start": None,
            "end": None,
            "confidence": 0.99,
            "others": [["kitchen", 0.01]],
            "evidence": [["Mary went to the garden.", 0.98, [0.1, 0.8, 0.2]]],
            "unknown": [],
            "model": "babi",
        },
        tab="answer.js",
    ),
    Row(
        path="span",
        task="span",
        summary="Answer a question with a part of the passage",
        takes_picture=False,
        options=SpanOptions,
        prepare=prepare_span,
        key=lambda options: options.detail,
        run=point,
        example={
            "question": "Who sat?",
            "answer": "Mary",
            "start": 0,
            "end": 4,
            "confidence": 0.9,
            "probability": 0.8,
            "others": [["John", 0.1, 10, 14], [None, 0.05, None, None]],
            "model": "reader",
        },
        tab="passage.js",
    ),
)

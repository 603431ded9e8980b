"""Text that goes on, and what happens inside while a text is read, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from recur.errors import RecurError
from recur.explain.inside import packed
from recur.explain.texts import characters_told
from recur.serve.tasks import Options, Row


class GenerateOptions(Options):
    """How to write on."""

    prompt: str = Field("", max_length=20_000, description="What is there already.")
    length: int = Field(300, ge=0, le=5000, description="How many characters to write.")
    temperature: float = Field(0.8, ge=0, le=10, description="0 takes the most probable character each time.")
    top_k: int = Field(0, ge=0, le=10_000, description="Draw from the so many most probable only; 0: from all.")
    top_p: float = Field(1, gt=0, le=1, description="Draw from the fewest that have this much of the probability.")
    seed: int = Field(0, ge=0, le=2**31, description="The same seed gives the same text.")


class ReadOptions(Options):
    """What to read."""

    text: str = Field(min_length=1, max_length=2000, description="The text.")


def generate(model: Any, items: Sequence[GenerateOptions], options: GenerateOptions) -> list[Any]:
    """Texts that wait together, one after the other."""
    return [{"text": model(**each.model_dump()), "model": model.name} for each in items]


def pieces(model: Any, item: GenerateOptions, options: GenerateOptions) -> Iterator[tuple[str, Any]]:
    """A text piece by piece, as it is written."""
    settings = item.model_dump()
    return (("text", {"text": piece}) for piece in model.stream(settings.pop("prompt"), **settings))


def read(model: Any, items: Sequence[str], options: ReadOptions) -> list[Any]:
    """What happens while texts are read: the cost of each character, what was expected, and the top layer's units."""
    out: list[Any] = []
    for text in items:
        try:
            trace = model.trace(text)
        except RecurError as error:
            out.append(error)
            continue
        top = trace.hidden[-1]  # [T, H]
        out.append(
            {
                **characters_told(trace),
                "shape": list(top.shape),
                "hidden": packed(top),
                "model": model.name,
            }
        )
    return out


ROWS = (
    Row(
        path="generate",
        task="language",
        summary="Text that goes on",
        takes_picture=False,
        options=GenerateOptions,
        prepare=lambda model, picture, options, max_pixels: options,
        key=lambda options: None,
        run=generate,
        example={"text": "nd so it was that", "model": "language"},
        live=pieces,
        tab="generate.js",
    ),
    Row(
        path="explain/generate",
        task="language",
        summary="What surprises the model in a text, and its units while it reads",
        takes_picture=False,
        options=ReadOptions,
        prepare=lambda model, picture, options, max_pixels: options.text,
        key=lambda options: None,
        run=read,
        example={"text": "abc", "nats": [None, 1.2, 0.4], "shape": [3, 256], "hidden": {"scale": 0.01, "int8": "AAAA"}},
    ),
)

"""Why it pointed there: what a span reader read of question and passage, and the words that its answer rests on.

A word is taken out, one at a time, and what that costs the answer is told: the fall of the log-probability that it
starts and ends where it does, or that there is none. Whether such words can be believed is measured by taking the ones
that a page names out together, against as many others (`span_faithfulness`).

R tokens of the window of the passage that the answer stands in, Q tokens of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from recur.data.passages import Asked
from recur.errors import InputError
from recur.explain.faithful import FELT, Tally
from recur.explain.texts import TextExplanation
from recur.predict.span import Candidate, Span, SpanReader, Window

REACH: Final = 16  # tokens on each side of an answer that are taken out, one at a time
NAMED: Final = 3  # of them that are named


def explain_span(reader: SpanReader, passage: str, question: str) -> TextExplanation:
    """An answer with what it rests on. Errors: InputError for a passage or question without a word."""
    (told,) = reader.answer([(reader.story(passage), question)])
    if isinstance(told, InputError):
        raise told
    window, place = _window(reader, passage, told)
    reading = window.reading
    asked, near = costs(reader, passage, window, place)
    return TextExplanation(
        {
            "task": "span",
            "passage": passage,
            **told.to_json(),
            "tokens": [list(token) for token in window.tokens],
            "starts": _shares(reading.start[:-1]),
            "ends": _shares(reading.end[:-1]),
            "none": _shares(np.array([reading.start[-1], reading.end[-1]])),
            "asked": window.asked,
            "asked_shares": [round(float(share), 4) for share in reading.asked],
            "attention": [[round(share, 3) for share in row] for row in reading.aligned.tolist()],
            "asked_costs": [round(cost, 3) for cost in asked],
            "costs": [[at, round(cost, 3)] for at, cost in near.items()],
            "named": named(near),
        }
    )


def costs(
    reader: SpanReader, passage: str, window: Window, place: tuple[int, int] | None
) -> tuple[list[float], dict[int, float]]:
    """What the answer at tokens `place` (first, last) of a window, or None for no answer, loses without each word of
    the question, and without each of the words of the passage around it, in nats. An only word is not taken out.
    """
    words = [passage[start:end] for start, end in window.tokens]
    whole = _log(window.reading.start, window.reading.end, place)

    def cost(taken: Sequence[int], gone: int | None = None) -> float:
        return whole - log_without(reader, words, window.asked, place, taken, gone)

    asked = [cost((), gone) for gone in range(len(window.asked))] if len(window.asked) > 1 else [0.0]
    return asked, {at: cost((at,)) for at in around(place, len(words))}


def log_without(
    reader: SpanReader,
    words: Sequence[str],
    asked: Sequence[str],
    place: tuple[int, int] | None,
    taken: Sequence[int],
    gone: int | None = None,
) -> float:
    """The log-probability of an answer with the words `taken` out of the passage, and the word `gone` of the question.

    The words of the answer stay: none of `taken` is in `place`.
    """
    out = set(taken)
    kept = [word for at, word in enumerate(words) if at not in out]
    left = [word for at, word in enumerate(asked) if at != gone]
    reading = reader.read(kept, left)
    if place is None:
        return _log(reading.start, reading.end, None)
    before = sum(at < place[0] for at in out)
    return _log(reading.start, reading.end, (place[0] - before, place[1] - before))


def around(place: tuple[int, int] | None, tokens: int) -> list[int]:
    """The tokens beside an answer that are taken out; for no answer there are none."""
    if place is None:
        return []
    first, last = place
    return [*range(max(0, first - REACH), first), *range(last + 1, min(tokens, last + 1 + REACH))]


def named(near: dict[int, float]) -> list[int]:
    """The words of the passage that cost the answer most, first the one that costs most; each costs something."""
    return [at for at in sorted(near, key=lambda at: (-near[at], at))[:NAMED] if near[at] > 0]


def span_faithfulness(reader: SpanReader, asked: Sequence[Asked], *, seed: int = 0) -> dict[str, Any]:
    """By how much the log-probability of an answer falls without what is said to matter, and without something else.

    `question`: the word of the question that its summary holds most of, and another. `passage`: the words that are
    named beside the answer, together, and as many others of the same neighbourhood. Questions without an answer count
    for the first alone.
    """
    random = np.random.default_rng(seed)
    tallies = {part: {kind: Tally() for kind in ("all", "felt")} for part in ("question", "passage")}
    read = 0
    for each in asked:
        told = reader(each.passage, each.question)
        window, place = _window(reader, each.passage, told)
        words = [each.passage[start:end] for start, end in window.tokens]
        whole = _log(window.reading.start, window.reading.end, place)
        read += 1
        pairs: dict[str, list[float]] = {}
        if len(window.asked) > 1:
            own = int(window.reading.asked.argmax())
            other = int(random.choice([at for at in range(len(window.asked)) if at != own]))
            pairs["question"] = [
                whole - log_without(reader, words, window.asked, place, (), gone) for gone in (own, other)
            ]
        near = costs(reader, each.passage, window, place)[1]
        best = named(near)
        others = [at for at in near if at not in best]
        if best and len(others) >= len(best):
            drawn = random.choice(others, len(best), replace=False).tolist()
            pairs["passage"] = [
                whole - log_without(reader, words, window.asked, place, taken) for taken in (best, drawn)
            ]
        for part, pair in pairs.items():
            tallies[part]["all"].add(*pair)
            if max(pair) >= FELT:
                tallies[part]["felt"].add(*pair)
    parts = {part: {kind: tally.told() for kind, tally in kinds.items()} for part, kinds in tallies.items()}
    return {"task": "span", "texts": read, **parts}


def _window(reader: SpanReader, passage: str, told: Span) -> tuple[Window, tuple[int, int] | None]:
    """The first window that holds the answer, and its first and last token there; for no answer, that of the best."""
    ranked: tuple[Span | Candidate, ...] = (told, *told.others)
    best = next(each for each in ranked if each.answer is not None)
    for window in reader.windows(passage, told.question):
        starts = {start: at for at, (start, _) in enumerate(window.tokens)}
        ends = {end: at for at, (_, end) in enumerate(window.tokens)}
        if best.start in starts and best.end in ends:
            return window, None if told.answer is None else (starts[best.start], ends[best.end])
    raise AssertionError("an answer is in one of the windows that were read")


def _log(start: Any, end: Any, place: tuple[int, int] | None) -> float:
    first, last = (-1, -1) if place is None else place
    return float(start[first] + end[last])


def _shares(logs: Any) -> list[float]:
    return [round(share, 4) for share in np.exp(logs).tolist()]

"""F1 and exact match of answers that are parts of a passage, as SQuAD counts them (Rajpurkar et al. 2016): without
case, marks and English articles; characters of scripts without spaces are words of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from recur.data.passages import tokens_of

ARTICLES = frozenset({"a", "an", "the"})


def normal(answer: str) -> list[str]:
    """The words of an answer that are compared."""
    words = [answer[start:end].lower() for start, end in tokens_of(answer)]
    return [word for word in words if word not in ARTICLES and any(c.isalnum() for c in word)]


def span_scores(answers: Sequence[str | None], references: Sequence[Sequence[str]]) -> dict[str, float | int]:
    """F1 and exact match in percent, the best over the references of each question; a question without references is
    right when no answer is given.
    """
    exact, overlap = 0.0, 0.0
    for answer, known in zip(answers, references, strict=True):
        if answer is None or not known:
            right = float(answer is None and not known)
            exact, overlap = exact + right, overlap + right
            continue
        said = normal(answer)
        exact += max(float(said == normal(each)) for each in known)
        overlap += max(_f1(said, normal(each)) for each in known)
    count = max(len(answers), 1)
    return {"questions": len(answers), "f1": round(100 * overlap / count, 2), "em": round(100 * exact / count, 2)}


def _f1(said: Sequence[str], known: Sequence[str]) -> float:
    same = sum((Counter(said) & Counter(known)).values())
    if not same:
        return float(not said and not known)
    return 2 * same / (len(said) + len(known))

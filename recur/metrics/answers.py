"""Scores of answers to questions about stories."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from recur.data.stories import Story

SOLVED: Final = 0.95  # the accuracy from which a bAbI task counts as solved (Weston et al. 2015)


def story_scores(stories: Sequence[Story], answers: Sequence[str], trained: Collection[str] = ()) -> dict[str, Any]:
    """Accuracy by task, the mean of the tasks, and how many of them are solved.

    Where `trained` names tasks, mean and solved are of these alone, and `untrained` names the others. An answer of
    several words is right when all of them are, in their order.
    """
    right: dict[str, list[bool]] = {}
    for story, answer in zip(stories, answers, strict=True):
        right.setdefault(story.task, []).append(answer == story.answer)
    tasks = {
        task: {"questions": len(each), "accuracy": round(sum(each) / len(each), 4)} for task, each in right.items()
    }
    counted = [task for task in tasks if task in trained] or list(tasks)
    scores = [tasks[task]["accuracy"] for task in counted]
    return {
        "questions": len(stories),
        "mean": round(sum(scores) / len(scores), 4),
        "solved": sum(score >= SOLVED for score in scores),
        "tasks": tasks,
        "untrained": [task for task in tasks if task not in counted],
    }

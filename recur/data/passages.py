"""Passages with questions whose answers are parts of them: SQuAD's JSON (v1.1 and v2, XQuAD), and lines of JSON with
tokens; and how a text is cut into tokens that know their places.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recur.data.lines import BROKEN, open_lines
from recur.errors import RecurError

MAX_FILE: Final = 1 << 30  # bytes
_TOKEN: Final = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]"
)


@dataclass(frozen=True)
class Asked:
    """A question about a passage. `answers`: (start, end) of each, in characters; none when the passage has no answer.

    `group` is the same for all questions of a passage and of its translations.
    """

    passage: str
    question: str
    answers: tuple[tuple[int, int], ...]
    group: str

    @property
    def held_out(self) -> bool:
        """Whether its passage is one of the tenth that is not learned from."""
        return hashlib.sha256(self.group.encode("utf-8", "replace")).digest()[0] % 10 == 0


def tokens_of(text: str) -> list[tuple[int, int]]:
    """Start and end of every token: a word, a character of a script without spaces, or a mark."""
    return [match.span() for match in _TOKEN.finditer(text)]


def read_asked(path: Path) -> tuple[list[Asked], list[str]]:
    """The questions of a file, plain or compressed, and a line for each that is left out.

    An answer that does not stand where the file says is looked for: the nearest place where it does stand is taken. A
    question none of whose answers is in the passage is left out. Errors: RecurError for what is no such file.
    """
    try:
        with open_lines(path) as stream:
            content = stream.read(MAX_FILE + 1)
    except (*BROKEN, OSError) as error:
        raise RecurError(f"{path}: broken ({error}); expected questions in SQuAD's JSON; get it again") from error
    if len(content) > MAX_FILE:
        raise RecurError(f"{path}: more than {MAX_FILE} bytes; expected fewer; split it")
    problems: list[str] = []
    try:
        text = content.decode("utf-8-sig")
        first = text.lstrip().split("\n", 1)[0]
        whole = _object(text) if '"span"' not in first else None
        found = list(_squad(whole, path, problems) if whole is not None else _lines(text, path, problems))
    except (ValueError, RecursionError) as error:
        raise RecurError(f"{path}: no JSON ({error}); expected questions as SQuAD has them; get it again") from error
    if not found:
        why = f" ({problems[0]})" if problems else ""
        raise RecurError(f"{path}: no question that can be used{why}; expected SQuAD's JSON; give another file")
    return found, problems


def _object(text: str) -> dict[str, Any]:
    whole = json.loads(text)
    if not isinstance(whole, dict) or not isinstance(whole.get("data"), list):
        raise ValueError("no object with a list 'data'")
    return whole


def _squad(whole: dict[str, Any], path: Path, problems: list[str]) -> Iterator[Asked]:
    for article in whole["data"]:
        for paragraph in article.get("paragraphs", ()) if isinstance(article, dict) else ():
            passage, questions = paragraph.get("context"), paragraph.get("qas", ())
            if not isinstance(passage, str) or not isinstance(questions, list):
                problems.append(f"{path}: a paragraph without 'context' and 'qas'; left out")
                continue
            group = str(questions[0].get("id", passage)) if questions and isinstance(questions[0], dict) else passage
            for each in questions:
                where = f"{path}: question {each.get('id', '?') if isinstance(each, dict) else '?'}"
                question = each.get("question") if isinstance(each, dict) else None
                if not isinstance(question, str) or not tokens_of(question) or not tokens_of(passage):
                    problems.append(f"{where}: a question or passage without a word; left out")
                    continue
                if each.get("is_impossible"):
                    yield Asked(passage, question, (), group)
                    continue
                given = [entry for entry in each.get("answers") or () if isinstance(entry, dict)]
                spans = [_place(passage, entry.get("text"), entry.get("answer_start")) for entry in given]
                good = tuple(dict.fromkeys(span for span in spans if span is not None))
                if good:
                    yield Asked(passage, question, good, group)
                else:
                    problems.append(f"{where}: no answer that is in the passage; left out")


def _place(passage: str, answer: object, start: object) -> tuple[int, int] | None:
    """Where an answer stands in a passage, nearest to `start`; None when it does not."""
    if not isinstance(answer, str) or not answer.strip():
        return None
    wanted = answer.strip()
    near = start if isinstance(start, int) else 0
    if near >= 0 and passage.startswith(wanted, near):
        return near, near + len(wanted)
    places = [match.start() for match in re.finditer(re.escape(wanted), passage)]
    if not places:
        return None
    best = min(places, key=lambda place: abs(place - near))
    return best, best + len(wanted)


def _lines(text: str, path: Path, problems: list[str]) -> Iterator[Asked]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        passage, question, span = (row.get(key) for key in ("context", "question", "span"))
        if not isinstance(passage, str) or not isinstance(question, str) or not tokens_of(question):
            problems.append(f"{path}: line {number}: no 'context' and 'question'; left out")
            continue
        ends = [match.span() for match in re.finditer(r"\S+", passage)]
        if (
            not isinstance(span, list)
            or len(span) != 2
            or not all(type(each) is int for each in span)
            or not 0 <= span[0] <= span[1] < len(ends)
        ):
            problems.append(f"{path}: line {number}: span {span!r} is not in the passage; left out")
            continue
        yield Asked(passage, question, ((ends[span[0]][0], ends[span[1]][1]),), passage)

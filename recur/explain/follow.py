"""What a unit of a character model may follow: the rules, and which units follow each of them.

Karpathy et al. 2016 ("Visualizing and Understanding Recurrent Networks") found by eye units that are on inside quotes,
or that count how far a line has come; here each rule is a number for every character, and a unit follows it as far as
its output goes with that number (Pearson's correlation over the characters). A rule says what is known once the
character has been read, as the unit's output does.

T characters, L layers, H units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recur.engine.reference import Array

Numbers = npt.NDArray[np.float64]
LINE: Final = 80  # a line counts no further
NAMED: Final = 3  # units told of each rule


def inside(opens: str, closes: str) -> Callable[[str], Iterable[float]]:
    """1 from an opening sign to before the closing one; a sign that is both toggles. An empty line ends it."""

    def rule(text: str) -> Iterable[float]:
        within, last = False, ""
        for character in text:
            if character in opens and character in closes:
                within = not within
            elif character in opens:
                within = True
            elif character in closes or (character == last == "\n"):
                within = False
            last = character
            yield float(within)

    return rule


def since(marks: str, most: int) -> Callable[[str], Iterable[float]]:
    """How many characters there were since one of `marks`, at most `most`; from the beginning where there was none."""

    def rule(text: str) -> Iterable[float]:
        count = 0
        for character in text:
            count = 0 if character in marks else min(count + 1, most)
            yield float(count)

    return rule


def after(marks: str) -> Callable[[str], Iterable[float]]:
    """1 where the last character that is no white space is one of `marks`."""

    def rule(text: str) -> Iterable[float]:
        last = " "
        for character in text:
            last = last if character.isspace() else character
            yield float(last in marks)

    return rule


def of_kind(kind: Callable[[str], bool]) -> Callable[[str], Iterable[float]]:
    """1 where the character itself is of a kind."""
    return lambda text: (float(kind(character)) for character in text)


def place_in_word(text: str) -> Iterable[float]:
    """How many letters of its word there were so far; 0 between words."""
    count = 0
    for character in text:
        count = count + 1 if character.isalpha() else 0
        yield float(count)


RULES: Final[dict[str, Callable[[str], Iterable[float]]]] = {
    "inside quotes": inside('"“«„', '"”»'),
    "inside brackets": inside("([", ")]"),
    "position in the line": since("\n", LINE),
    "after a comma": after(",;"),
    "after the end of a sentence": after(".!?"),
    "after a colon": after(":"),
    "position in the word": place_in_word,
    "a space or line end": of_kind(str.isspace),
    "a capital letter": of_kind(str.isupper),
    "a vowel": of_kind(lambda character: character in "aeiouAEIOU"),
}


def rule_values(name: str, text: str) -> Numbers:
    """The numbers [T] of a rule for a text."""
    return np.fromiter(RULES[name](text), np.float64, len(text))


def correlations(values: Numbers, hidden: Array) -> Numbers:
    """Pearson's correlation [L, H] of numbers [T] with every unit of hidden [L, T, H]; 0 for what never changes."""
    plain = values - values.mean()
    units = hidden.astype(np.float64) - hidden.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = np.sqrt((plain**2).sum() * (units**2).sum(axis=1))
    together: Numbers = np.einsum("t,lth->lh", plain, units)
    np.divide(together, spread, out=together, where=spread > 1e-12)
    together[spread <= 1e-12] = 0
    return together


def follows(text: str, hidden: Array) -> list[dict[str, Any]]:
    """For each rule the units whose outputs [L, T, H] go with it best, layers and units counted from 1.

    `units` is empty for a rule of which the text has no case.
    """
    told = []
    for name in RULES:
        found = correlations(rule_values(name, text), hidden)
        width = found.shape[1]
        best = np.argsort(-np.abs(found).ravel(), kind="stable")[:NAMED].tolist()
        units = [
            {
                "layer": place // width + 1,
                "unit": place % width + 1,
                "correlation": round(float(found.flat[place]), 4),
            }
            for place in best
            if found.flat[place]
        ]
        told.append({"rule": name, "units": units})
    return told

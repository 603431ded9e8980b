"""Words as the index holds them, and questions in its language.

FTS5 cuts text into tokens at spaces and signs. Chinese has no spaces, so every character of a script that is written
without them becomes a token of its own, and a word of it in a question becomes a phrase: characters that follow each
other. SQLite's own answer, the trigram tokenizer, finds nothing shorter than three characters, and most Chinese words
have two. English is stemmed (`porter`): "dogs running" finds "a dog runs".
"""

from __future__ import annotations

import re
from typing import Final

from recur.errors import RecurError

TOKENIZER: Final = "porter unicode61 remove_diacritics 2"

# Written without spaces: kana, Han with its extensions and compatibility forms.
_DENSE: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_CHARACTER: Final = re.compile(f"([{_DENSE}])")
_PIECE: Final = re.compile(rf"[{_DENSE}]+|[^\W{_DENSE}]+")
_QUOTED: Final = re.compile(r'"([^"]*)"|([^"\s]+)')
# Words that say nothing about a picture: a caption need not have them to be an answer.
_LITTLE: Final = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "into", "is", "it", "its", "of", "on", "or",
     "that", "the", "their", "there", "this", "to", "was", "with")
)  # fmt: skip


def spaced(text: str) -> str:
    """`text` with every character of a dense script on its own, as the index holds it."""
    return _CHARACTER.sub(r" \1 ", text)


def question(text: str) -> str:
    """The question in FTS5's language: all words must be there, in any order; "quoted ones" next to each other.

    Little words ("a", "on") count only in quotes, or when there are no others. Raises RecurError when no word is left.
    """
    phrases: list[list[str]] = []
    for quoted, plain in _QUOTED.findall(text.replace("\0", " ")):
        pieces = [list(piece) if _CHARACTER.match(piece) else [piece] for piece in _PIECE.findall(quoted or plain)]
        phrases += [[token for piece in pieces for token in piece]] if quoted else pieces
    phrases = [phrase for phrase in phrases if phrase]
    telling = [phrase for phrase in phrases if len(phrase) > 1 or phrase[0].lower() not in _LITTLE]
    if not phrases:
        raise RecurError(f"{text!r}: no word to look for; expected words such as: dog on a beach")
    # In double quotes nothing means anything to FTS5 but the quotes, and a piece has none.
    return " AND ".join('"{}"'.format(" ".join(phrase)) for phrase in telling or phrases)

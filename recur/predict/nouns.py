"""Words that name the classes of a detector, so that the words of a caption can be tied to boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recur.errors import RecurError


class Nouns:
    """For each language, words and the class that each names; kept as `tokenizer.json` of a detector's bundle.

    In languages without spaces between words a noun may be several tokens of a caption.
    """

    def __init__(self, words: Mapping[str, Mapping[str, str]]) -> None:
        self.words = {language: dict(nouns) for language, nouns in words.items()}
        self._longest = {language: max(map(len, nouns), default=0) for language, nouns in self.words.items()}

    @classmethod
    def from_bytes(cls, data: bytes, classes: Sequence[str]) -> Nouns:
        """Read them. Errors: RecurError when they are broken or name a class that is not there."""
        try:
            content: Any = json.loads(data.decode("utf-8"))
            words = {
                language: {str(noun): str(name) for noun, name in nouns.items()}
                for language, nouns in content["nouns"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RecurError(f"tokenizer.json: no nouns of a detector ({error}); get the bundle again") from error
        odd = {name for nouns in words.values() for name in nouns.values()} - {*classes}
        if odd:
            raise RecurError(f"tokenizer.json: nouns of {min(odd)!r}, which is no class; get the bundle again")
        return cls(words)

    def to_bytes(self) -> bytes:
        """As `from_bytes` reads them."""
        return json.dumps({"nouns": self.words}, ensure_ascii=False, sort_keys=True).encode("utf-8")

    def classes_of(self, words: Sequence[str], language: str) -> list[str | None]:
        """The class that each word of a caption names, None for most. Chinese nouns may span several words."""
        nouns = self.words.get(language, {})
        if language not in ("zh", "ja", "th"):
            return [nouns.get(word) for word in words]
        found: list[str | None] = [None] * len(words)
        place = 0
        while place < len(words):
            for stop in range(min(len(words), place + self._longest.get(language, 0)), place, -1):
                name = nouns.get("".join(words[place:stop]))
                if name is not None:
                    found[place:stop] = [name] * (stop - place)
                    place = stop
                    break
            else:
                place += 1
        return found

"""Words of a caption: cleaning, splitting, joining, and the vocabulary that gives each word a number.

Two kinds of script are told apart by the character, not by the language. In spaced scripts (Latin, Cyrillic, Arabic,
Devanagari, Hangul, ...) a token is a word in lower case. In unspaced scripts (Chinese, Japanese, Thai, Lao, Khmer, ...)
a token is one character with the marks that sit on it. Punctuation is dropped everywhere, so the tokens of an English
caption agree with what the COCO metrics compare. English contractions are split as in the Penn Treebank
(`man's` -> `man 's`, `doesn't` -> `does n't`), and French or Italian elisions after the apostrophe (`l'` `homme`).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from recur.errors import RecurError

PAD: Final = 0
END: Final = 1
UNK: Final = 2
SPECIAL: Final = ("<pad>", "<end>", "<unk>")
FORMAT_VERSION: Final = 1
MAX_TOKENS: Final = 1_000_000

UNSPACED: Final = (  # blocks of scripts that put no space between words (Unicode 15, Blocks.txt)
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x312F),  # Hangzhou numerals, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo extended
    (0x31F0, 0x31FF),  # Katakana extended
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0xA48F),  # Han, Yi
    (0xA980, 0xA9DF),  # Javanese
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAA7F),  # Myanmar extended A
    (0xF900, 0xFAFF),  # Han compatibility
    (0x1B000, 0x1B16F),  # Kana supplement and extensions
    (0x20000, 0x3FFFF),  # Han extensions B and later
)
# Characters that Unicode's own normalisation would leave alone or turn into something with a space.
_REPLACE: Final = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u02b9\u2032\u0060\u00b4\uff07", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\uff02", '"'),
        **dict.fromkeys("\u2010\u2011\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00ad\ufeff\u2060", ""),  # soft hyphen, byte order mark, word joiner
        "\u200b": " ",  # zero-width space separates words
        "\u2044": "/",  # what a fraction such as one half decomposes to
    }
)
# NFKC splits these two vowels; the joined form is how they are written.
_REJOIN: Final = (("\u0e4d\u0e32", "\u0e33"), ("\u0ecd\u0eb2", "\u0eb3"))

_CLITICS: Final = frozenset({"'s", "'re", "'ve", "'ll", "'d", "'m", "n't"})
_CLITIC_AT_END: Final = re.compile(r"^(.+)('s|'re|'ve|'ll|'d|'m|n't)$", re.DOTALL)
_ELIDING: Final = frozenset({"fr", "it", "ca", "oc"})
_DOTLESS: Final = frozenset({"tr", "az"})

# One letter for each kind of character: c unspaced, w letter, d digit, m mark, and ' - . , : as themselves.
_TOKEN: Final = re.compile(
    r"cm*"  # one character of an unspaced script
    r"|'?[wd][wdm]*"  # a word, perhaps a lone clitic such as 's
    r"(?:(?:['-]|(?<=d)[.:](?=d)|(?<=d),(?=ddd(?!d)))[wd][wdm]*)*"  # o'clock, t-shirt, 3.5, 10:30, 1,000
)


class _Kinds(dict[str, str]):
    """Kind of each character, worked out on first use: asking Unicode for all of them would slow the start."""

    def __missing__(self, char: str) -> str:
        kind = self[char] = _kind(char)
        return kind


def _kind(char: str) -> str:
    if char in "'-.,:":
        return char
    category = unicodedata.category(char)
    if category[0] == "M" or char in "\u200c\u200d":  # the joiners shape words in Persian and Indic scripts
        return "m"
    if category == "Nd":
        return "d"
    if category[0] in "LN":
        return "c" if is_unspaced(char) else "w"
    return " "


_KINDS: Final = _Kinds()


def is_unspaced(char: str) -> bool:
    """Whether a character is of a script that puts no space between words."""
    return any(low <= ord(char) <= high for low, high in UNSPACED)


def base_language(lang: str) -> str:
    """`zh-CN`, `zh_Hans` and `ZH` are all `zh`."""
    return lang.replace("_", "-").split("-")[0].lower()


def normalise(text: str, lang: str) -> str:
    """Clean a caption for people and metrics: case and punctuation stay, everything else becomes uniform.

    Unicode NFKC (full-width letters and digits become plain ones), curly quotes and hyphens become ASCII ones, control
    characters vanish, white space becomes single spaces, and spaces between two characters of an unspaced script
    are taken out (some corpora put them there as word boundaries). English `&` becomes `and`.
    """
    if not text.isascii():
        text = _compose(text)
    if base_language(lang) == "en" and "&" in text:
        text = text.replace("&", " and ")
    if not text.isprintable():
        text = "".join(" " if char.isspace() else char for char in text if _visible(char))
    text = " ".join(text.split())
    if " " in text and not text.isascii():
        text = _close_up(text)
    return text


def _compose(text: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_REPLACE)).translate(_REPLACE)
    for apart, joined in _REJOIN:
        text = text.replace(apart, joined)
    return text


def _visible(char: str) -> bool:
    return char.isspace() or char in "\u200c\u200d" or unicodedata.category(char)[0] != "C"


def _close_up(text: str) -> str:
    """Drop a space when both its neighbours belong to an unspaced script (a mark belongs to what it sits on)."""
    words = text.split(" ")
    out = words[0]
    for left, right in pairwise(words):
        out += right if _ends_unspaced(left) and _KINDS[right[0]] == "c" else " " + right
    return out


def _ends_unspaced(word: str) -> bool:
    for char in reversed(word):
        kind = _KINDS[char]
        if kind != "m":
            return kind == "c"
    return False


def tokenize(text: str, lang: str) -> list[str]:
    """The tokens that the network reads and writes, in lower case and without punctuation.

    `tokenize("A man's 3 T-shirts!", "en")` is `["a", "man", "'s", "3", "t-shirts"]`;
    `tokenize("两个人。", "zh")` is `["两", "个", "人"]`. `lang` decides contractions, elisions and Turkish case.
    """
    base = base_language(lang)
    if base == "en" and "&" in text:
        text = text.replace("&", " and ")
    if base in _DOTLESS:
        text = text.replace("I", "\u0131").replace("\u0130", "i")
    if text.isascii():
        text = text.replace("`", "'").lower()
    else:  # NFKC can bring back upper case, and lower case can bring back what NFKC composes
        text = _compose(_compose(text).lower())
        text = text.lower() if base in _DOTLESS or text.islower() else _compose(text.lower())
    kinds = "".join(map(_KINDS.__getitem__, text))
    tokens: list[str] = []
    for match in _TOKEN.finditer(kinds):
        token = text[match.start() : match.end()]
        if "'" not in token:
            tokens.append(token)
        else:
            tokens.extend(_split_apostrophe(token, base))
    return tokens


def _split_apostrophe(token: str, base: str) -> list[str]:
    if token[0] == "'":
        if base == "en" and token in _CLITICS:
            return [token]
        token = token[1:]
    if base in _ELIDING:
        return [part for part in re.split(r"(?<=')", token) if part]
    if base != "en":
        return [token]
    tail: list[str] = []
    while match := _CLITIC_AT_END.match(token):
        token = match[1]
        tail.insert(0, match[2])
    return [token, *tail]


def detokenize(tokens: Sequence[str], lang: str) -> str:
    """Join tokens into a caption: `["a", "man", "'s", "hat"]` -> `a man's hat`, `["两", "个", "人"]` -> `两个人`.

    A space stands between two words, and none next to a character of an unspaced script. `tokenize` takes the result
    apart into the same tokens again.
    """
    base = base_language(lang)
    tokens = [token for token in tokens if token]
    out = tokens[0] if tokens else ""
    for left, right in pairwise(tokens):
        glued = (
            _KINDS[right[0]] == "c"
            or _ends_unspaced(left)
            or (base == "en" and right in _CLITICS and left not in _CLITICS)
            or (base in _ELIDING and left[-1] == "'")
        )
        out += right if glued else " " + right
    return out


class Vocabulary:
    """Words and their numbers: 0 PAD, 1 END, 2 UNK, then one token a language (`<en>`), then words.

    Words stand by language and then by how often they were seen, so the words of one language are a few runs of ids.
    Make one with `build`, `load` or `from_bytes`. It does not change afterwards.
    """

    def __init__(
        self,
        words: Sequence[str],
        languages: Sequence[str],
        allowed: Mapping[str, Iterable[int]],
        counts: Sequence[int] | None = None,
    ) -> None:
        """`words` without the special tokens; `allowed` maps a language to the ids it may use; `counts` go with words.

        Raises `RecurError` when a word is empty or appears twice, or an id does not exist.
        """
        self.languages: tuple[str, ...] = tuple(languages)
        tags = tuple(f"<{lang}>" for lang in self.languages)
        self.tokens: tuple[str, ...] = (*SPECIAL, *tags, *words)
        self.first_word: int = len(SPECIAL) + len(tags)
        self.counts: tuple[int, ...] = tuple(counts) if counts is not None else (0,) * len(words)
        self._ids: dict[str, int] = {token: index for index, token in enumerate(self.tokens)}
        self._check(words)
        self._allowed: dict[str, NDArray[np.bool_]] = {}
        for lang in self.languages:
            mask = np.zeros(len(self.tokens), dtype=np.bool_)
            ids = np.fromiter(allowed.get(lang, ()), dtype=np.int64)
            if ids.size and (ids.min() < self.first_word or ids.max() >= len(self.tokens)):
                raise RecurError(
                    f"vocabulary: language {lang} allows id {int(ids.max())}; "
                    f"expected word ids {self.first_word}..{len(self.tokens) - 1}; build it again"
                )
            mask[ids] = True
            mask[END] = True
            mask.flags.writeable = False
            self._allowed[lang] = mask

    def _check(self, words: Sequence[str]) -> None:
        if not self.languages:
            raise RecurError("vocabulary: no language; expected at least one, such as en")
        for lang in self.languages:
            if not lang or lang != lang.strip() or f"<{lang}>" in SPECIAL:
                raise RecurError(f"vocabulary: language {lang!r} is no language code; expected one such as en or zh")
        if len(self.tokens) > MAX_TOKENS:
            raise RecurError(
                f"vocabulary: {len(self.tokens)} tokens; expected at most {MAX_TOKENS}; raise min_count (--min-count)"
            )
        if len(self._ids) != len(self.tokens):
            twice = next(token for token, count in Counter(self.tokens).items() if count > 1)
            raise RecurError(f"vocabulary: {twice!r} appears twice; expected every token once; build it again")
        if any(not word for word in words):
            raise RecurError("vocabulary: an empty word; expected at least one character in each; build it again")
        if len(self.counts) != len(words):
            raise RecurError(
                f"vocabulary: {len(self.counts)} counts for {len(words)} words; expected one each; build it again"
            )

    @classmethod
    def build(
        cls, captions_by_lang: Mapping[str, Iterable[Sequence[str]]], min_count: int | Mapping[str, int] = 5
    ) -> Self:
        """The words seen at least `min_count` times in a language (one number, or one for each language).

        `captions_by_lang` maps a language to its tokenized captions. A language may use the words that it has
        often enough itself, not those that only another language has. Raises `RecurError` when nothing is left.
        """
        seen: dict[str, dict[str, int]] = {}
        for lang, captions in captions_by_lang.items():
            counter: Counter[str] = Counter()
            for tokens in captions:
                counter.update(tokens)
            least = min_count if isinstance(min_count, int) else min_count.get(lang, 1)
            seen[lang] = {word: count for word, count in counter.items() if count >= least and word}
        languages = list(seen)
        reserved = {*SPECIAL, *(f"<{lang}>" for lang in languages)}
        total: Counter[str] = Counter()
        home: dict[str, tuple[int, ...]] = {}
        for index, lang in enumerate(languages):
            for word, count in seen[lang].items():
                if word not in reserved:
                    total[word] += count
                    home[word] = (*home.get(word, ()), index)
        if not total:
            raise RecurError(
                f"vocabulary: no word is seen {min_count} times or more; expected captions with words; "
                "give more captions or a smaller min_count (--min-count)"
            )
        words = sorted(total, key=lambda word: (home[word], -total[word], word))
        first = len(SPECIAL) + len(languages)
        ids = {word: first + index for index, word in enumerate(words)}
        allowed = {lang: [ids[word] for word in seen[lang] if word in ids] for lang in languages}
        return cls(words, languages, allowed, [total[word] for word in words])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, languages {', '.join(self.languages)})"

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of tokens, UNK for a token that is not in the vocabulary. No END is added."""
        get = self._ids.get
        return [get(token, UNK) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Tokens up to the first END. PAD and language tokens are left out; UNK is `<unk>`."""
        tokens: list[str] = []
        for number in ids:
            index = int(number)
            if index == END:
                break
            if not 0 <= index < len(self.tokens):
                raise RecurError(f"vocabulary: id {index}; expected 0..{len(self.tokens) - 1}; use the model's own one")
            if index == UNK or index >= self.first_word:
                tokens.append(self.tokens[index])
        return tokens

    def language_id(self, lang: str) -> int:
        """Id of the language token. Raises `RecurError` naming the languages there are."""
        if lang not in self.languages:
            raise RecurError(
                f"language {lang!r} is not in this model; expected one of {', '.join(self.languages)}; choose one"
            )
        return len(SPECIAL) + self.languages.index(lang)

    def allowed(self, lang: str) -> NDArray[np.bool_]:
        """[V] True for END and the words that were seen in `lang`; never PAD, UNK or a language token. Read-only."""
        self.language_id(lang)
        return self._allowed[lang]

    def to_bytes(self) -> bytes:
        """The exact content of `tokenizer.json`; the same vocabulary always gives the same bytes."""
        meta: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "languages": list(self.languages),
            "tokens": list(self.tokens),
            "allowed": {lang: _runs(np.flatnonzero(mask[self.first_word :]) + self.first_word)
                        for lang, mask in self._allowed.items()},
            "counts": list(self.counts),
        }  # fmt: skip
        return (json.dumps(meta, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8")

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_bytes()`, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read `tokenizer.json`. Raises `RecurError` when it is missing, broken, newer or not a vocabulary."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise RecurError(f"{path}: cannot be read ({error.strerror}); expected a tokenizer.json") from error
        return cls.from_bytes(data, source=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, source: str = "tokenizer.json") -> Self:
        """The vocabulary in the bytes of a `tokenizer.json`; `source` names it in messages."""
        again = "take the file from the bundle again, or train again"
        try:
            meta = json.loads(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise RecurError(f"{source}: not UTF-8 text; expected JSON; {again}") from error
        except (ValueError, RecursionError) as error:
            raise RecurError(f"{source}: broken JSON ({error}); {again}") from error
        if not isinstance(meta, dict):
            raise RecurError(f"{source}: got a JSON {type(meta).__name__}; expected an object; {again}")
        version = meta.get("version")
        if type(version) is not int or version < 1:
            raise RecurError(f"{source}: version {version!r}; expected {FORMAT_VERSION}; {again}")
        if version > FORMAT_VERSION:
            raise RecurError(
                f"{source}: version {version} is newer than {FORMAT_VERSION}, which this recur reads; upgrade recur"
            )
        tokens, languages, counts = (_list(meta, key, kind, source) for key, kind in _SCHEMA)
        head = [*SPECIAL, *(f"<{lang}>" for lang in languages)]
        if tokens[: len(head)] != head:
            raise RecurError(f"{source}: tokens begin {tokens[: len(head)]}; expected {head}; {again}")
        allowed = meta.get("allowed")
        if not isinstance(allowed, dict) or sorted(allowed) != sorted(languages):
            raise RecurError(f"{source}: 'allowed' does not have exactly the languages {languages}; {again}")
        if any(count < 0 for count in counts):
            raise RecurError(f"{source}: a count below zero; {again}")
        ids = {lang: _ids_of(runs, len(tokens), f"{source}: 'allowed' of {lang}") for lang, runs in allowed.items()}
        try:
            return cls(tokens[len(head) :], languages, ids, counts)
        except RecurError as error:
            raise RecurError(f"{source}: {error}") from error


_SCHEMA: Final = (("tokens", str), ("languages", str), ("counts", int))


def _list(meta: dict[str, Any], key: str, kind: type, source: str) -> list[Any]:
    value = meta.get(key)
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise RecurError(f"{source}: {key!r} is not a list of {kind.__name__}; take the file from the bundle again")
    return value


def _runs(ids: NDArray[np.int64]) -> list[list[int]]:
    """Ascending ids as half-open runs [start, stop]."""
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    return [[int(run[0]), int(run[-1]) + 1] for run in np.split(ids, breaks) if run.size]


def _ids_of(runs: object, size: int, where: str) -> list[int]:
    ids: list[int] = []
    if not isinstance(runs, list):
        raise RecurError(f"{where} is not a list of [start, stop] runs; take the file from the bundle again")
    stop_before = 0
    for run in runs:
        if not (isinstance(run, list) and len(run) == 2 and all(type(item) is int for item in run)):
            raise RecurError(f"{where} has {run!r}; expected a run [start, stop]; take the file from the bundle again")
        start, stop = run
        if not stop_before <= start < stop <= size:
            raise RecurError(
                f"{where} has [{start}, {stop}]; expected ascending runs up to {size}; "
                "take the file from the bundle again"
            )
        ids.extend(range(start, stop))
        stop_before = stop
    return ids

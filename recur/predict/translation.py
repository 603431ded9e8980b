"""Sentences in another language, and which word came from which.

>>> translator = recur.load("translator")
>>> translator(["A dog runs."], source="en", target="de")  # doctest: +SKIP

B sentences, R pieces of a source, T pieces of a translation, F features of a piece.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, cast

import numpy as np

from recur.bundle import Bundle, BundleError
from recur.data.ahead import as_they_come
from recur.data.lines import Line, groups
from recur.data.subwords import END, SPACE, UNK, Subwords, clean, split_words
from recur.engine.hypotheses import Hypothesis, log_softmax
from recur.engine.native import Decoder, Stack
from recur.engine.reference import Array, Cell, IntArray
from recur.errors import InputError, RecurError
from recur.predict.voice import precision_of

SENTENCE: Final = 50  # pieces; longer texts are cut between sentences
LONGEST: Final = 100  # pieces of a part that has no end of a sentence
# A translation is no longer than twice the size of its part, and ten pieces; parts of one size are computed together,
# so that a result does not depend on what else is in the batch.
SIZES: Final = (12, 25, 50, LONGEST, 1 << 10)
ALIGNED: Final = 20  # parts of a text whose shares of attention are kept, so that a long text takes no more memory
UNSPACED: Final = frozenset({"zh", "ja", "th"})
MARKS: Final = frozenset(".!?…。！？")
_ENDS: Final = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")


@dataclass(frozen=True)
class Aligned:
    """A sentence, or a part of one, word by word: `weights[t][r]` is the share of its attention that word t of the
    translation `words` gave to word r of the `source`; each row adds up to 1.
    """

    source: tuple[str, ...]
    words: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """`{"source": [word, …], "words": [word, …], "weights": [[share, …], …]}`"""
        rows = [[round(weight, 4) for weight in row] for row in self.weights]
        return {"source": list(self.source), "words": list(self.words), "weights": rows}


@dataclass(frozen=True)
class Translation:
    """`translation` of `source`, its log-probability, and for each of its words the source word it was read from.

    `alignment` has (word, source word, weight): the share of attention that the source word got; `parts` has the
    shares of all source words, sentence by sentence, of the first 20. What has no mark at its end is read with a full
    stop, which is taken off its translation again.
    """

    source: str
    translation: str
    log_prob: float
    alignment: tuple[tuple[str, str, float], ...]
    languages: tuple[str, str]
    model: str
    parts: tuple[Aligned, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One plain object, ready for `json.dumps`."""
        return {
            "source": self.source,
            "translation": self.translation,
            "log_prob": round(self.log_prob, 4),
            "alignment": [[word, other, round(weight, 4)] for word, other, weight in self.alignment],
            "from": self.languages[0],
            "to": self.languages[1],
            "model": self.model,
        }

    def _repr_html_(self) -> str:
        """Source and translation, for a notebook; pointed at, a word tells which word it was read from."""
        parts, rest = [], self.translation
        for word, other, weight in self.alignment:
            before, found, after = rest.partition(word)
            if found:  # a word that was written otherwise in the end, with a capital say, tells nothing
                about = html.escape(f"{other} {weight:.2f}")
                parts.append(f'{html.escape(before)}<span title="{about}">{html.escape(word)}</span>')
                rest = after
        source, target = map(html.escape, self.languages)
        shown = f'<span lang="{target}">{"".join(parts)}{html.escape(rest)}</span>'
        return f'<p><span lang="{source}">{html.escape(self.source)}</span><br>{shown}</p>'


@dataclass(frozen=True)
class _Part:
    """A sentence, or a part of one: its words, and the pieces of all of them with the word of each."""

    words: tuple[str, ...]
    ids: tuple[int, ...]
    owner: tuple[int, ...]

    @property
    def ended(self) -> bool:
        """Whether a sign stands at its end."""
        return not self.words[-1][-1:].isalnum()

    def followed_by(self, other: _Part) -> _Part:
        """Both as one."""
        owner = (*self.owner, *(len(self.words) + place for place in other.owner))
        return _Part((*self.words, *other.words), (*self.ids, *other.ids), owner)

    @property
    def strange(self) -> bool:
        """Whether a word cannot be spelled, so that it has to be copied."""
        return UNK in self.ids


@dataclass(frozen=True)
class _Done:
    text: str
    log_prob: float
    alignment: tuple[tuple[str, str, float], ...]
    aligned: Aligned | None


class Translator:
    """Translates with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """Errors: BundleError when the bundle is for something else."""
        if bundle.task != "translate":
            raise BundleError(
                f"{bundle.path}: a model for {bundle.task!r}; expected one for 'translate'; choose another"
            )
        self.bundle, self.name, meta = bundle, bundle.name, bundle.meta
        self.directions: tuple[tuple[str, str], ...] = tuple((a, b) for a, b in meta["directions"])
        self.subwords = Subwords.from_bytes(bundle.tokenizer, source=f"{bundle.path}: tokenizer.json")
        self._decode = meta["decode"]
        cell, precision = cast(Cell, meta["cell"]), precision_of(bundle)
        encoder = {n.removeprefix("encoder."): w for n, w in bundle.weights.items() if n.startswith("encoder.")}
        self._encoder = Stack(encoder, cell=cell, bidirectional=True, precision=precision, threads=threads)
        rest = {name: value for name, value in bundle.weights.items() if not name.startswith("encoder.")}
        self._embedding = rest["embedding.weight"]
        network = Decoder(rest, cell=cell, layers=int(meta["layers"]), precision=precision, threads=threads)
        self._decoders: dict[tuple[str, bool], Decoder] = {}
        for lang in dict.fromkeys(target for _, target in self.directions):
            words = self.subwords.allowed(lang)
            # UNK is written only where there is something to copy.
            self._decoders[lang, True] = network.with_words(words)
            self._decoders[lang, False] = network.with_words(words[words != UNK])

    def __call__(
        self,
        texts: str | Iterable[str],
        *,
        source: str | None = None,
        target: str | None = None,
        beam: int | None = None,
        batch: int = 32,
    ) -> list[Translation]:
        """A translation of each text, or of a single one. Errors: InputError for the first that is empty; RecurError
        for languages that the model does not know.
        """
        given = [texts] if isinstance(texts, str) else texts
        pair, search = self._settings(source, target, beam, batch, None)
        return [_good(result) for result in self._results(groups(self._parts(given), batch), pair, search)]

    def direction(self, source: str | None, target: str | None) -> tuple[str, str]:
        """The direction that is meant; a language that is left out may be the only one possible.

        Errors: RecurError, naming those there are.
        """
        fitting = [(a, b) for a, b in self.directions if source in (None, a) and target in (None, b)]
        if not fitting:
            known = ", ".join(f"{a} to {b}" for a, b in self.directions)
            raise RecurError(
                f"{source or 'any'} to {target or 'any'}: model {self.name!r} translates {known}; choose one of these"
            )
        return fitting[0]

    def stream(
        self,
        texts: Iterable[str | Line | InputError],
        *,
        source: str | None = None,
        target: str | None = None,
        beam: int | None = None,
        batch: int = 32,
        length_penalty: float | None = None,
    ) -> Iterator[Translation | InputError]:
        """Translations in the order of the texts, as they are ready; one that fails gives its InputError.

        Texts of several sentences are translated sentence by sentence, `batch` of them at a time. `texts` is iterated
        in a thread of its own; when it is slow (a pipe), what it gave is not kept waiting.
        """
        pair, search = self._settings(source, target, beam, batch, length_penalty)
        return self._results(as_they_come(self._parts(texts), batch, name="recur-texts"), pair, search)

    # ------------------------------------------------------------------------------------------------------- inside

    def _settings(
        self, source: str | None, target: str | None, beam: int | None, batch: int, length_penalty: float | None
    ) -> tuple[tuple[str, str], tuple[int, float]]:
        """The direction, and beam and length penalty, checked."""
        width = int(self._decode["beam"]) if beam is None else beam
        penalty = float(self._decode["length_penalty"]) if length_penalty is None else length_penalty
        if not 1 <= width <= 1024 or not 1 <= batch <= 1024:
            raise RecurError(f"beam {width}, batch {batch}; expected 1 to 1024; choose others")
        return self.direction(source, target), (width, penalty)

    def _results(
        self,
        batches: Iterable[Sequence[tuple[str | InputError, _Part | None, bool]]],
        pair: tuple[str, str],
        search: tuple[int, float],
    ) -> Iterator[Translation | InputError]:
        waiting: list[_Done] = []
        for group in batches:
            ready = self._translate([part for _, part, _ in group if part is not None], pair, *search)
            for item, part, last in group:
                if isinstance(item, InputError):
                    yield item
                    continue
                if part is not None:
                    done = next(ready)
                    waiting.append(done if len(waiting) < ALIGNED else replace(done, aligned=None))
                if last:
                    yield self._joined(item, waiting, pair)
                    waiting = []

    def _joined(self, text: str, parts: Sequence[_Done], pair: tuple[str, str]) -> Translation:
        between = "" if pair[1] in UNSPACED else " "
        return Translation(
            source=text,
            translation=between.join(part.text for part in parts),
            log_prob=float(sum(part.log_prob for part in parts)),
            alignment=tuple(entry for part in parts for entry in part.alignment),
            languages=pair,
            model=self.name,
            parts=tuple(part.aligned for part in parts if part.aligned is not None),
        )

    def _parts(self, texts: Iterable[str | Line | InputError]) -> Iterator[tuple[str | InputError, _Part | None, bool]]:
        """Each text with its parts one by one, and whether a part is its last."""
        for number, item in enumerate(texts, 1):
            if isinstance(item, InputError):
                yield item, None, True
                continue
            where, text = (item.where, item.text) if isinstance(item, Line) else (f"text {number}", item)
            plain = clean(text)
            if not plain:
                yield InputError(where, "empty", "give some words"), None, True
                continue
            before: _Part | None = None
            for part in self._cut(plain):
                if before is not None:
                    yield text, before, False
                before = part
            yield text, before, True

    def _cut(self, text: str) -> Iterator[_Part]:
        # A text that surely is long need not be encoded whole to find that out.
        if len(text) <= 20 * SENTENCE:
            whole = self._part(split_words(text))
            if len(whole.ids) <= SENTENCE:
                yield whole
                return
        at = 0
        for end in chain((match.end() for match in _ENDS.finditer(text)), (len(text),)):
            words = split_words(text[at:end].strip())
            at = end
            line: list[str] = []
            size = 0
            for word in words:
                pieces = len(self.subwords.encode_word(word))
                if line and size + pieces > LONGEST:
                    yield self._part(line)
                    line, size = [], 0
                line.append(word)
                size += pieces
            if line:
                yield self._part(line)

    def _part(self, words: Sequence[str]) -> _Part:
        pieces = [self.subwords.encode_word(word) for word in words]
        return _Part(
            tuple(words),
            tuple(number for each in pieces for number in each),
            tuple(place for place, each in enumerate(pieces) for _ in each),
        )

    def _translate(self, parts: Sequence[_Part], pair: tuple[str, str], beam: int, penalty: float) -> Iterator[_Done]:
        # Who has learned from sentences ends with the translation of the full stop, and without one goes on and on.
        mark = self._part(["。" if pair[0] in UNSPACED else "."])
        read = [part if part.ended or UNK in mark.ids else part.followed_by(mark) for part in parts]
        found: list[_Done | None] = [None] * len(parts)
        together: dict[tuple[bool, int], list[int]] = defaultdict(list)
        for place, part in enumerate(read):
            if set(parts[place].ids) == {UNK}:
                # What has no word that can be spelled, such as a line of emoji, is its own translation.
                found[place] = _copied(parts[place])
            else:
                together[part.strange, next(size for size in SIZES if len(part.ids) <= size)].append(place)
        for places in together.values():
            some = [read[place] for place in places]
            for place, best in zip(places, self.search(some, pair[1], beam, penalty), strict=True):
                found[place] = self._told(parts[place], best, ended=read[place] is parts[place])
        return (each for each in found if each is not None)

    def search(self, parts: Sequence[_Part], target: str, beam: int, penalty: float) -> list[Hypothesis]:
        """The best hypothesis of each part; all of them of one of the `SIZES`, with or without strange words."""
        features, lengths = self._encoded(parts)
        size = next(size for size in SIZES if lengths.max() <= size)
        hypotheses = self._decoders[target, parts[0].strange].beam_search(
            features,
            prompt=np.full((len(parts), 1), self.subwords.language_id(target)),
            end=END,
            beam=beam,
            length_penalty=penalty,
            memory_lengths=lengths,
            min_length=1,
            max_length=2 * size + 10,
        )
        return [best for best, *_ in hypotheses]

    def sentence(self, words: Sequence[str]) -> _Part:
        """Words, as `split_words` gives them, as one part that `search` and `log_probs` take."""
        return self._part(words)

    def log_probs(self, parts: Sequence[_Part], numbers: Sequence[int], target: str) -> Array:
        """What the pieces `numbers` [T] of a translation would have, [N, T], each after those before it, had `parts`
        been the source. All parts with strange words, or none.
        """
        decoder = self._decoders[target, parts[0].strange]
        features, lengths = self._encoded(parts)
        begun = np.array([self.subwords.language_id(target), *numbers[:-1]])
        given = np.repeat(begun[None], len(parts), axis=0)
        found = log_softmax(decoder.read(given, features, memory_lengths=lengths).logits)
        places = np.searchsorted(np.asarray(decoder.words), np.asarray(numbers))
        told: Array = found[:, np.arange(len(numbers)), places]
        return told

    def _encoded(self, parts: Sequence[_Part]) -> tuple[Array, IntArray]:
        """Features [N, R, F] of parts, and their lengths [N]."""
        lengths = np.array([len(part.ids) for part in parts])
        ids = np.zeros((len(parts), int(lengths.max())), np.int64)
        for row, part in zip(ids, parts, strict=True):
            row[: len(part.ids)] = part.ids
        return self._encoder.scan(self._embedding[ids], lengths=lengths).outputs, lengths

    def _told(self, part: _Part, best: Hypothesis, *, ended: bool) -> _Done:
        """What was found for a part, which was read with a full stop unless it `ended` with a sign itself."""
        assert best.attention is not None
        attention = best.attention[:, : len(part.ids)]  # the rest belongs to longer ones of the batch
        numbers = best.tokens.tolist()
        if not ended:
            attention = attention / np.maximum(attention.sum(axis=1, keepdims=True), 1e-9)
            if len(numbers) > 1 and self.subwords.tokens[numbers[-1]].removeprefix(SPACE) in MARKS:
                del numbers[-1]
                attention = attention[:-1]
        unknown = [place for place, number in enumerate(part.ids) if number == UNK]
        copies = [
            part.words[part.owner[unknown[int(looks[unknown].argmax())]]]
            for number, looks in zip(numbers, attention, strict=True)
            if number == UNK
        ]
        text = self.subwords.decode(numbers, copies)
        aligned = self._aligned(part, numbers, copies, attention)
        return _Done(text, best.log_prob, tuple(_strongest(aligned)), aligned)

    def _aligned(
        self, part: _Part, numbers: Sequence[int], copies: Sequence[str], attention: np.ndarray[Any, Any]
    ) -> Aligned:
        """For each word of the translation how its attention was shared among the source words."""
        words = [
            (plain, places)
            for word, places in self.spelled(numbers, copies)
            if (plain := word.replace(SPACE, " ").strip())
        ]
        rows = (
            np.bincount(part.owner, attention[places].mean(axis=0), minlength=len(part.words)) for _, places in words
        )
        return Aligned(
            tuple(word.replace(SPACE, "") for word in part.words),
            tuple(word for word, _ in words),
            tuple(tuple(row.tolist()) for row in rows),
        )

    def spelled(self, numbers: Sequence[int], copies: Sequence[str] = ()) -> list[tuple[str, list[int]]]:
        """The words that pieces spell, each with the places of its pieces; `copies` stand for the unknown ones."""
        rest = iter(copies)
        words: list[tuple[str, list[int]]] = []
        for place, number in enumerate(numbers):
            piece = next(rest) if number == UNK else self.subwords.tokens[number]
            # A sign stands alone, and what follows one without a space begins a word.
            begins = piece.startswith(SPACE) or not piece[0].isalnum() or not words or not words[-1][0][-1:].isalnum()
            if begins:
                words.append((piece, [place]))
            else:
                words[-1] = (words[-1][0] + piece, [*words[-1][1], place])
        return words


def _strongest(aligned: Aligned) -> Iterator[tuple[str, str, float]]:
    """Each word with the source word that got most of its attention."""
    for word, shares in zip(aligned.words, aligned.weights, strict=True):
        best = max(range(len(shares)), key=shares.__getitem__)
        if word:
            yield word, aligned.source[best], shares[best]


def _good(result: Translation | InputError) -> Translation:
    if isinstance(result, InputError):
        raise result
    return result


def _copied(part: _Part) -> _Done:
    plain = tuple(word.replace(SPACE, "") for word in part.words)
    text = "".join(part.words).replace(SPACE, " ").strip()
    shares = tuple(tuple(float(place == number) for place in range(len(plain))) for number in range(len(plain)))
    aligned = Aligned(plain, plain, shares)
    return _Done(text, 0.0, tuple(_strongest(aligned)), aligned)

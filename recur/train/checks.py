"""Warnings about what usually goes wrong: in the data before training, in the captions after it.

Every function gives lines for a person, `what was found; what to do`. None of them stops a training.

N pictures, pairs of pictures are rows (i, j) with i < j.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recur.data.captions import CaptionData, CaptionedPicture
from recur.data.images import iterate_pictures
from recur.data.text import Vocabulary, tokenize
from recur.errors import InputError
from recur.train.caption_data import DEFAULT_MAX_WORDS, MAX_WORDS

HELD_OUT: Final = ("dev", "test")
NEAR_BITS: Final = 4  # of 64: recompression and resizing change fewer, another picture many more
NEAR_GREY: Final = 12.0  # of 255, mean difference of the small pictures: rules out chance agreement of the bits
PLAIN_BITS: Final = 6  # fewer set (or unset) than this: a picture without structure, whose bits say nothing
PAIRS_AT_ONCE: Final = 1 << 22
LONG_SHARE: Final = 0.01
SHARED_SHARE: Final = (
    0.5  # short sentences recur by themselves: 28 % of Flickr8k-CN's dev captions are in its train split
)
SAME_SHARE: Final = 0.1  # of pictures that may get the most common caption
DISTINCT_SHARE: Final = 0.15
BAD_END_SHARE: Final = 0.02
END_USES, END_SHARE = 20, 0.005  # a word used that often in references that ends so few of them cannot end a caption
COMMON_SHARE: Final = 0.03  # a word in the references of so many pictures ought to be produced once
SHOWN: Final = 8  # words or pictures that a warning lists


# ------------------------------------------------------------------------------------------------------- the data


def check_data(data: CaptionData, *, pictures: bool = True, workers: int = 2) -> list[str]:
    """Warnings about captions and splits; with `pictures` each one is opened, to find near-duplicates across splits."""
    warnings = [
        *_single_references(data),
        *_long_captions(data),
        *_shared_captions(data),
    ]
    return [*warnings, *_near_duplicates(data, workers=workers)] if pictures else warnings


def _single_references(data: CaptionData) -> Iterator[str]:
    for lang in data.languages:
        counts = [len(p.captions[lang]) for p in data.pictures if p.split in HELD_OUT and p.captions.get(lang)]
        single = counts.count(1)
        if single:
            yield (
                f"{lang}: {single} of {len(counts)} dev and test pictures have one caption only; scores on them are "
                "low and noisy, the usual number is 5: do not compare them with published ones"
            )


def _long_captions(data: CaptionData) -> Iterator[str]:
    for lang in data.languages:
        limit = MAX_WORDS.get(lang, DEFAULT_MAX_WORDS)
        lengths = [(len(tokenize(text, lang)), p.path) for p in data.pictures for text in p.captions.get(lang, ())]
        long = [entry for entry in lengths if entry[0] > limit]
        longest, path = max(lengths, default=(0, Path()))
        if len(long) > LONG_SHARE * len(lengths) or longest > 4 * limit:
            yield (
                f"{lang}: {len(long)} of {len(lengths)} captions have more than {limit} words (the longest {longest}, "
                f"of {path.name}); the rest of each is cut off: split them into sentences or shorten them"
            )


def _shared_captions(data: CaptionData) -> Iterator[str]:
    """Captions of held-out pictures that training sees word for word."""
    for lang in data.languages:
        known: set[str] = set()
        known_sets: dict[frozenset[str], CaptionedPicture] = {}
        held: list[CaptionedPicture] = []
        for picture in data.pictures:
            texts = picture.captions.get(lang, ())
            if picture.split == "train":
                plain = [" ".join(tokenize(text, lang)) for text in texts]
                known.update(plain)
                if len(plain) > 1:
                    known_sets.setdefault(frozenset(plain), picture)
            elif picture.split in HELD_OUT and texts:
                held.append(picture)
        total = shared = 0
        twins: list[str] = []
        for picture in held:
            plain = [" ".join(tokenize(text, lang)) for text in picture.captions[lang]]
            total += len(plain)
            shared += sum(text in known for text in plain)
            twin = known_sets.get(frozenset(plain))
            if twin is not None:
                twins.append(f"{picture.path.name} ({picture.split}) and {twin.path.name} (train)")
        if twins:
            yield (
                f"{lang}: {len(twins)} dev and test pictures have exactly the captions of a train picture, for example "
                f"{twins[0]}; results on them will be too good: keep each picture in one split"
            )
        if shared > SHARED_SHARE * total and total >= 20:
            yield (
                f"{lang}: {shared} of {total} dev and test captions are in train word for word; results on them will "
                "be too good: keep all pictures that share captions in one split"
            )


def _near_duplicates(data: CaptionData, *, workers: int) -> Iterator[str]:
    used = [picture for picture in data.pictures if picture.split != "none"]
    if len({picture.split for picture in used}) < 2:
        return
    greys, kept = small_greys([picture.path for picture in used], workers=workers)
    splits = np.array([used[row].split for row in kept])
    found: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for i, j in near_pairs(greys, groups=splits).tolist():
        first, second = (i, j) if splits[i] in HELD_OUT and splits[j] not in HELD_OUT else (j, i)
        found[str(splits[first]), str(splits[second])].append((first, second))
    for (split, other), pairs in sorted(found.items()):
        names = ", ".join(f"{used[kept[a]].path.name} = {used[kept[b]].path.name}" for a, b in pairs[:3])
        yield (
            f"{len({a for a, _ in pairs})} {split} pictures are nearly the same as one in {other}, for example "
            f"{names}; results will be too good: keep each group of such pictures in one split"
        )


# ----------------------------------------------------------------------------------------------- looking alike


def small_greys(paths: Sequence[Path], *, workers: int = 2) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Every readable picture as 8 rows of 9 grey values in 0..255, [N, 8, 9], and their places in `paths`, [N]."""
    rows: list[NDArray[np.float32]] = []
    kept: list[int] = []
    for place, (_, square) in enumerate(iterate_pictures(paths, size=72, workers=workers, ahead=64)):
        if not isinstance(square, InputError):
            grey = square.pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
            rows.append(grey.reshape(8, 9, 9, 8).mean((1, 3)))
            kept.append(place)
    return np.stack(rows) if rows else np.zeros((0, 8, 9), np.float32), np.array(kept, np.int64)


def difference_hash(greys: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits a picture [N, 8, 9] -> [N]: is each of 8 x 8 cells brighter than its left neighbour?"""
    bits = (np.diff(greys, axis=2) > 0).reshape(len(greys), 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(len(greys))


def near_pairs(greys: NDArray[np.float32], *, groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """Pairs [P, 2] of pictures in different groups whose hashes differ in at most `NEAR_BITS` and that look alike.

    Two hashes at most 4 bits apart agree in at least one of 5 bands of bits: only pairs that share a band are compared,
    so that the work grows with the number of pictures that look alike rather than with the square of all.
    """
    hashes = difference_hash(greys)
    ones = _count_bits(hashes)
    rows = np.flatnonzero((ones >= PLAIN_BITS) & (ones <= 64 - PLAIN_BITS))
    found: list[NDArray[np.int64]] = []
    edges = np.linspace(0, 64, NEAR_BITS + 2).astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        keys = (hashes[rows] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        ranked, members = keys[order], rows[order]
        # Each picture meets those after it in the run of equal keys that it stands in.
        ends = np.searchsorted(ranked, ranked, side="right")
        for start, stop in _portions(ends - np.arange(len(ranked)) - 1):
            partners = ends[start:stop] - np.arange(start, stop) - 1
            first = np.repeat(np.arange(start, stop), partners)
            offset = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
            a, b = members[first], members[first + 1 + offset]
            near = (groups[a] != groups[b]) & (_count_bits(hashes[a] ^ hashes[b]) <= NEAR_BITS)
            a, b = a[near], b[near]
            alike = np.abs(greys[a] - greys[b]).mean((1, 2)) <= NEAR_GREY
            found.append(np.stack([np.minimum(a, b), np.maximum(a, b)], 1)[alike])
    return np.unique(np.concatenate(found), axis=0) if found else np.zeros((0, 2), np.int64)


def _portions(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut a list of counts into runs whose sums stay near `PAIRS_AT_ONCE`, so that memory stays bounded."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + PAIRS_AT_ONCE, side="right")))
        yield start, stop
        start = stop


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Set bits of each number, [N] -> [N]. (`numpy.bitwise_count` is NumPy 2 only.)"""
    bits = np.unpackbits(np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits.sum(axis=1, dtype=np.int64))


# -------------------------------------------------------------------------------------------------- the captions


def check_captions(captions: Sequence[str], references: Sequence[Sequence[str]], vocabulary: Vocabulary) -> list[str]:
    """Warnings about the captions a model gave to pictures whose references are known, in one language.

    Both are tokens joined by spaces; `captions[i]` and `references[i]` belong to the same picture.
    """
    if not captions:
        return []
    count = len(captions)
    warnings: list[str] = []
    empty = sum(not caption.strip() for caption in captions)
    if empty:
        warnings.append(f"{empty} of {count} captions are empty; train longer, or look for empty captions in the data")
    common, times = Counter(captions).most_common(1)[0]
    distinct = len(set(captions))
    if distinct == 1 and count > 1:
        warnings.append(
            f"all {count} pictures get the same caption, {common!r}; the features do not reach the network: "
            "check the encoder, lower the learning rate or train longer"
        )
    elif times > max(SAME_SHARE * count, 1) or (count >= 20 and distinct < DISTINCT_SHARE * count):
        warnings.append(
            f"only {distinct} distinct captions for {count} pictures, the most common one ({common!r}) for {times}; "
            "train longer, give more varied data, or try --cider"
        )
    words = [caption.split() for caption in captions]
    truth = [[text.split() for text in texts] for texts in references]
    warnings += _bad_endings(words, truth)
    warnings += _never_produced(words, truth, vocabulary)
    return warnings


def _bad_endings(captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Iterator[str]:
    """Captions that break off: people use their last word often, and all but never at the end."""
    uses: Counter[str] = Counter(word for texts in references for words in texts for word in words)
    ends: Counter[str] = Counter(words[-1] for texts in references for words in texts if words)
    bad = Counter(
        words[-1]
        for words in captions
        if words and uses[words[-1]] >= END_USES and ends[words[-1]] <= END_SHARE * uses[words[-1]]
    )
    if bad.total() > max(BAD_END_SHARE * len(captions), 1):
        shown = ", ".join(f"{word!r} {times}" for word, times in bad.most_common(SHOWN))
        yield (
            f"{bad.total()} of {len(captions)} captions end on a word that no sentence ends on ({shown}); raise the "
            "longest caption, or train longer with cross-entropy"
        )


def _never_produced(
    captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], vocabulary: Vocabulary
) -> Iterator[str]:
    """Words that the model knows, that people use for many of these pictures, and that it never says."""
    known = set(vocabulary.tokens[vocabulary.first_word :])
    produced = {word for words in captions for word in words}
    pictures: Counter[str] = Counter(
        word for texts in references for word in {word for words in texts for word in words if word in known}
    )
    missing = [
        (word, times)
        for word, times in pictures.most_common()
        if times >= max(COMMON_SHARE * len(captions), 3) and word not in produced
    ]
    if missing:
        shown = ", ".join(f"{word!r} ({times} pictures)" for word, times in missing[:SHOWN])
        yield (
            f"{len(missing)} common words are never produced: {shown}{' …' if len(missing) > SHOWN else ''}; "
            f"{len(produced & set(pictures))} of the {len(pictures)} words of the references are: train longer, or "
            "give more pictures of these things"
        )

"""Captions as numbers and pictures as features: what a training step of the captioner asks for.

N pictures, P pictures of one step, R grid cells, F encoder channels, T steps.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recur.data.captions import CaptionData, CaptionedPicture
from recur.data.images import iterate_pictures
from recur.data.text import END, PAD, Vocabulary, tokenize
from recur.errors import InputError, RecurError
from recur.train.precision import autocast
from recur.train.teacher import cut_view
from recur.train.team import device_of

MAX_WORDS = {"zh": 32, "ja": 40, "th": 60}
DEFAULT_MAX_WORDS = 24
ALL = slice(None)
SAID_TWICE = (
    0.05  # of the sentences with a word: where it comes twice less often than that, it is a mistake of a network
)


@dataclass(frozen=True)
class Split:
    """Pictures of one split; `tokens[lang][i]` are the tokenized captions of picture i in that language.

    `contents`: the files of the pictures, where they do not lie at their paths.
    """

    pictures: tuple[CaptionedPicture, ...]
    tokens: Mapping[str, tuple[tuple[tuple[str, ...], ...], ...]]
    contents: Sequence[bytes] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def paths(self) -> list[Path]:
        return [picture.path for picture in self.pictures]

    @property
    def files(self) -> Sequence[Path | bytes]:
        """What each picture is read from."""
        return self.paths if self.contents is None else self.contents


def make_split(data: CaptionData, name: str) -> Split:
    """The pictures of split `name`, their captions tokenized for the network."""
    pictures = tuple(picture for picture in data.pictures if picture.split == name)
    tokens = {
        lang: tuple(
            tuple(words for text in picture.captions.get(lang, ()) if (words := tuple(tokenize(text, lang))))
            for picture in pictures
        )
        for lang in data.languages
    }
    return Split(pictures, tokens)


def keep(split: Split, kept: Sequence[int]) -> Split:
    """The same split with the pictures at `kept` only (the others could not be read)."""
    return Split(
        tuple(split.pictures[i] for i in kept),
        {lang: tuple(rows[i] for i in kept) for lang, rows in split.tokens.items()},
    )


def repeatable_words(split: Split, vocabulary: Vocabulary, lang: str) -> list[str]:
    """The words that people say twice in a sentence, in at least `SAID_TWICE` of the sentences that have them."""
    having: Counter[str] = Counter()
    twice: Counter[str] = Counter()
    for rows in split.tokens[lang]:
        for words in rows:
            for word, count in Counter(words).items():
                having[word] += 1
                twice[word] += count > 1
    known = {vocabulary.tokens[number] for number in np.flatnonzero(vocabulary.allowed(lang))}
    return sorted(word for word, count in having.items() if word in known and twice[word] >= SAID_TWICE * count)


def data_hash(data: CaptionData) -> str:
    """SHA-256 over names, splits and captions, so that a card can say which data made a model."""
    digest = hashlib.sha256()
    for picture in sorted(data.pictures, key=lambda p: (p.split, p.path.name)):
        digest.update(f"{picture.path.name}\0{picture.split}\0{sorted(picture.captions.items())}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class CaptionBatch:
    """Captions of one language: `tokens` [N, T] begin with the language token, `targets` [N, T] are what follows.

    Where they are a part of the captions of a step, `among` is how many those are, and which of them these [N] are, and
    `asked` the number of targets of them all.
    """

    owner: Tensor  # [N] position in the step's pictures
    tokens: Tensor
    targets: Tensor  # -1 where there is nothing to predict
    lengths: Tensor  # [N] tokens of each row
    words: Tensor  # [Vl] the ids this language may use; targets are positions in it
    among: tuple[int, Tensor] | None = None
    asked: int = 0

    def to(self, device: torch.device) -> CaptionBatch:
        """The same on another device; itself when it is there."""
        if self.tokens.device == device:
            return self
        return CaptionBatch(
            self.owner.to(device),
            self.tokens.to(device),
            self.targets.to(device),
            self.lengths.to(device),
            self.words.to(device),
            None if self.among is None else (self.among[0], self.among[1].to(device)),
            self.asked,
        )

    def part(self, pictures: slice) -> CaptionBatch:
        """The captions of some of the step's pictures, which `owner` counts from the first of them."""
        start, stop, _ = pictures.indices(int(self.owner.max()) + 1)
        mine = ((self.owner >= start) & (self.owner < stop)).nonzero()[:, 0]
        return CaptionBatch(
            self.owner[mine] - start,
            self.tokens[mine],
            self.targets[mine],
            self.lengths[mine],
            self.words,
            (len(self.owner), mine),
            int((self.targets >= 0).sum()),
        )


class Captions:
    """The captions of a split as id lists, served as padded batches."""

    def __init__(self, split: Split, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.ids: dict[str, list[list[list[int]]]] = {}
        self.words: dict[str, Tensor] = {}
        self.position: dict[str, NDArray[np.int64]] = {}
        for lang in vocabulary.languages:
            limit = MAX_WORDS.get(lang, DEFAULT_MAX_WORDS)
            self.ids[lang] = [[vocabulary.encode(words)[:limit] for words in rows] for rows in split.tokens[lang]]
            allowed = np.flatnonzero(vocabulary.allowed(lang))
            self.words[lang] = torch.from_numpy(allowed)
            position = np.full(len(vocabulary), -1, np.int64)
            position[allowed] = np.arange(len(allowed))
            self.position[lang] = position

    def batch(
        self, lang: str, rows: NDArray[np.int64], rng: np.random.Generator | None = None, *, most: int = 1
    ) -> CaptionBatch | None:
        """All captions of the pictures `rows` in one language, or, with `rng`, at most `most` drawn for each of them;
        None when they have none.
        """
        found = [self.ids[lang][row] for row in rows]
        if rng is not None:
            found = [[several[i] for i in rng.permutation(len(several))[:most]] for several in found]
        captions = [(place, ids) for place, several in enumerate(found) for ids in several]
        if not captions:
            return None
        steps = max(len(ids) for _, ids in captions) + 1
        tokens = np.full((len(captions), steps), PAD, np.int64)
        targets = np.full((len(captions), steps), -1, np.int64)
        tokens[:, 0] = self.vocabulary.language_id(lang)
        position = self.position[lang]
        for i, (_, ids) in enumerate(captions):
            tokens[i, 1 : len(ids) + 1] = ids
            # A word outside the vocabulary is read (as UNK) but never asked for: its position is -1.
            targets[i, : len(ids) + 1] = position[[*ids, END]]
        owner = torch.tensor([place for place, _ in captions])
        lengths = torch.tensor([len(ids) + 1 for _, ids in captions])
        return CaptionBatch(owner, torch.from_numpy(tokens), torch.from_numpy(targets), lengths, self.words[lang])


class FeatureSource(Protocol):
    """Where the features of a step come from."""

    def features(self, rows: NDArray[np.int64], rng: np.random.Generator | None, part: slice = ALL) -> Tensor:
        """[P, R, F] of pictures `rows`; `rng` draws the augmentation, None means the picture as it is.

        With `part` of these rows only; what is drawn is drawn for all of them.
        """
        ...


class FrozenFeatures:
    """Features computed before training: [N, V, R, F], half precision."""

    def __init__(self, stored: NDArray[np.float16]) -> None:
        self.stored = stored

    def features(self, rows: NDArray[np.int64], rng: np.random.Generator | None, part: slice = ALL) -> Tensor:
        views = np.zeros(len(rows), int) if rng is None else rng.integers(0, self.stored.shape[1], len(rows))
        return torch.from_numpy(self.stored[rows[part], views[part]].astype(np.float32))


class TrainedFeatures:
    """Features computed by an encoder that is trained along, from pictures [N, Y, X, 3] uint8."""

    def __init__(self, pixels: NDArray[np.uint8], encoder: nn.Module) -> None:
        self.pixels, self.encoder = pixels, encoder
        self.learning = True

    def features(self, rows: NDArray[np.int64], rng: np.random.Generator | None, part: slice = ALL) -> Tensor:
        side = self.pixels.shape[1]
        whole = np.array([0, 0, 1, 1, 0], np.float32)
        views = []
        for _ in rows:
            view = whole.copy()
            if rng is not None:
                share = np.sqrt(rng.uniform(0.75, 1.0, 2))
                corner = rng.uniform(0, 1, 2) * (1 - share)
                view[:] = (*corner, *(corner + share), rng.integers(0, 2))
            views.append(view)
        mine = zip(rows[part], views[part], strict=True)
        batch = torch.cat([cut_view(self.pixels[row], view, side) for row, view in mine])
        pixels = batch.float()
        if rng is not None:
            shape = (len(rows), 3, 1, 1)
            gain = rng.uniform(0.8, 1.25, (len(rows), 1, 1, 1)) * rng.uniform(0.95, 1.05, shape)
            pixels = (pixels * torch.from_numpy(gain[part].astype(np.float32))).clamp_(0, 255)
        with torch.set_grad_enabled(rng is not None and self.learning and torch.is_grad_enabled()):
            grid: Tensor = self.encoder(pixels.to(device_of(self.encoder)))
        return grid.flatten(2).transpose(1, 2) if grid.ndim == 4 else grid.reshape(len(batch), -1, grid.shape[-1])


class MovingSource(Protocol):
    """What `freeze` asks for: the pictures [N, Y, X, 3] uint8, and the encoder."""

    @property
    def pixels(self) -> NDArray[np.uint8]: ...

    @property
    def encoder(self) -> nn.Module: ...


def freeze(source: MovingSource, *, batch: int = 64) -> FrozenFeatures:
    """The features of every picture and its mirror image, for the phases that leave the encoder alone."""
    parts: list[NDArray[np.float16]] = []
    everything = source.pixels  # once: a source may have to collect them
    device = device_of(source.encoder)
    with torch.inference_mode(), autocast():
        for start in range(0, len(everything), batch):
            pixels = torch.from_numpy(everything[start : start + batch]).permute(0, 3, 1, 2)
            both = [source.encoder(view.float().to(device)) for view in (pixels, pixels.flip(3))]
            grids = [g.flatten(2).transpose(1, 2) if g.ndim == 4 else g for g in both]
            parts.append(torch.stack(grids, 1).float().cpu().numpy().astype(np.float16))
    return FrozenFeatures(np.concatenate(parts))


def read_pixels(split: Split, side: int) -> tuple[Split, NDArray[np.uint8], list[str]]:
    """Every picture of a split squashed to [side, side, 3]; pictures that cannot be read are left out and named."""
    squares: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    problems: list[str] = []
    for i, (_, square) in enumerate(iterate_pictures(split.paths, size=side, workers=2, ahead=64)):
        if isinstance(square, InputError):
            problems.append(str(square))
        else:
            kept.append(i)
            squares.append(square.pixels)
    if not kept:
        raise RecurError(
            f"none of {len(split)} pictures could be read; first: {problems[0] if problems else 'none given'}"
        )
    return keep(split, kept), np.stack(squares), problems

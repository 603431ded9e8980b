"""The explanation of a caption: for one picture, everything that the page shows, as plain numbers.

>>> explanation = explain(recur.load("captioner"), "photo.jpg")  # doctest: +SKIP
>>> explanation.write("page.html")  # doctest: +SKIP

In a notebook an explanation shows itself; `figure` draws it for a paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from recur.data.images import MAX_PIXELS, Picture, Source, Square, read_picture, read_square
from recur.engine.hypotheses import Hypothesis
from recur.engine.reference import Array, Cell, IntArray
from recur.errors import InputError, RecurError
from recur.explain.inside import (
    Pass,
    continue_from,
    grow,
    read_sentence,
    runners_up,
    sentence_tokens,
    states,
    text_of,
    tree,
    word_scores,
)
from recur.predict.caption import Caption, Captioner
from recur.predict.looking import looked_at
from recur.predict.regions import attended_regions
from recur.predict.voice import END_WORD, Voice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_SIDE = 640  # pixels of the longer side of the picture on a page


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the page of one picture shows.

    `data` is what `--json` prints (docs/explain.md tells its keys); `pixels` uint8 [Y, X, 3] the picture, reduced.
    """

    data: dict[str, Any]
    pixels: NDArray[np.uint8]

    def write(self, path: str | Path) -> Path:
        """Write the offline page to `path`, whole or not at all. Raises OSError."""
        from recur.explain.page import write_page

        return write_page(path, [self])

    def figure(self, language: str | None = None) -> Figure:
        """A matplotlib figure: the picture once for each word, lit where the network looked.

        Errors: RecurError without matplotlib, and for a language that is not in the explanation.
        """
        from recur.explain.figure import draw

        return draw(self, language)

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its script can reach nothing of the notebook."""
        from recur.explain.page import framed, render_page

        return framed(render_page([self]), height=760)


def explain(
    captioner: Captioner,
    picture: Source,
    *,
    languages: Sequence[str] | None = None,
    beam: int | None = None,
    n_best: int = 5,
    detail: bool = True,
    objects: Sequence[Any] = (),
    max_pixels: int = MAX_PIXELS,
) -> Explanation:
    """Caption one picture in `languages` (all of the model's when None) and tell how it came about.

    Without `detail` only the words are told: no continuations, no search, no states. `objects` are what a detector
    found, each with `label`, `score` and `box` in pixels of the picture.
    Errors: InputError for a picture that cannot be read; RecurError for options that make no sense.
    """
    square = read_square(picture, size=captioner.size, max_pixels=max_pixels)  # as the captioner reads it, to the pixel
    if isinstance(square, InputError):
        raise square
    shown = read_picture(picture, target=SHOWN_SIDE, max_pixels=max_pixels)
    name = str(picture) if isinstance(picture, (str, Path)) else None
    features = captioner.encode([square])
    data = explain_square(
        captioner, square, features, languages=languages, beam=beam, n_best=n_best, detail=detail, objects=objects
    )
    data["picture"]["name"] = name
    return Explanation(data, _reduced(shown))


def explain_square(
    captioner: Captioner,
    square: Square,
    features: Array,
    *,
    languages: Sequence[str] | None = None,
    beam: int | None = None,
    n_best: int = 5,
    detail: bool = True,
    continuations: bool = True,
    objects: Sequence[Any] = (),
) -> dict[str, Any]:
    """The `data` of an explanation, from a picture that is read already and its features [1, R, F].

    Without `continuations` the sentences that runners-up would have led to are left out, which is half of the work.
    """
    (captions,) = captioner.describe([square], languages, features=features, beam=beam, n_best=n_best)
    sentences = []
    for caption in captions:
        voice = captioner.voice(caption.language)
        tokens = sentence_tokens(voice, [word.word for word in caption.words])
        teller = _Teller(captioner, square, features, voice, beam or voice.beam, n_best)
        sentence = teller.sentence(tokens, detail=detail, continuations=continuations)
        sentences.append(_headed(caption) | sentence)
    found = [
        {
            "label": str(each.label),
            "score": round(float(each.score), 4),
            "box": [round(float(side), 1) for side in each.box],
        }
        for each in objects
    ]
    return {
        "picture": {
            "name": None,
            "width": square.width,
            "height": square.height,
            "grid": list(captioner.encoder.grid),
            "notes": list(square.notes),
        },
        "model": captioner.name,
        "sentences": sentences,
        "objects": found,
    }


def explain_beginning(
    captioner: Captioner,
    square: Square,
    features: Array,
    language: str,
    beginning: Sequence[str],
    *,
    beam: int | None = None,
) -> dict[str, Any]:
    """One sentence of an explanation: the best one that begins with these words, with its runners-up and states.

    `END_WORD` as the last word of the beginning asks for the sentence that ends there.
    Errors: RecurError for a word that the language does not have, and for a beginning that is too long.
    """
    voice = captioner.voice(language)
    words = list(beginning)
    ended = bool(words) and words[-1] == END_WORD
    words = words[:-1] if ended else words
    if END_WORD in words or len(words) > voice.limits["max_length"]:
        raise RecurError(
            f"a beginning of {len(words)} words; expected at most {voice.limits['max_length']}, and {END_WORD} only as "
            "the last one; give fewer"
        )
    try:
        tokens = sentence_tokens(voice, words)
    except KeyError as error:
        raise RecurError(
            f"word {error} is not in the model's {language}; expected one of its words; choose another"
        ) from None
    width = beam or voice.beam
    if not ended:
        before = float(word_scores(voice, features, tokens).sum())
        ((rest, _),) = continue_from(voice, features, tokens[None], [before], width)
        tokens = np.concatenate([tokens, rest.tokens])
    told = _Teller(captioner, square, features, voice, width, 1).sentence(
        tokens, detail=True, continuations=False, search=False
    )
    return {"language": language, "caption": text_of(voice, tokens.tolist()), "confidence": None, "n_best": []} | told


def from_captions(captions: Sequence[Caption], picture: Picture) -> Explanation:
    """The explanation of captions that are there already, of one picture, without detail."""
    grids = [word.attention for caption in captions for word in caption.words if word.attention is not None]
    sentences = [
        _headed(caption)
        | {
            "log_prob": round(caption.log_prob, 4),
            "words": [
                {
                    "word": word.word,
                    "probability": round(float(np.exp(word.log_prob)), 4),
                    "runners_up": [{"word": other, "probability": round(p, 4)} for other, p in word.alternatives],
                    "region": None if word.region is None else list(word.region),
                    "attention": None if word.attention is None
                    else np.round(word.attention.astype(np.float64), 3).tolist(),
                }
                for word in caption.words
            ],
            "end": None,
        }
        for caption in captions
    ]  # fmt: skip
    data = {
        "picture": {
            "name": captions[0].path,
            "width": picture.width,
            "height": picture.height,
            "grid": list(grids[0].shape) if grids else [1, 1],
            "notes": list(picture.notes),
        },
        "model": captions[0].model,
        "sentences": sentences,
        "objects": [],
    }
    return Explanation(data, _reduced(picture))


class _Teller:
    """Tells sentences about one picture in one language."""

    def __init__(
        self, captioner: Captioner, square: Square, features: Array, voice: Voice, beam: int, n_best: int
    ) -> None:
        self.captioner, self.square, self.features, self.voice = captioner, square, features, voice
        self.beam, self.n_best = beam, n_best
        self.cell = cast(Cell, captioner.bundle.meta["cell"])
        self.layers = int(captioner.bundle.meta["layers"])

    def sentence(self, tokens: IntArray, *, detail: bool, continuations: bool, search: bool = True) -> dict[str, Any]:
        """Words, runners-up, search and states of tokens [T]."""
        told = read_sentence(self.captioner.bundle.weights, self.cell, self.layers, self.voice, self.features, tokens)
        end = self.voice.words.index(END_WORD)
        chosen = [*tokens.tolist(), end]
        gained = [float(told.log_probs[place, token]) for place, token in enumerate(chosen)]
        usual = None if told.attention is None else told.attention[: max(1, len(tokens))].mean(axis=0)
        looks = self._looks(told.attention, len(chosen), usual)
        words = [self._word(told.log_probs[place], token) | looks[place] for place, token in enumerate(chosen)]
        out: dict[str, Any] = {"log_prob": round(sum(gained), 4), "words": words[:-1], "end": words[-1]}
        if not detail:
            return out
        if continuations:
            out["continuations"] = self._continuations(tokens, told, gained)
        if search:
            width = max(self.beam, self.n_best)  # as the captioner searches
            out["beam"] = width
            out["length_penalty"] = self.voice.limits["length_penalty"]
            out["tree"] = tree(grow(self.voice, self.features, width), self.voice, tokens.tolist())
        return out | {"states": states(told, self.cell)}

    def _word(self, log_probs: Array, token: int) -> dict[str, Any]:
        """One word, with the runners-up at its place."""
        return {
            "word": self.voice.words[token],
            "probability": round(float(np.exp(log_probs[token])), 4),
            "runners_up": [
                {"word": self.voice.words[other], "probability": round(probability, 4)}
                for other, probability in runners_up(log_probs, token, self.voice)
            ],
        }

    def _looks(self, attention: Array | None, count: int, usual: Array | None) -> list[dict[str, Any]]:
        """Where the network looked for each of `count` words, attention [count, R]: rows of cells, and the box around
        the strongest part. `usual` [R] is the sentence's mean attention."""
        if attention is None or not count:
            return [{"region": None, "attention": None}] * count
        shares = looked_at(attention, self.features[0], usual=usual)
        grids = shares.reshape(count, *self.captioner.encoder.grid)
        regions = attended_regions(grids, self.square.width, self.square.height)
        rounded = np.round(grids.astype(np.float64), 3).tolist()
        return [{"region": list(box), "attention": rows} for box, rows in zip(regions, rounded, strict=True)]

    def _continuations(self, tokens: IntArray, told: Pass, gained: list[float]) -> list[dict[str, Any]]:
        """For each runner-up at each place the sentence it would have become.

        {"place", "word", "caption", "log_prob", "words"}: `words` are those after the runner-up.
        """
        end = self.voice.words.index(END_WORD)
        out: list[dict[str, Any]] = []
        for place in range(len(gained)):
            others = runners_up(told.log_probs[place], int([*tokens, end][place]), self.voice)
            before = [sum(gained[:place]) + float(told.log_probs[place, other]) for other, _ in others]
            going = [number for number, (other, _) in enumerate(others) if other != end]
            if len(tokens[:place]) >= self.voice.limits["max_length"]:
                going = []
            found: dict[int, tuple[Hypothesis, float]] = {}
            if going:
                beginnings = np.array([[*tokens[:place], others[number][0]] for number in going], np.int64)
                starts = [before[number] for number in going]
                results = continue_from(self.voice, self.features, beginnings, starts, self.beam)
                found = dict(zip(going, results, strict=True))
            for number, (other, _) in enumerate(others):
                if other == end:
                    text, log_prob, words = text_of(self.voice, tokens[:place].tolist()), before[number], []
                elif number in found:
                    rest, log_prob = found[number]
                    text = text_of(self.voice, [*tokens[:place].tolist(), other, *rest.tokens.tolist()])
                    words = self._rest(rest, told)
                else:
                    continue
                out.append(
                    {
                        "place": place,
                        "word": self.voice.words[other],
                        "caption": text,
                        "log_prob": round(log_prob, 4),
                        "words": words,
                    }
                )
        return out

    def _rest(self, rest: Hypothesis, told: Pass) -> list[dict[str, Any]]:
        """The words of a continuation of `told` as `_word` tells them."""
        usual = None if told.attention is None else told.attention.mean(axis=0)
        looks = self._looks(rest.attention, len(rest.tokens), usual)
        return [
            {
                "word": self.voice.words[token],
                "probability": round(float(np.exp(rest.log_probs[place])), 4),
                "runners_up": [
                    {"word": self.voice.words[other], "probability": round(float(probability), 4)}
                    for other, probability in zip(rest.alternatives[place], rest.alternative_probs[place], strict=True)
                ],
                **looks[place],
            }
            for place, token in enumerate(rest.tokens.tolist())
        ]


def _headed(caption: Caption) -> dict[str, Any]:
    """What is told of a caption as a whole."""
    told = caption.to_json()
    return {key: told[key] for key in ("language", "caption", "confidence", "n_best")}


def _reduced(picture: Picture) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(picture.pixels)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)

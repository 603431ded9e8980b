"""Captions of pictures, and for each word where the model looked and what else it might have said.

>>> captioner = recur.load("captioner")
>>> captioner(["a.jpg", pil_image, array], lang="zh")  # doctest: +SKIP

B pictures, R grid cells, gy and gx rows and columns of the grid.
"""

from __future__ import annotations

import html
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import Image

from recur.bundle import Bundle, BundleError
from recur.data.ahead import Ahead
from recur.data.images import MAX_PIXELS, Source, Square, read_ahead, read_square
from recur.data.text import detokenize
from recur.engine.hypotheses import Hypothesis
from recur.engine.reference import Array
from recur.engine.vision import Encoder, processors
from recur.errors import InputError, RecurError
from recur.predict.detect import MIN_SCORE, OUTPUTS, Detected, Detector, check_scores
from recur.predict.grounding import tie
from recur.predict.looking import looked_at
from recur.predict.pictures import Group, groups, is_picture, picture_name
from recur.predict.regions import attended_regions, spread, whole
from recur.predict.voice import Voice, make_voice

# features [B, R, F], a head's answers picture by picture, and the boxes [B, R, 4] of regions that are no grid
_Looked: TypeAlias = tuple[Array, list[tuple[Array, Array]] | None, Array | None]
# of the words of a sentence: the grids [gy, gx] and regions that were looked at; empty where there is no attention
_Look: TypeAlias = tuple[Sequence[Array], Sequence[tuple[int, int, int, int]]]
_NOWHERE: _Look = ((), ())


@dataclass(frozen=True)
class Word:
    """One word and how it came about.

    `alternatives` are the five most probable others at this place with their probabilities (`<end>`: no further word).
    `attention` [gy, gx] says where the network looked, as `recur.predict.looking` works it out; it adds up to 1.
    `region` (x0, y0, x1, y1) is the tight box, in pixels of the picture as a person sees it, around the cells
    that have at least half of the strongest cell's share and touch it, directly or through others of the kind. Both
    are None when the model reads the picture only once, at the start.
    `object` is the place in the caption's `objects` of what the word speaks of; then `region` is its box.
    """

    word: str
    log_prob: float
    alternatives: tuple[tuple[str, float], ...]
    region: tuple[int, int, int, int] | None
    attention: Array | None = field(default=None, compare=False, repr=False)
    object: int | None = None


@dataclass(frozen=True)
class Caption:
    """What the model says about one picture in one language.

    `caption` is None, and `words` and `n_best` are empty, when `confidence` is below the least that was asked for;
    `words` is also empty when they were not asked for.
    `confidence` is the calibrated probability that the caption is acceptable, None when the model has no calibration;
    it was calibrated at the model's own beam and is less exact at others.
    `log_prob` is that of the whole sentence with its end. `n_best` are the best captions, this one first, each with its
    `log_prob`. `path` is None for a picture that was not a file; `width` and `height` are its size as a person sees it.
    `objects` are those that a detector found in the same pass, None when none was asked.
    """

    path: str | None
    caption: str | None
    language: str
    confidence: float | None
    log_prob: float
    words: tuple[Word, ...]
    n_best: tuple[tuple[str, float], ...]
    model: str
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    objects: tuple[Detected, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """The caption as one plain object, ready for `json.dumps`."""
        found = self.objects
        return {
            "path": self.path,
            "caption": self.caption,
            "language": self.language,
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "log_prob": round(self.log_prob, 4),
            "words": [
                {
                    "word": word.word,
                    "log_prob": round(word.log_prob, 4),
                    "alternatives": [[other, round(probability, 4)] for other, probability in word.alternatives],
                    "region": None if word.region is None else list(word.region),
                    **({} if found is None else {"object": word.object}),
                }
                for word in self.words
            ],
            "n_best": [[caption, round(log_prob, 4)] for caption, log_prob in self.n_best],
            **({} if found is None else {"objects": [each.to_json() for each in found]}),
            "model": self.model,
        }

    def _repr_html_(self) -> str:
        """The sentence, for a notebook; pointed at, a word tells its probability and its runners-up."""
        if self.caption is None:
            return "<p><i>not sure</i></p>"
        shown = html.escape(self.caption)
        if self.words:
            parts = []
            for word in self.words:
                others = ", ".join(f"{other} {probability:.2f}" for other, probability in word.alternatives)
                about = html.escape(f"{math.exp(word.log_prob):.2f}; {others}")
                parts.append(f'<span title="{about}">{html.escape(word.word)}</span>')
            shown = " ".join(parts)
        sure = "" if self.confidence is None else f" <small>confidence {self.confidence:.2f}</small>"
        return f'<p lang="{html.escape(self.language)}">{shown}{sure}</p>'


class Captioner:
    """Writes captions with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """`threads` for the encoder: all processors when None. Errors: RecurError when the bundle cannot caption."""
        if bundle.task != "caption" or bundle.encoder is None:
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'caption'; choose another")
        self.bundle, self.name = bundle, bundle.name
        self.languages: tuple[str, ...] = tuple(bundle.meta["languages"])
        meta = bundle.meta["encoder"]
        self.size = int(meta["size"])
        self._regions: str | None = meta.get("regions")  # the output with the boxes of regions that are no grid
        self.encoder = Encoder(
            bundle.encoder,
            input=meta.get("input", "pixels"),
            output=meta.get("output", "features"),
            mean=meta.get("mean", (0.0, 0.0, 0.0)),
            std=meta.get("std", (1.0, 1.0, 1.0)),
            threads=threads,
        )
        self._vocabulary = bundle.vocabulary()
        self._voices: dict[str, Voice] = {}
        self._threads = threads
        self._paired: tuple[Detector, Encoder | None] | None = None

    def __call__(
        self,
        pictures: Source | Iterable[Source],
        *,
        lang: str | None = None,
        beam: int | None = None,
        n_best: int = 1,
        batch: int = 16,
        min_confidence: float | None = None,
        max_pixels: int = MAX_PIXELS,
        words: bool = True,
        detector: Detector | None = None,
        min_score: float | None = None,
    ) -> list[Caption]:
        """A caption for each picture: paths, bytes of files, PIL images or arrays [Y, X, 3], or a single one of these.

        `lang` is the model's first language when None; `beam` the model's own width when None. Below
        `min_confidence` the `caption` is None; pictures of more than `max_pixels` pixels are refused. Without `words`
        the captions leave them out, which saves time. With a `detector` the captions have `objects` of at least
        `min_score` (its own when None), and nouns that speak of one have its box as their region; if both stand on one
        trunk, it runs once.
        Errors: InputError for the first picture that cannot be read; RecurError for an option that makes no sense.
        """
        settings = _Settings(self, (lang,), beam, n_best, batch, min_confidence, max_pixels, words, detector, min_score)
        if isinstance(pictures, (str, Path, bytes, Image)) or is_picture(pictures):
            # One alone has nothing to run beside: threads would only cost it a fifth of its time.
            group: Group = [(pictures, read_square(pictures, size=self.size, max_pixels=max_pixels))]
            results = closing(self._describe(group, self._see(group, settings), settings))
        else:
            results = closing(self._stream(pictures, settings, eager=False))
        out: list[Caption] = []
        with results as described:
            for result in described:
                if isinstance(result, InputError):
                    raise result
                out.append(result[0])
        return out

    def stream(
        self,
        paths: Iterable[Source],
        *,
        lang: str | None = None,
        beam: int | None = None,
        n_best: int = 1,
        batch: int = 16,
        min_confidence: float | None = None,
        max_pixels: int = MAX_PIXELS,
        words: bool = True,
        detector: Detector | None = None,
        min_score: float | None = None,
    ) -> Iterator[Caption | InputError]:
        """Captions of any number of pictures, in order, as they are ready; one that fails gives its InputError.

        Pictures are read by other threads while captions are computed, a few batches ahead at most: memory stays flat.
        `paths` is iterated in a thread of its own; when it is slow (a pipe), what it gave is not kept waiting.
        """
        settings = _Settings(self, (lang,), beam, n_best, batch, min_confidence, max_pixels, words, detector, min_score)
        return (result if isinstance(result, InputError) else result[0] for result in self._stream(paths, settings))

    def stream_languages(
        self,
        paths: Iterable[Source],
        languages: Sequence[str] | None = None,
        *,
        beam: int | None = None,
        n_best: int = 1,
        batch: int = 16,
        min_confidence: float | None = None,
        max_pixels: int = MAX_PIXELS,
        words: bool = True,
        detector: Detector | None = None,
        min_score: float | None = None,
    ) -> Iterator[tuple[Caption, ...] | InputError]:
        """As `stream`, but one caption in each of `languages` (all of the model's when None) for every picture."""
        chosen = self.languages if languages is None else tuple(languages)
        settings = _Settings(self, chosen, beam, n_best, batch, min_confidence, max_pixels, words, detector, min_score)
        return self._stream(paths, settings)

    def search(
        self,
        features: Array,
        *,
        lang: str | None = None,
        beam: int | None = None,
        n_best: int = 1,
        length_penalty: float | None = None,
    ) -> list[tuple[Hypothesis, ...]]:
        """The search alone, on features [B, R, F]: the best hypotheses of each picture, tokens as vocabulary ids.

        `length_penalty` is the model's own when None.
        """
        settings = _Settings(self, (lang,), beam, n_best, 1, None)
        voice = settings.voices[0]
        if length_penalty is not None:
            if not 0 <= length_penalty < math.inf:
                raise RecurError(f"length_penalty {length_penalty}; expected 0 or more; choose another")
            voice = replace(voice, limits={**voice.limits, "length_penalty": length_penalty})
        ids = voice.ids
        return [
            tuple(replace(each, tokens=ids[each.tokens], alternatives=ids[each.alternatives]) for each in hypotheses)
            for hypotheses in voice.search(features, settings.width(voice), n_best)
        ]

    def encode(self, squares: Sequence[Square]) -> Array:
        """Features [B, R, F] of pictures that `recur.data.images.read_square` has read at this captioner's `size`."""
        return self.encoder(np.stack([square.pixels for square in squares]))

    def describe(
        self,
        squares: Sequence[Square],
        languages: Sequence[str] | None = None,
        *,
        features: Array | None = None,
        beam: int | None = None,
        n_best: int = 1,
        min_confidence: float | None = None,
        words: bool = True,
    ) -> list[tuple[Caption, ...]]:
        """Captions of pictures that are read already, in this thread, computed together, one in each of `languages`.

        `features` are what `encode` gave for them, if it was asked before. All languages of the model when None.
        """
        chosen = self.languages if languages is None else tuple(languages)
        settings = _Settings(self, chosen, beam, n_best, 1, min_confidence, words=words)
        if not squares:
            return []
        group: Group = [(square.pixels, square) for square in squares]
        looked: _Looked = (self.encode(squares) if features is None else features, None, None)
        found = self._describe(group, looked, settings)
        return [captions for captions in found if not isinstance(captions, InputError)]

    # ------------------------------------------------------------------------------------------------------- inside

    def voice(self, language: str | None) -> Voice:
        """What is needed for one language, made on first use."""
        name = self.languages[0] if language is None else language
        if name not in self._voices:
            if name not in self.languages:
                raise RecurError(
                    f"language {name!r} is not in model {self.name!r}; expected one of {', '.join(self.languages)}; "
                    "choose one of them or another model"
                )
            like = next(iter(self._voices.values()), None)
            self._voices[name] = make_voice(self.bundle, self._vocabulary, name, like)
        return self._voices[name]

    def _stream(
        self, sources: Iterable[Source], settings: _Settings, *, eager: bool = True
    ) -> Generator[tuple[Caption, ...] | InputError, None, None]:
        """Three things at a time: pictures are read, the next group goes through the encoder, the last is searched."""
        pictures = read_ahead(
            sources,
            size=self.size,
            workers=processors(),
            ahead=2 * settings.batch,
            max_pixels=settings.max_pixels,
        )
        together = groups(pictures, settings.batch, eager=eager)
        seen = Ahead(partial(self._see, settings=settings), together, workers=1, ahead=1, name="recur-encoder")
        try:
            for group, looked in seen:
                yield from self._describe(group, looked, settings)
        finally:
            pictures.close()  # first, because the other one may wait for it
            seen.close()

    def _see(self, group: Group, settings: _Settings) -> _Looked | None:
        """Features of a group, and with a detector the answers of its head."""
        squares = [item.pixels for _, item in group if not isinstance(item, InputError)]
        if not squares:
            return None
        pixels, detector = np.stack(squares), settings.detector
        both = None if detector is None else self._pair(detector)
        if detector is None or both is None:
            answers = None if detector is None else detector.look(pixels)
            if self._regions is None:
                return self.encoder(pixels), answers, None
            features, (regions,) = self.encoder.both(pixels, [self._regions])
            return features, answers, regions
        features, (scores, boxes) = both.both(pixels, OUTPUTS)
        self.encoder.grid = both.grid
        return features, detector.checked(scores, boxes), None

    def _pair(self, detector: Detector) -> Encoder | None:
        """One graph with the features and the detector's answers; None where that looks with a trunk of its own."""
        if self._paired is None or self._paired[0] is not detector:
            if detector.size != self.size:
                raise RecurError(
                    f"model {detector.name!r} looks at {detector.size} pixels, {self.name!r} at {self.size}; "
                    "expected the same; use them one after the other"
                )
            encoded = self.bundle.encoder
            together = encoded is not None and detector.graph.startswith(encoded)
            self._paired = (detector, Encoder(detector.graph, threads=self._threads) if together else None)
        return self._paired[1]

    def _describe(
        self, group: Group, looked: _Looked | None, settings: _Settings
    ) -> Generator[tuple[Caption, ...] | InputError, None, None]:
        """Captions of a group in all languages, failures in their places."""
        features, answers, regions = (None, None, None) if looked is None else looked
        squares = [item for _, item in group if not isinstance(item, InputError)]
        captions: list[list[Caption]] = [[] for _ in squares]
        if features is not None:
            objects: list[tuple[Detected, ...] | None] = [None] * len(squares)
            if answers is not None and settings.detector is not None:
                detector = settings.detector
                objects = [
                    detector.objects(*answer, square, min_score=settings.min_score)
                    for answer, square in zip(answers, squares, strict=True)
                ]
            names = [picture_name(source) for source, item in group if not isinstance(item, InputError)]
            for voice in settings.voices:
                found = voice.search_with_runner_up(features, settings.width(voice), settings.n_best)
                sure = voice.confidences(found, features)
                looks = self._looks([each[0] for each in found], squares, features, regions) if settings.words else ()
                for at, told in enumerate(found):
                    look = looks[at] if looks else _NOWHERE
                    one = self._caption(told, squares[at], names[at], voice, settings, sure[at], look, objects[at])
                    captions[at].append(one)
        done = iter(captions)
        for _, item in group:
            yield item if isinstance(item, InputError) else tuple(next(done))

    def _looks(
        self, best: Sequence[Hypothesis], squares: Sequence[Square], features: Array, boxes: Array | None
    ) -> list[_Look]:
        """Where the network looked for each word of the best hypothesis of each picture; all of them together, because
        a picture has few words and many small steps cost more than they do.
        """
        shares = {
            at: looked_at(each.attention, features[at])
            for at, each in enumerate(best)
            if each.attention is not None and len(each.attention)
        }
        looks = [_NOWHERE] * len(best)
        if not shares:
            return looks
        places, counts = [*shares], [len(each) for each in shares.values()]
        together = np.concatenate([*shares.values()])
        sides = np.repeat([(squares[at].width, squares[at].height) for at in places], counts, axis=0)
        if boxes is None:
            grids = together.reshape(-1, *self.encoder.grid)
            regions = attended_regions(grids, sides[:, 0], sides[:, 1])
        else:
            owner = np.repeat(places, counts)
            grids = np.concatenate([spread(shares[at], boxes[at]) for at in places])
            chosen = boxes[owner, together.argmax(1)].clip(0, 1) * np.tile(sides, 2)
            regions = [whole(box) for box in chosen]
        for at, end, count in zip(places, np.cumsum(counts).tolist(), counts, strict=True):
            looks[at] = (list(grids[end - count : end]), regions[end - count : end])
        return looks

    def _caption(
        self,
        hypotheses: Sequence[Hypothesis],
        square: Square,
        name: str | None,
        voice: Voice,
        settings: _Settings,
        confidence: float | None,
        look: _Look,
        objects: tuple[Detected, ...] | None,
    ) -> Caption:
        best = hypotheses[0]
        sure = settings.min_confidence is None or (confidence is not None and confidence >= settings.min_confidence)
        texts = tuple(
            (detokenize([voice.words[token] for token in each.tokens], voice.language), each.log_prob)
            for each in hypotheses[: settings.n_best]
        )
        return Caption(
            path=name,
            caption=texts[0][0] if sure else None,
            language=voice.language,
            confidence=confidence,
            log_prob=best.log_prob,
            words=self._words(best, square, voice, look, objects, settings.detector) if sure and settings.words else (),
            n_best=texts if sure else (),
            model=self.name,
            width=square.width,
            height=square.height,
            notes=tuple(square.notes),
            objects=objects,
        )

    def _words(
        self,
        best: Hypothesis,
        square: Square,
        voice: Voice,
        look: _Look,
        objects: tuple[Detected, ...] | None,
        detector: Detector | None,
    ) -> tuple[Word, ...]:
        nowhere = [None] * len(best.tokens)
        grids: Sequence[Array | None] = look[0] or nowhere
        regions: Sequence[tuple[int, int, int, int] | None] = look[1] or nowhere
        places: Sequence[int | None] = [None] * len(best.tokens)
        if objects is not None and detector is not None:
            texts = [voice.words[token] for token in best.tokens]
            places = tie(texts, voice.language, grids, objects, detector, width=square.width, height=square.height)
            regions = [
                region if at is None else whole(objects[at].box) for region, at in zip(regions, places, strict=True)
            ]
        return tuple(
            Word(
                word=voice.words[token],
                log_prob=float(best.log_probs[place]),
                alternatives=tuple(
                    (voice.words[other], float(probability))
                    for other, probability in zip(best.alternatives[place], best.alternative_probs[place], strict=True)
                ),
                region=regions[place],
                attention=grids[place],
                object=places[place],
            )
            for place, token in enumerate(best.tokens)
        )


class _Settings:
    """The options of one call, checked."""

    def __init__(
        self,
        captioner: Captioner,
        languages: Sequence[str | None],
        beam: int | None,
        n_best: int,
        batch: int,
        min_confidence: float | None,
        max_pixels: int = MAX_PIXELS,
        words: bool = True,
        detector: Detector | None = None,
        min_score: float | None = None,
    ) -> None:
        own = MIN_SCORE if detector is None else detector.min_score
        self.detector, self.min_score = detector, own if min_score is None else min_score
        check_scores(self.min_score, 1, 1)
        for name, value in (("beam", 1 if beam is None else beam), ("n_best", n_best), ("batch", batch)):
            if not 1 <= value <= 1024:
                raise RecurError(f"{name} {value}; expected 1 to 1024; choose another")
        if not languages:
            raise RecurError(f"no language; expected some of {', '.join(captioner.languages)}; name one")
        self.voices = [captioner.voice(language) for language in languages]
        if min_confidence is not None:
            if not 0 <= min_confidence <= 1:
                raise RecurError(f"min_confidence {min_confidence}; expected a probability, 0 to 1; choose another")
            for voice in self.voices:
                if voice.calibration is None:
                    raise RecurError(
                        f"model {captioner.name!r} has no calibrated confidence in {voice.language}; "
                        "leave out min_confidence (--min-confidence), or choose another model"
                    )
        self.beam, self.n_best, self.batch = beam, n_best, batch
        self.min_confidence, self.max_pixels, self.words = min_confidence, max_pixels, words

    def width(self, voice: Voice) -> int:
        """How many hypotheses the search keeps."""
        return max(self.beam or voice.beam, self.n_best)

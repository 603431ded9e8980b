"""Objects in pictures: what they are and where.

>>> detector = recur.load("detector")
>>> detector(["a.jpg", pil_image, array])  # doctest: +SKIP

B pictures, A cells of the detection head, N classes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.bundle import Bundle, BundleError
from recur.data.images import MAX_PIXELS, Source, Square
from recur.engine.detection import pick
from recur.engine.reference import Array
from recur.engine.vision import Encoder
from recur.errors import InputError, RecurError
from recur.hub import whole_encoder
from recur.metrics.detection import Found
from recur.predict.nouns import Nouns
from recur.predict.pictures import first_error, picture_name, results

MIN_SCORE = 0.3  # from which on objects are shown, where the model does not say
MOST = 100  # objects of one picture
OUTPUTS = ("scores", "boxes")


@dataclass(frozen=True)
class Detected:
    """One object: its class, a score in 0..1, and its box (x0, y0, x1, y1) in pixels as a person sees the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """The object as one plain object."""
        return {"label": self.label, "score": round(self.score, 4), "box": list(self.box)}


@dataclass(frozen=True)
class Detections:
    """The objects of one picture, best score first.

    `problem`: why the picture could not be read; then there are no objects. `path` is None for a picture that was not a
    file; `width` and `height` are its size as a person sees it.
    """

    path: str | None
    objects: tuple[Detected, ...]
    problem: InputError | None = None
    model: str = ""
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as one plain object, ready for `json.dumps`."""
        return {"path": self.path, "objects": [each.to_json() for each in self.objects], "model": self.model}

    def _repr_html_(self) -> str:
        """The objects with their scores, for a notebook, and their boxes drawn in the picture's frame."""
        if self.problem is not None:
            return f"<p><i>{html.escape(str(self.problem))}</i></p>"
        if not self.objects:
            return "<p><i>nothing found</i></p>"
        told = [f"{html.escape(each.label)} {each.score:.2f}" for each in self.objects]
        boxes = []
        for each, name in zip(self.objects, told, strict=True):
            x0, y0, x1, y1 = each.box
            place = f'x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"'
            boxes.append(f"<rect {place}><title>{name}</title></rect>")
        line = 'fill="transparent" stroke="currentColor" stroke-width="2" vector-effect="non-scaling-stroke"'
        frame = f'<rect width="{self.width}" height="{self.height}" stroke-opacity="0.3"/>'
        size = f'viewBox="0 0 {self.width} {self.height}" width="{min(self.width, 320)}" role="img"'
        label = f'aria-label="{", ".join(told)}"'
        return f"<p>{', '.join(told)}</p><svg {size} {label}><g {line}>{frame}{''.join(boxes)}</g></svg>"


class Detector:
    """Finds objects with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """`threads` for the network: all processors when None. Errors: RecurError when the bundle cannot detect."""
        if bundle.task != "detect":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'detect'; choose another")
        self.bundle, self.name = bundle, bundle.name
        self.classes: tuple[str, ...] = tuple(bundle.meta["classes"])
        self.size = int(bundle.meta["encoder"]["size"])
        self.graph = whole_encoder(bundle)
        self.nouns = Nouns.from_bytes(bundle.tokenizer, self.classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.alike = tuple(tuple(numbers[name] for name in group) for group in bundle.meta.get("alike", ()))
        self.min_score = float(bundle.meta.get("min_score", MIN_SCORE))
        self._threads = threads
        self._encoder: Encoder | None = None

    def __call__(
        self,
        pictures: Source | Iterable[Source],
        *,
        min_score: float | None = None,
        most: int = MOST,
        batch: int = 16,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Detections]:
        """The objects of each picture: paths, bytes of files, PIL images or arrays [Y, X, 3], or a single one of these.

        `min_score`: the model's own when None. Errors: InputError for the first picture that cannot be read;
        RecurError for an option that makes no sense.
        """
        return first_error(self._results(pictures, min_score, most, batch, max_pixels, eager=False))

    def stream(
        self,
        pictures: Iterable[Source],
        *,
        min_score: float | None = None,
        most: int = MOST,
        batch: int = 16,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Detections]:
        """Objects of any number of pictures, in order, as they are ready; one that fails says so in its `problem`."""
        for source, found in self._results(pictures, min_score, most, batch, max_pixels, eager=True):
            if isinstance(found, InputError):
                yield Detections(picture_name(source), (), problem=found, model=self.name)
            else:
                yield found

    def objects(
        self, scores: Array, boxes: Array, square: Square, *, min_score: float, most: int = MOST
    ) -> tuple[Detected, ...]:
        """The objects of one picture from the head's scores [A, N] and boxes [A, 4]."""
        where, labels, found = pick(scores, boxes, min_score=min_score, most=most, alike=self.alike)
        pixels = where * np.array([square.width, square.height, square.width, square.height], np.float32)
        return tuple(
            Detected(self.classes[label], score, (round(x0, 1), round(y0, 1), round(x1, 1), round(y1, 1)))
            for label, score, (x0, y0, x1, y1) in zip(labels.tolist(), found.tolist(), pixels.tolist(), strict=True)
        )

    def look(self, pixels: npt.NDArray[np.uint8]) -> list[tuple[Array, Array]]:
        """The head's scores [A, N] and boxes [A, 4] of each of the pictures [B, Y, X, 3]."""
        if self._encoder is None:  # a detector that rides on a captioner's pass never needs one of its own
            self._encoder = Encoder(self.graph, output=OUTPUTS[0], threads=self._threads)
        scores, boxes = self._encoder.raw(pixels, OUTPUTS)
        return self.checked(scores, boxes)

    def checked(self, scores: Array, boxes: Array) -> list[tuple[Array, Array]]:
        """The answers picture by picture. BundleError when they are not those of a head for these classes."""
        cells = scores.shape[1] if scores.ndim == 3 else 0
        if scores.ndim != 3 or scores.shape[2] != len(self.classes) or boxes.shape != (len(scores), cells, 4):
            raise BundleError(
                f"{self.bundle.path}: its graph gives scores {list(scores.shape)} and boxes {list(boxes.shape)}; "
                f"expected [pictures, cells, {len(self.classes)}] and [pictures, cells, 4]; get the bundle again"
            )
        return list(zip(scores, boxes, strict=True))

    # ------------------------------------------------------------------------------------------------------- inside

    def _results(
        self,
        pictures: Source | Iterable[Source],
        min_score: float | None,
        most: int,
        batch: int,
        max_pixels: int,
        *,
        eager: bool,
    ) -> Any:
        least = self.min_score if min_score is None else min_score
        check_scores(least, most, batch)

        def say(source: Source, square: Square, seen: tuple[Array, Array]) -> Detections:
            objects = self.objects(*seen, square, min_score=least, most=most)
            return Detections(
                picture_name(source), objects, None, self.name, square.width, square.height, tuple(square.notes)
            )

        return results(pictures, self.look, say, size=self.size, batch=batch, max_pixels=max_pixels, eager=eager)


def found_in(result: Detections, classes: Sequence[str], width: int, height: int) -> Found:
    """What was found, for measuring: the numbers of `classes` (others are left out), in pixels of a picture that the
    annotations say is `width` x `height`; the file may be of another size.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    known = [each for each in result.objects if each.label in numbers]
    scale = np.array([width / max(result.width, 1), height / max(result.height, 1)] * 2)
    boxes = np.array([each.box for each in known], np.float64).reshape(-1, 4) * scale
    labels = np.array([numbers[each.label] for each in known], np.int64)
    return Found(boxes, labels, np.array([each.score for each in known], np.float64))


def check_scores(min_score: float, most: int, batch: int) -> None:
    """Raise RecurError for options that make no sense."""
    if not 0 <= min_score <= 1:
        raise RecurError(f"min_score {min_score}; expected 0 to 1; choose another")
    for name, value in (("most", most), ("batch", batch)):
        if not 1 <= value <= 1024:
            raise RecurError(f"{name} {value}; expected 1 to 1024; choose another")

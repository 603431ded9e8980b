"""What is in a picture, or which kind it is: labels with probabilities.

>>> classifier = recur.load("classifier")
>>> classifier(["a.jpg", pil_image, array])  # doctest: +SKIP
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.bundle import Bundle, BundleError
from recur.data.images import MAX_PIXELS, Source, Square
from recur.engine.reference import Array
from recur.engine.vision import Encoder
from recur.errors import InputError, RecurError
from recur.hub import whole_encoder
from recur.predict.pictures import first_error, picture_name, results

TOP = 5
OUTPUT = "labels"


@dataclass(frozen=True)
class Labels:
    """The most probable labels of one picture with their probabilities, best first.

    `problem`: why the picture could not be read; then there are none. `path` is None for a picture that was not a file.
    """

    path: str | None
    labels: tuple[tuple[str, float], ...]
    problem: InputError | None = None
    model: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as one plain object, ready for `json.dumps`."""
        labels = [[name, round(probability, 4)] for name, probability in self.labels]
        return {"path": self.path, "labels": labels, "model": self.model}

    def _repr_html_(self) -> str:
        """The labels with their probabilities, for a notebook, the best one in bold."""
        if self.problem is not None:
            return f"<p><i>{html.escape(str(self.problem))}</i></p>"
        told = [f"{html.escape(name)} <small>{probability:.2f}</small>" for name, probability in self.labels]
        best = [f"<b>{each}</b>" for each in told[:1]]
        return f"<p>{', '.join(best + told[1:]) or '<i>not sure</i>'}</p>"


class Classifier:
    """Names what is in pictures with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """`threads` for the network: all processors when None. Errors: RecurError when the bundle cannot classify."""
        if bundle.task != "classify":
            raise BundleError(
                f"{bundle.path}: a model for {bundle.task!r}; expected one for 'classify'; choose another"
            )
        self.bundle, self.name = bundle, bundle.name
        self.classes: tuple[str, ...] = tuple(bundle.meta["classes"])
        self.size = int(bundle.meta["encoder"]["size"])
        self._encoder = Encoder(whole_encoder(bundle), output=OUTPUT, threads=threads)

    def __call__(
        self,
        pictures: Source | Iterable[Source],
        *,
        top: int = TOP,
        min_probability: float = 0.0,
        batch: int = 16,
        max_pixels: int = MAX_PIXELS,
    ) -> list[Labels]:
        """The labels of each picture: paths, bytes of files, PIL images or arrays [Y, X, 3], or a single one of these.

        Errors: InputError for the first picture that cannot be read; RecurError for an option that makes no sense.
        """
        return first_error(self._results(pictures, top, min_probability, batch, max_pixels, eager=False))

    def stream(
        self,
        pictures: Iterable[Source],
        *,
        top: int = TOP,
        min_probability: float = 0.0,
        batch: int = 16,
        max_pixels: int = MAX_PIXELS,
    ) -> Iterator[Labels]:
        """Labels of any number of pictures, in order, as they are ready; one that fails says so in its `problem`."""
        for source, found in self._results(pictures, top, min_probability, batch, max_pixels, eager=True):
            yield Labels(picture_name(source), (), found, self.name) if isinstance(found, InputError) else found

    def _see(self, pixels: npt.NDArray[np.uint8]) -> list[Array]:
        found = self._encoder.raw(pixels, [OUTPUT])[0]
        if found.shape != (len(pixels), len(self.classes)):
            raise BundleError(
                f"{self.bundle.path}: its graph gives labels {list(found.shape)}; expected "
                f"[pictures, {len(self.classes)}]; get the bundle again"
            )
        return list(found)

    def _results(
        self, pictures: Source | Iterable[Source], top: int, least: float, batch: int, max_pixels: int, *, eager: bool
    ) -> Any:
        if not 0 <= least <= 1:
            raise RecurError(f"min_probability {least}; expected 0 to 1; choose another")
        for name, value in (("top", top), ("batch", batch)):
            if not 1 <= value <= 1024:
                raise RecurError(f"{name} {value}; expected 1 to 1024; choose another")

        def say(source: Source, square: Square, seen: Array) -> Labels:
            order = np.argsort(-seen, kind="stable")[:top]
            labels = tuple((self.classes[i], float(seen[i])) for i in order if seen[i] >= least)
            return Labels(picture_name(source), labels, None, self.name, tuple(square.notes))

        return results(pictures, self._see, say, size=self.size, batch=batch, max_pixels=max_pixels, eager=eager)

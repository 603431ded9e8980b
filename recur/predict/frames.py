"""A label for every frame: of videos, folders of frames, drives and features, in constant memory.

>>> labeller = recur.load("driving")
>>> labeller("video.mp4")  # doctest: +SKIP
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recur.bundle import Bundle, BundleError
from recur.data.frames import Frame, LabelledFrames, read_features, read_frames
from recur.data.images import MAX_PIXELS
from recur.engine import tagging
from recur.engine.native import Stack
from recur.engine.vision import Encoder
from recur.errors import InputError, RecurError
from recur.hub import shared_trunk
from recur.metrics.frames import frame_scores

CHUNK: Final = 256  # frames that are decided together
AHEAD: Final = 64  # frames after them that are read before they are decided
SEEN: Final = 16  # pictures that the trunk looks at together


@dataclass(frozen=True, slots=True)
class FrameLabel:
    """What is in one frame; `seconds` from the start, None where nobody said; `second` the runner-up."""

    path: str | None
    frame: int
    seconds: float | None
    label: str
    probability: float
    second: str

    def to_json(self) -> dict[str, Any]:
        """Plain, ready for `json.dumps`."""
        return {
            "path": self.path,
            "frame": self.frame,
            "seconds": self.seconds,
            "label": self.label,
            "probability": round(self.probability, 4),
        }

    def _repr_html_(self) -> str:
        """The label and its frame, for a notebook; pointed at, it tells the runner-up."""
        when = f"frame {self.frame}" + ("" if self.seconds is None else f", {self.seconds:.2f} s")
        told = f"<b>{html.escape(self.label)}</b> <small>probability {self.probability:.2f}</small>"
        return f'<p title="{html.escape(self.second)}">{when}: {told}</p>'


class FrameLabeller:
    """Labels frames with one bundle. Make it with `recur.load`; one may serve several threads."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """`threads` for the networks: all processors when None. Errors: RecurError when the bundle cannot do it."""
        if bundle.task != "frames":
            raise BundleError(f"{bundle.path}: a model for {bundle.task!r}; expected one for 'frames'; choose another")
        meta, weights = bundle.meta, bundle.weights
        self.bundle, self.name = bundle, bundle.name
        self.classes: tuple[str, ...] = tuple(meta["classes"])
        self.smooth = float(meta["smooth"])
        self.features = int(meta["features"])
        encoder = meta.get("encoder")
        self.size = int(encoder["size"]) if encoder else 0
        self._pool: tuple[int, int] = tuple(encoder["pool"]) if encoder else (1, 1)
        self._encoder = Encoder(shared_trunk(bundle), threads=threads) if encoder else None
        ways = {} if meta["cell"] == "none" else {way: f"{way}." for way in ("forwards", "backwards")}
        self._ways = {
            way: Stack(
                {name: value for name, value in weights.items() if name.startswith(prefix)},
                cell=meta["cell"],
                prefix=prefix,
                threads=threads,
            )
            for way, prefix in ways.items()
            if f"{prefix}weight_hh_l0" in weights
        }

    def __call__(self, source: str | Path | npt.NDArray[Any], *, smooth: float | None = None) -> list[FrameLabel]:
        """The label of every frame of a video, a folder or a drive, or of features [T, D].

        Errors: InputError for what cannot be read to its end; RecurError for an option that makes no sense.
        """
        if isinstance(source, np.ndarray):
            return list(self.of_features(source, smooth=smooth))
        return list(self.stream(source, smooth=smooth))

    def stream(
        self, path: str | Path, *, fps: float | None = None, smooth: float | None = None, max_pixels: int = MAX_PIXELS
    ) -> Iterator[FrameLabel]:
        """The labels of a file or folder as they are ready. Errors: InputError, after all frames that could be read."""
        name = os.fspath(path)
        if Path(path).suffix.lower() == ".npz":
            for fold, sequence, scores, _ in read_features(path):
                whole = f"{name}: {fold + '/' if fold else ''}{sequence}"
                yield from self.of_features(scores, path=whole, fps=fps, smooth=smooth)
        else:
            frames = read_frames(path, size=self._square(name), fps=fps, max_pixels=max_pixels)
            yield from self.of_frames(frames, path=name, smooth=smooth)

    def of_features(
        self,
        features: npt.NDArray[Any],
        *,
        path: str | None = None,
        fps: float | None = None,
        smooth: float | None = None,
    ) -> Iterator[FrameLabel]:
        """The labels of features [T, D]. Errors: InputError for those of another width."""
        if features.ndim != 2 or features.shape[1] != self.features:
            raise InputError(
                path or "features",
                f"shape {list(features.shape)}; expected [frames, {self.features}]",
                "give what the model was trained on",
            )
        frames = (Frame(n, n / fps if fps else None, row) for n, row in enumerate(features))
        yield from self._labels(((frame, frame.pixels) for frame in frames), path, smooth)

    def of_frames(
        self, frames: Iterable[Frame], *, path: str | None = None, smooth: float | None = None
    ) -> Iterator[FrameLabel]:
        """The labels of frames as squares of `size` pixels; an InputError of theirs comes after their labels."""
        self._square(path or "frames")
        yield from self._labels(self._looked_at(frames), path, smooth)

    def see(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features [T, D] of pixels [T, S, S, 3]: the trunk's map, the mean of each of its tiles."""
        assert self._encoder is not None
        return pooled(self._encoder, pixels, self._pool)

    def emissions(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Scores [T, K] of one whole sequence of features [T, D]."""
        return self._scores(self._reduced(features), None, len(features))[0]

    def probabilities(self, features: npt.NDArray[Any], *, smooth: float | None = None) -> npt.NDArray[np.float64]:
        """The probability [T, K] of each label at each frame of one whole sequence."""
        return tagging.marginals(self.emissions(features), self._transitions(smooth), self._start())

    # ---------------------------------------------------------------------------------------------------- in pieces

    def _square(self, name: str) -> int:
        if self._encoder is None:
            raise InputError(name, f"pictures, but {self.name} reads features", "give an .npz of features")
        return self.size

    def _looked_at(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, npt.NDArray[Any]]]:
        problem: InputError | None = None
        group: list[Frame] = []
        source = iter(frames)
        while problem is None:
            try:
                frame = next(source, None)
            except InputError as error:
                frame, problem = None, error
            if frame is not None:
                group.append(frame)
            if group and (frame is None or len(group) == SEEN):
                # The pixels are not kept with the frame: a chunk of frames waits for its labels.
                rows = self.see(np.stack([each.pixels for each in group]))
                for each, row in zip(group, rows, strict=True):
                    yield Frame(each.number, each.seconds, row), row
                group = []
            if frame is None:
                break
        if problem is not None:
            raise problem

    def _reduced(self, features: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        x = np.asarray(features, np.float32)
        found: npt.NDArray[np.float32] = np.tanh(
            x @ self.bundle.weights["reduce.weight"].T + self.bundle.weights["reduce.bias"]
        )
        return found

    def _scores(self, x: npt.NDArray[np.float32], state: Any, kept: int) -> tuple[npt.NDArray[np.float64], Any]:
        """Scores of reduced features [T, P], and the forward state after the first `kept` of them."""
        states, after = [x], None
        if self._ways:
            first = self._ways["forwards"].scan(x[None, :kept], state=state)
            rest = self._ways["forwards"].scan(x[None, kept:], state=first.state)
            states, after = [np.concatenate([first.outputs[0], rest.outputs[0]])], first.state
            if "backwards" in self._ways:
                turned = np.ascontiguousarray(x[::-1])
                states.append(self._ways["backwards"].scan(turned[None]).outputs[0][::-1])
        weights = self.bundle.weights
        out = np.concatenate(states, 1) @ weights["head.weight"].T + weights["head.bias"]
        return out.astype(np.float64), after

    def _transitions(self, smooth: float | None) -> npt.NDArray[np.float64]:
        cost = self.smooth if smooth is None else smooth
        if not 0 <= cost <= 1000:
            raise RecurError(f"smooth {cost}; expected 0 to 1000; choose another")
        return tagging.smoothed(self.bundle.weights["crf.transitions"].astype(np.float64), cost)

    def _start(self) -> npt.NDArray[np.float64]:
        return self.bundle.weights["crf.start"].astype(np.float64)

    def _labels(
        self, rows: Iterable[tuple[Frame, npt.NDArray[Any]]], path: str | None, smooth: float | None
    ) -> Iterator[FrameLabel]:
        """A chunk is decided when AHEAD more frames are known; what is decided stays, and the next chunk goes on."""
        transitions, start = self._transitions(smooth), self._start()
        waiting: list[tuple[Frame, npt.NDArray[Any]]] = []
        state: Any = None
        problem: InputError | None = None
        source = iter(rows)
        more = True
        while more or waiting:
            while more and len(waiting) < CHUNK + AHEAD:
                try:
                    waiting.append(next(source))
                except StopIteration:
                    more = False
                except InputError as error:
                    problem, more = error, False
            if not waiting:
                break
            kept = CHUNK if more else len(waiting)
            scores, state = self._scores(self._reduced([row for _, row in waiting]), state, kept)
            chain = tagging.viterbi(scores, transitions, start)[:kept]
            sure = tagging.marginals(scores, transitions, start)[:kept]
            for (frame, _), label, row in zip(waiting[:kept], chain, sure, strict=True):
                second = int(np.argsort(-row, kind="stable")[0])
                if second == label:
                    second = int(np.argsort(-row, kind="stable")[1])
                yield FrameLabel(
                    path, frame.number, frame.seconds, self.classes[label], float(row[label]), self.classes[second]
                )
            start = transitions[chain[-1]]
            waiting = waiting[kept:]
        if problem is not None:
            raise problem


def measure(labeller: FrameLabeller, sequences: Iterable[LabelledFrames]) -> dict[str, float]:
    """Accuracy, edit score and F1 of labelled sequences of features."""
    pairs = []
    for each in sequences:
        found = [labeller.classes.index(label.label) for label in labeller.of_features(each.values, path=each.name)]
        pairs.append((np.array(found, np.int64), each.labels))
    return frame_scores(pairs)


def pooled(encoder: Encoder, pixels: npt.NDArray[np.uint8], pool: Sequence[int]) -> npt.NDArray[np.float32]:
    """Features [T, py * px * F] of pixels: the mean of each of py x px tiles of the trunk's map."""
    if len(pixels) > SEEN:
        groups = [pooled(encoder, pixels[at : at + SEEN], pool) for at in range(0, len(pixels), SEEN)]
        return np.concatenate(groups)
    cells = encoder(pixels)
    rows, columns = encoder.grid
    grid = cells.reshape(len(cells), rows, columns, -1)
    tiles = [
        grid[:, band[0] : band[-1] + 1, part[0] : part[-1] + 1].mean((1, 2))
        for band in np.array_split(np.arange(rows), min(pool[0], rows))
        for part in np.array_split(np.arange(columns), min(pool[1], columns))
    ]
    found: npt.NDArray[np.float32] = np.concatenate(tiles, 1).astype(np.float32)
    return found

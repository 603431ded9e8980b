"""Why the label of a video changed: the frames that the new label rests on, found by hiding them one at a time.

A frame is hidden by putting the mean of the sequence in the place of its features (occlusion, Zeiler and Fergus, 2014).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recur.data.frames import Frame, read_features, read_frames
from recur.data.images import MAX_PIXELS
from recur.errors import InputError
from recur.predict.frames import SEEN, FrameLabeller

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_FRAMES: Final = 5_000  # of a page
MAX_NUMBERS: Final = 100_000  # probabilities of a page: about 0.6 MB of them
WINDOW: Final = 128  # frames on each side of a change that are read again with a frame hidden
REACH: Final = 16  # frames on each side of a change that are hidden, one at a time
NAMED: Final = 3  # frames that are named
CHANGES: Final = 40  # changes that are explained at most
THUMB: Final = 64  # pixels of a side
SPREAD: Final = 24  # small pictures spread over the video, beside those of the changes


@dataclass(frozen=True, eq=False)
class FilmExplanation:
    """What the page shows of one video: `data` is ready for `json.dumps`; `thumbs` uint8 [S, S, 3] by frame."""

    data: dict[str, Any]
    thumbs: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def drawn(self) -> dict[str, Any]:
        """`data` with the small pictures as JPEG data URIs: what is drawn, by the page and by the service's."""
        return {**self.data, "thumbs": {str(at): _uri(pixels) for at, pixels in self.thumbs.items()}}

    def write(self, path: str | Path) -> Path:
        """Write the offline page to `path`, whole or not at all. Raises OSError."""
        from recur.explain.film_page import write_film_page

        return write_film_page(path, [self])

    def figure(self) -> Figure:
        """The probabilities over time, for a paper. Errors: RecurError without matplotlib."""
        from recur.explain.figure import draw_film

        return draw_film(self.data)

    def _repr_html_(self) -> str:
        """The page in a frame of its own: its script can reach nothing of the notebook."""
        from recur.explain.film_page import render_film_page
        from recur.explain.page import framed

        return framed(render_film_page([self]))


def limit(labeller: FrameLabeller) -> int:
    """How many frames one page holds."""
    return min(MAX_FRAMES, MAX_NUMBERS // len(labeller.classes))


def explain_film(
    labeller: FrameLabeller,
    path: str | Path,
    *,
    fps: float | None = None,
    smooth: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[FilmExplanation | InputError]:
    """An explanation of each sequence of a file or folder; what is broken comes last, as an error.

    Errors: InputError for a file of more frames than `limit`, and for one without a frame that can be read.
    """
    most = limit(labeller)
    if Path(path).suffix.lower() == ".npz":
        sequences = read_features(path)
        if sum(len(scores) for _, _, scores, _ in sequences) > most:
            raise _too_long(path, most)
        for fold, name, scores, _ in sequences:
            whole = f"{path}: {fold + '/' if fold else ''}{name}"
            times = [n / fps if fps else None for n in range(len(scores))]
            yield FilmExplanation(told(labeller, scores, whole, range(len(scores)), times, smooth=smooth))
        return
    if not labeller.size:
        raise InputError(path, f"pictures, but {labeller.name} reads features", "give an .npz of features")
    source = read_frames(path, size=labeller.size, fps=fps, max_pixels=max_pixels)
    yield from explain_frames(labeller, source, str(path), most=most, smooth=smooth)


def explain_frames(
    labeller: FrameLabeller, frames: Iterator[Frame], path: str, *, most: int, smooth: float | None = None
) -> Iterator[FilmExplanation | InputError]:
    """An explanation of frames of `labeller.size` pixels, and last, as an error, what their reading ended with.

    Errors: InputError for more frames than `most`, and where none can be read.
    """
    rows: list[NDArray[np.float32]] = []
    seen: list[tuple[int, float | None, NDArray[np.uint8]]] = []
    problem: InputError | None = None
    while problem is None:
        group: list[Frame] = []
        try:
            for frame in islice(frames, SEEN):
                group.append(frame)
        except InputError as error:
            problem = error
        if len(seen) + len(group) > most:
            raise _too_long(path, most)
        if not group:
            break
        rows.append(labeller.see(np.stack([frame.pixels for frame in group])))
        seen.extend((frame.number, frame.seconds, _small(frame.pixels)) for frame in group)
    if rows:
        data = told(
            labeller,
            np.concatenate(rows),
            path,
            [number for number, _, _ in seen],
            [seconds for _, seconds, _ in seen],
            smooth=smooth,
        )
        shown = {int(at) for at in np.linspace(0, len(seen) - 1, min(SPREAD, len(seen)))}
        for change in data["changes"]:
            shown |= {change["at"], *(each["at"] for each in change["named"])}
        yield FilmExplanation(data, {at: seen[at][2] for at in sorted(shown)})
    if problem is not None:
        yield problem


def told(
    labeller: FrameLabeller,
    features: NDArray[Any],
    path: str,
    numbers: Sequence[int],
    times: Sequence[float | None],
    *,
    smooth: float | None = None,
) -> dict[str, Any]:
    """What `--json` prints of one sequence of features [T, D] (docs/explain.md). `at` counts the frames read."""
    labels = list(labeller.of_features(features, path=path, smooth=smooth))
    probabilities = labeller.probabilities(features, smooth=smooth) if labels else np.zeros((0, len(labeller.classes)))
    changes = [at for at in range(1, len(labels)) if labels[at].label != labels[at - 1].label]
    entries = []
    for at in changes[:CHANGES]:
        probability, without = hidden(labeller, features, at, labeller.classes.index(labels[at].label), smooth=smooth)
        entries.append(
            {
                "at": at,
                "from": labels[at - 1].label,
                "to": labels[at].label,
                "probability": round(probability, 4),
                "named": [{"at": other, "without": round(without[other], 4)} for other in named(without)],
            }
        )
    return {
        "task": "frames",
        "path": path,
        "model": labeller.name,
        "classes": list(labeller.classes),
        "frames": list(numbers),
        "seconds": list(times),
        "labels": [labeller.classes.index(label.label) for label in labels],
        "probabilities": [[round(p, 3) for p in row] for row in probabilities.tolist()],
        "changes": entries,
        "changes_left_out": max(0, len(changes) - CHANGES),
    }


def hidden(
    labeller: FrameLabeller, features: NDArray[Any], at: int, label: int, *, smooth: float | None = None
) -> tuple[float, dict[int, float]]:
    """The probability of `label` at frame `at`, and what it is without each of the frames around it.

    The frames around it (`WINDOW` on each side) are read by themselves.
    """
    first = max(0, at - WINDOW)
    window = np.array(features[first : at + WINDOW], np.float32)
    mean = np.asarray(features, np.float32).mean(0)
    whole = float(labeller.probabilities(window, smooth=smooth)[at - first, label])
    without = {}
    for other in around(at, len(features)):
        kept = window[other - first].copy()
        window[other - first] = mean
        without[other] = float(labeller.probabilities(window, smooth=smooth)[at - first, label])
        window[other - first] = kept
    return whole, without


def around(at: int, frames: int) -> range:
    """The frames that are hidden for one at `at`."""
    return range(max(0, at - REACH), min(frames, at + REACH + 1))


def named(without: dict[int, float]) -> list[int]:
    """The frames without which the label is least probable, most telling first."""
    return sorted(without, key=lambda other: (without[other], other))[:NAMED]


def faithfulness(
    labeller: FrameLabeller, sequences: Sequence[NDArray[Any]], *, count: int, seed: int = 1
) -> dict[str, Any]:
    """On up to `count` frames of features [T, D], the changes of label first and then frames drawn at random: how far
    the label's probability falls when the frames named for it are hidden together, and when as many others of the same
    neighbourhood are; and in what share of them the named ones cost more. All is read anew over the whole sequence.
    """
    random = np.random.default_rng(seed)
    changes: list[tuple[int, int]] = []
    rest: list[tuple[int, int]] = []
    found = [[labeller.classes.index(each.label) for each in labeller.of_features(x)] for x in sequences]
    for number, labels in enumerate(found):
        for at in range(len(labels)):
            (changes if at and labels[at] != labels[at - 1] else rest).append((number, at))
    drawn = [rest[each] for each in random.permutation(len(rest))]
    falls = []
    for number, at in (places := [*changes, *drawn][:count]):
        features = np.asarray(sequences[number], np.float32)
        label = found[number][at]
        best = named(hidden(labeller, features, at, label)[1])
        others = [each for each in around(at, len(features)) if each not in best]
        if len(others) < len(best):
            continue
        whole = labeller.probabilities(features)[at, label]
        pair = []
        for some in (best, random.choice(others, len(best), replace=False)):
            less = features.copy()
            less[some] = features.mean(0)
            pair.append(float(whole - labeller.probabilities(less)[at, label]))
        falls.append(pair)
    if not falls:
        return {"frames": 0}
    table = np.array(falls)
    return {
        "frames": len(falls),
        "changes": min(len(changes), len(places)),
        "fall_without_named": round(float(table[:, 0].mean()), 4),
        "fall_without_others": round(float(table[:, 1].mean()), 4),
        "named_more": round(float((table[:, 0] > table[:, 1]).mean()), 4),
    }


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize((THUMB, THUMB), Image.Resampling.BILINEAR))


def _uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _too_long(path: str | Path, most: int) -> InputError:
    return InputError(path, f"more than {most:,} frames, which one page holds", "give a part of it")

"""Videos for tests without a decoder: a labeller that knows dark from bright, pictures, and archives of them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from recur.predict.frames import FrameLabel


class Labeller:
    """Stands for a labeller: bright frames are a b; what its frames raise comes after their labels."""

    name, size, classes = "eye", 8, ("a", "b")

    def of_frames(self, frames: Any, *, smooth: float | None) -> Iterator[FrameLabel]:
        for frame in frames:
            yield self._label(float(frame.pixels.mean() / 255), frame.number, frame.seconds)

    def of_features(self, features: Any, *, path: str | None = None, smooth: float | None = None) -> Any:
        return iter([self._label(float(row[0]), number, None) for number, row in enumerate(features)])

    def probabilities(self, features: Any, *, smooth: float | None = None) -> Any:
        return np.stack([1 - features[:, 0], features[:, 0]], 1)

    def see(self, pixels: Any) -> Any:
        return (pixels.reshape(len(pixels), -1).mean(1, keepdims=True) / 255).astype(np.float32)

    def _label(self, bright: float, number: int, seconds: float | None) -> FrameLabel:
        bright = round(bright, 2)
        return FrameLabel(None, number, seconds, "ab"[bright > 0.5], max(bright, 1 - bright), "ba"[bright > 0.5])


def picture(bright: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 9), (bright,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(entries: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()

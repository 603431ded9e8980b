"""Whether a word points at what it names: the pointing game (Zhang et al. 2016), with human boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pointing(
    attention: NDArray[Any], middle: tuple[float, float] | None, boxes: NDArray[np.float64]
) -> tuple[bool, bool, bool]:
    """Whether three points lie in one of the boxes [M, 4] (shares of the picture): that of the most attention [gy, gx],
    `middle` (the former where it is None), and the middle of the picture, which is what one guesses without looking.
    """
    rows, columns = attention.shape
    row, column = divmod(int(np.argmax(attention)), columns)
    peak = ((column + 0.5) / columns, (row + 0.5) / rows)
    first, second, third = (_inside(x, y, boxes) for x, y in (peak, middle or peak, (0.5, 0.5)))
    return first, second, third


def _inside(x: float, y: float, boxes: NDArray[np.float64]) -> bool:
    return bool(((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])).any())

"""Where a network looked for a word: its attention, set against what it always looks at, and weighed by what was there.

Attention as it is misleads in two ways. A network trained from pixels to words may keep facts about the whole picture
in cells where nothing else is to be seen, the corners mostly, and read those for every word (Darcet et al. 2024,
"Vision Transformers Need Registers"). And a cell can be attended to and give next to nothing, because what it has to
give is short (Kobayashi et al. 2020, "Attention is Not Only a Weight"). `recur evaluate explanations` tells how far the
places that come out can be believed.

T words, R regions, F channels of the features.
"""

from __future__ import annotations

import numpy as np

from recur.engine.reference import Array


def looked_at(attention: Array, features: Array, *, usual: Array | None = None) -> Array:
    """Shares [T, R] of the regions in what was looked at for each word; each row adds up to 1.

    attention  [T, R] of the words, rows that add up to 1
    features   [R, F] of the picture
    usual      [R], the mean attention of the words of the sentence; that of the rows given when left out

    A share is in proportion to attention / usual * |features|. (The length of the memory that is made of the features
    is nearer to what is read and would point a little better. It is a matrix product, though, and NumPy's threads
    get in the way of the search's: a picture would take twice the time.)
    """
    length = np.sqrt(np.square(features).sum(axis=-1))
    if usual is None:
        usual = attention.mean(axis=0)
    shares = attention / np.maximum(usual, np.finfo(np.float32).tiny) * length
    total = shares.sum(axis=-1, keepdims=True)
    result: Array = np.where(total > 0, shares / np.where(total > 0, total, 1), 1 / attention.shape[-1])
    return result.astype(np.float32)

"""What may not come next in a sequence: lengths, forbidden tokens, repeated n-grams, words that no END may follow.

N items, K rows of an item, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recur.engine.reference import Array, IntArray


class Rules:
    """What may not come next. The probabilities of what is left are not raised to make up for it.

    Errors: ValueError for lengths and tokens that make no sense.
    """

    def __init__(
        self,
        *,
        end: int,
        min_length: int,
        max_length: int,
        forbidden: Sequence[int],
        no_repeat_ngram: int,
        no_end_after: Sequence[int],
    ) -> None:
        if not 0 <= min_length <= max_length:
            raise ValueError(
                f"min_length {min_length}, max_length {max_length}; expected 0 <= min_length <= max_length"
            )
        if no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram {no_repeat_ngram}; expected 0 (off) or more")
        if end in forbidden:
            raise ValueError(f"forbidden has END ({end}), without which nothing can finish; leave it out")
        self.end, self.min_length, self.max_length = end, min_length, max_length
        self.forbidden = np.asarray(forbidden, np.intp)
        self.no_repeat_ngram = no_repeat_ngram
        self.no_end_after = np.asarray(no_end_after, np.intp)

    @property
    def active(self) -> bool:
        """Whether anything but the lengths is ruled."""
        return bool(self.forbidden.size or self.no_repeat_ngram or self.no_end_after.size)

    def apply(self, log_probs: Array, history: IntArray) -> bool:
        """Set what may not follow history [N, K, t] to -inf in log_probs [N, K, V], in place. False: nothing to do."""
        length = history.shape[2]
        if length >= self.max_length:
            kept = log_probs[..., self.end].copy()
            log_probs[...] = -np.inf
            log_probs[..., self.end] = kept
            return True
        if not (self.active or length < self.min_length):
            return False
        kept = log_probs[..., self.end].copy()
        log_probs[..., self.forbidden] = -np.inf
        if length < self.min_length:
            log_probs[..., self.end] = -np.inf
        elif length and self.no_end_after.size:
            log_probs[..., self.end][np.isin(history[:, :, -1], self.no_end_after)] = -np.inf
        if self.no_repeat_ngram and length >= self.no_repeat_ngram:
            self._no_repeats(log_probs, history)
        # Where nothing at all may follow, END may: a short sentence is better than none.
        stuck = np.isneginf(log_probs.max(axis=-1))
        log_probs[..., self.end][stuck] = kept[stuck]
        return True

    def _no_repeats(self, log_probs: Array, history: IntArray) -> None:
        n = self.no_repeat_ngram
        windows = np.lib.stride_tricks.sliding_window_view(history, n, axis=2)  # [N, K, t - n + 1, n]
        last = history[:, :, None, history.shape[2] - n + 1 :]  # the n - 1 tokens that the next one would complete
        item, row, place = np.nonzero((windows[..., :-1] == last).all(axis=-1))
        log_probs[item, row, windows[item, row, place, -1]] = -np.inf

"""What a training does to a captioner, epoch by epoch: how far the end of a sentence is felt back, and its page.

The picture STARTs the sentence and END closes it. How much of the gradient of END's loss has come back to the states of
the steps before it, down to the one that read the picture, shows whether the network can learn from it what to say.
It is followed over sentences of one length, so that they are steps of one batch; no dropout, nothing drawn at random.

N sentences, each of another picture, T tokens, R grid cells, F features of a cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from recur.data.text import END
from recur.nn.caption import CaptionNetwork
from recur.train.caption_data import Captions, FeatureSource
from recur.train.plot import DISTINCT, OWN_KEYS, plot_training
from recur.train.precision import autocast
from recur.train.team import device_of
from recur.train.watch import ROWS, norms_back, render_training

AMONG = 500  # captions, the first ones, among which sentences of one length are looked for


@dataclass(frozen=True)
class Followed:
    """Sentences of one language and length: `rows` [N] are their pictures, `tokens` [N, T] begin with the language
    token, `words` [W] are the ids of the language and `end` is the place of END in them.
    """

    rows: NDArray[np.int64]
    tokens: Tensor
    words: Tensor
    end: int


def sentences_to_follow(captions: Captions) -> Followed | None:
    """At most `ROWS` of the first captions of the first language that has any, of the length that is the most common
    there and of a picture each; None when there are none.
    """
    for lang, pictures in captions.ids.items():
        first = list(islice(((row, ids) for row, several in enumerate(pictures) for ids in several), AMONG))
        if first:
            length = Counter(len(ids) for _, ids in first).most_common(1)[0][0]
            chosen: dict[int, list[int]] = {}
            for row, ids in first:
                if len(ids) == length and len(chosen) < ROWS:
                    chosen.setdefault(row, ids)
            start = captions.vocabulary.language_id(lang)
            return Followed(
                np.array([*chosen], np.int64),
                torch.tensor([[start, *ids] for ids in chosen.values()]),
                captions.words[lang],
                int(captions.position[lang][END]),
            )
    return None


def gradients_to_picture(network: CaptionNetwork, source: FeatureSource, followed: Followed) -> list[float]:
    """As `gradients_back`, on the pictures as they are."""
    with torch.no_grad(), autocast():
        features = source.features(followed.rows, None)
    return gradients_back(network, features.float(), followed)


def gradients_back(network: CaptionNetwork, features: Tensor, followed: Followed) -> list[float]:
    """The norm of the gradient of the loss of END, with regard to the states that the steps before it handed on, for
    features [N, R, F]: the first number one step back, the last T steps back, where the picture was read.
    """
    device = device_of(network)
    start, memory, keys = network.look(features.to(device))
    state = network.first_state(len(start), start)
    inputs = [start, *network.embedding(followed.tokens.to(device)).unbind(1)]
    handed: list[list[Tensor]] = []
    for x in inputs[:-1]:
        _, state = network.step(x, state, memory, keys)
        # The layer above has read the state in this step: what is handed on to the next one is a tensor of its own.
        state = [tuple(part.clone() for part in layer) for layer in state]
        handed.append([part for layer in state for part in layer])
    top, _ = network.step(inputs[-1], state, memory, keys)
    scores = network.predict(top, followed.words.to(device))
    ends = torch.full((len(scores),), followed.end, device=device)
    return norms_back(functional.cross_entropy(scores, ends, reduction="sum"), handed, len(scores))


def render_caption_training(name: str, log: Sequence[Mapping[str, Any]], watched: Sequence[Mapping[str, Any]]) -> str:
    """The training page of a captioner; its epochs are numbered through, over all phases."""
    return render_training(
        name,
        log,
        watched,
        title="Loss of each phase, and dev CIDEr-D, by epoch",
        plot=plot_training,
        rows=[_row(number, entry) for number, entry in enumerate(log, 1)],
        of="the loss of END, the last word of a sentence",
    )


def _row(number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch of the log with the names that people read."""
    row: dict[str, Any] = {"epoch": number, "phase": entry["phase"], "loss": entry["loss"]}
    languages = [key for key in entry if key not in OWN_KEYS and not key.endswith(DISTINCT)]
    row |= {f"CIDEr-D {lang}": entry[lang] for lang in languages}
    return row | {f"distinct captions {lang}": entry[lang + DISTINCT] for lang in languages if lang + DISTINCT in entry}

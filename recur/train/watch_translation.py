"""What a training does to a translator, epoch by epoch: how far the end of a translation is felt back in the decoder,
and its page.

N pairs of one length on either side: S pieces of a source, T tokens of a translation, the first that of its language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from recur.data.subwords import END, Subwords
from recur.nn.translation import TranslationNetwork
from recur.train.plot import OWN_KEYS, plot_training
from recur.train.team import device_of
from recur.train.watch import ROWS, render_training
from recur.train.watch_caption import AMONG, Followed, gradients_back


def pairs_to_follow(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], subwords: Subwords, lang: str
) -> Followed | None:
    """At most `ROWS` different ones of the first pairs, of the lengths that are the most common there, as translations
    into `lang`; None when there are none.
    """
    first = list(zip(map(tuple, sources[:AMONG]), map(tuple, targets[:AMONG]), strict=True))
    if not first:
        return None
    lengths = Counter((len(source), len(target)) for source, target in dict.fromkeys(first)).most_common(1)[0][0]
    chosen: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    for row, (source, target) in enumerate(first):
        if (len(source), len(target)) == lengths and len(chosen) < ROWS:
            chosen.setdefault((source, target), row)
    words = subwords.allowed(lang)
    return Followed(
        np.array([*chosen.values()], np.int64),
        torch.tensor([[subwords.language_id(lang), *target] for _, target in chosen]),
        torch.from_numpy(words),
        int(np.flatnonzero(words == END)[0]),
    )


def gradients_to_source(
    network: TranslationNetwork, sources: Sequence[Sequence[int]], followed: Followed
) -> list[float]:
    """As `gradients_back`, of the decoder that has read `followed.rows` of the sources. Dropout is off."""
    device = device_of(network)
    source = torch.tensor([sources[row] for row in followed.rows.tolist()]).to(device)
    trained = network.training
    network.eval()
    with torch.no_grad():
        features = network.encode(source, torch.full((len(source),), source.shape[1], device=device))
    network.train(trained)
    return gradients_back(network.decoder, features, followed)


def render_translation_training(
    name: str, log: Sequence[Mapping[str, Any]], watched: Sequence[Mapping[str, Any]]
) -> str:
    """The training page of a translator."""
    return render_training(
        name,
        log,
        watched,
        title="Loss, and BLEU of greedy translations of dev, by epoch",
        plot=partial(plot_training, score="dev BLEU"),
        rows=[{key if key in OWN_KEYS else f"BLEU {key}": value for key, value in entry.items()} for entry in log],
        of="the loss of END, the last piece of a translation",
    )

"""Self-critical sequence training on CIDEr-D (Rennie et al. 2017).

Sentences are sampled from the network itself; one that scores better than the other samples of its picture becomes
more probable, one that scores worse less (the leave-one-out mean as the baseline, Luo 2020, "A Better Variant of
Self-Critical Sequence Training"). END counts as a word of the sentence in the reward, and cross-entropy on the human
sentences stays in the mixture: both keep captions from stopping on "a", "with a" and the like.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recur.data.text import END
from recur.metrics.caption import CiderD
from recur.nn.caption import CaptionNetwork
from recur.train.caption_data import DEFAULT_MAX_WORDS, MAX_WORDS, CaptionBatch, Captions, Split

END_MARK = "</s>"
COPIES = 5
CROSS_ENTROPY_SHARE = 0.15
# Label smoothing leaves every word some probability, and a sentence of twelve words rarely escapes a stray one. The
# policy that is sampled and improved is therefore a sharper one of the same scores.
TEMPERATURE = 0.5


def reward_scorer(split: Split, lang: str) -> CiderD:
    """CIDEr-D against the references of a split with END as their last word."""
    # A picture without a caption in this language is never scored; the one empty reference only keeps its place.
    return CiderD([[[*words, END_MARK] for words in rows] or [[]] for rows in split.tokens[lang]])


def self_critical_loss(
    network: CaptionNetwork,
    features: Tensor,
    captions: Captions,
    lang: str,
    rows: NDArray[np.int64],
    scorer: CiderD,
    cross_entropy: Callable[[CaptionNetwork, Tensor, CaptionBatch], Tensor],
    rng: np.random.Generator,
    part: slice | None = None,
) -> Tensor | None:
    """The loss of one language on pictures `rows` with features [P, R, F]; None when they have no reference.

    `rng` draws the human sentence of each picture that cross-entropy sees. With `part` of the pictures only: all parts
    add up to the loss. Sentences are drawn for all of them, because what is drawn depends on when the last one ends.
    """
    batch = captions.batch(lang, rows, rng)
    if batch is None:
        return None
    has = np.array([bool(captions.ids[lang][row]) for row in rows])
    vocabulary = captions.vocabulary
    language, limit = vocabulary.language_id(lang), MAX_WORDS.get(lang, DEFAULT_MAX_WORDS)
    device = features.device
    batch = batch.to(device)
    words_of = batch.words
    drawn = network.generate(
        features.detach(), language, words_of, end=END, copies=COPIES, length=limit, temperature=TEMPERATURE
    )
    sentences: list[list[str]] = []
    for row in drawn.tolist():
        words = vocabulary.decode(row)
        sentences.append([*words, END_MARK] if END in row else words)
    rewards = np.zeros(len(sentences))
    scored = np.flatnonzero(np.repeat(has, COPIES))
    rewards[scored] = scorer.score([sentences[i] for i in scored], np.repeat(rows, COPIES)[scored].tolist())
    by_picture = rewards.reshape(len(rows), COPIES)
    advantage = (by_picture - (by_picture.sum(1, keepdims=True) - by_picture) / (COPIES - 1)).reshape(-1)

    tokens = torch.cat([drawn.new_full((len(drawn), 1), language), drawn[:, :-1]], 1)
    position = torch.from_numpy(captions.position[lang]).to(device)
    owner = torch.arange(len(rows), device=device).repeat_interleave(COPIES)
    # END itself is part of the sentence; what generate() repeats after it is not.
    lengths = ((drawn != END).sum(1) + 1).clamp(max=drawn.shape[1])
    places = int(lengths.sum())
    if part is not None:
        start, stop, _ = part.indices(len(rows))
        if start == stop:
            return features.new_zeros(())
        mine = slice(start * COPIES, stop * COPIES)
        features, batch, advantage, drawn = features[part], batch.part(part), advantage[mine], drawn[mine]
        owner, tokens, lengths = owner[mine] - start, tokens[mine], lengths[mine]
    packing, scores = network.score_sentences(features, owner, tokens, lengths, words_of)
    wanted = position[drawn][packing.row, packing.step]
    chosen = scores.float().div(TEMPERATURE).log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    gains = chosen * torch.from_numpy(advantage).float().to(device)[packing.row]
    gain = gains.mean() if part is None else gains.sum() / places
    loss: Tensor = -gain + CROSS_ENTROPY_SHARE * cross_entropy(network, features, batch)
    return loss

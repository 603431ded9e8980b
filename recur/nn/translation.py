"""The translation network: the caption network, with a recurrent encoder in the place of the one that sees.

A bidirectional LSTM reads the sentence (Bahdanau et al. 2015); its states are what the picture's regions are to the
captioner: their mean STARTs the decoder, and attention reads them at every word. Encoder and decoder share one table of
pieces of words, which is the head as well.

P sentences, R pieces of a source, F = 2 H_e features of each, T pieces of a translation, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from recur.nn.caption import CaptionNetwork
from recur.nn.dropout import Among
from recur.nn.sequence import Packing, locked_dropout, packed_lstm


class TranslationNetwork(nn.Module):
    """Pieces of a sentence in, scores of the next piece of its translation out."""

    def __init__(
        self,
        *,
        vocabulary: int,
        embedding: int = 160,
        hidden: int = 256,
        encoder: int = 160,
        layers: int = 2,
        attention: int = 96,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.share = dropout
        self.decoder = CaptionNetwork(
            channels=2 * encoder,
            vocabulary=vocabulary,
            embedding=embedding,
            hidden=hidden,
            layers=layers,
            attention=attention,
            dropout=dropout,
        )
        self.forwards = nn.LSTM(embedding, encoder)
        self.backwards = nn.LSTM(embedding, encoder)
        for layer in (self.forwards, self.backwards):
            # A forget gate that starts open remembers from the first step on (Jozefowicz et al. 2015).
            nn.init.constant_(cast(Tensor, layer.bias_ih_l0)[encoder : 2 * encoder], 1.0)

    def encode(self, source: Tensor, lengths: Tensor, among: Among | None = None) -> Tensor:
        """Features [P, R, F] of sources [P, R], zero from `lengths` [P] on. `among`: see `recur.nn.dropout`."""
        packing = Packing.of(lengths)
        x = self.decoder.embedding(packing.pack(source))
        x = locked_dropout(x, self.share, packing, training=self.training, among=among)
        # The backward direction reads the same packing with the pieces of each sentence turned round.
        count, width = source.shape
        places = packing.row * width + packing.step
        where = torch.empty(count * width, dtype=torch.long, device=source.device)
        where[places] = torch.arange(len(places), device=source.device)
        order = where[packing.row * width + lengths[packing.row] - 1 - packing.step]
        ahead = packed_lstm(x, self.forwards, packing.live)
        behind = packed_lstm(x[order], self.backwards, packing.live)[order]
        states = torch.cat([ahead, behind], 1)
        states = locked_dropout(states, self.share, packing, training=self.training, among=among)
        features = states.new_zeros(count * width, states.shape[1]).index_copy(0, places, states)
        return features.view(count, width, -1)

    def forward(
        self,
        source: Tensor,
        source_lengths: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        words: Tensor,
        among: Among | None = None,
    ) -> tuple[Packing, Tensor]:
        """Where the live places of tokens [P, T] are, and scores [M, W] of `words` after each; the first token is
        that of the language. `among`: see `recur.nn.dropout`.
        """
        features = self.encode(source, source_lengths, among)
        owner = torch.arange(len(source), device=source.device)
        return self.decoder.score_sentences(features, owner, tokens, lengths, words, source_lengths, among)

    def engine_weights(self) -> dict[str, Tensor]:
        """The weights by the names that the engine reads: the decoder's, and a stack under `encoder.`."""
        found = self.decoder.engine_weights()
        for layer, way in ((self.forwards, ""), (self.backwards, "_reverse")):
            for name, value in layer.named_parameters():
                found[f"encoder.{name}{way}"] = value.detach().float()
        return found

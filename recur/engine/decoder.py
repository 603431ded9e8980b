"""The caption decoder at speed: many pictures and hypotheses at once, in NumPy. Its slow twin is `engine/reference.py`.

What does not change from step to step is done once: the memory and its attention keys once a picture; the product of
a word's embedding with the first layer once a word, on first use, because most words of a vocabulary never come up;
and the head scores only the words of the language asked for, so that tokens here are places in `ids`, not ids.

B pictures, N of them still in the search, K rows of a picture, R regions, F features, E embedding, H hidden units,
A attention units, G gates, V words of one language and END.
"""

from __future__ import annotations

import numpy as np

from recur.engine.hypotheses import Step
from recur.engine.reference import GATES, PARTS, Array, Cell, IntArray, State, Weights, layer_weights, sigmoid, softmax


def _times(x: Array, weight: Array) -> Array:
    """x [.., D] times weight [O, D], transposed: [.., O]. One matrix product for all rows: `@` would do one an item."""
    product: Array = x.reshape(-1, x.shape[-1]) @ weight.T
    return product.reshape(*x.shape[:-1], weight.shape[0])


def caption_shapes(
    *, cell: Cell, hidden: int, layers: int, embedding: int, attention: int, vocabulary: int, channels: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight that a caption decoder of these sizes has."""
    context = hidden if attention else 0
    shapes: dict[str, tuple[int, ...]] = {
        "start.weight": (embedding, channels),
        "start.bias": (embedding,),
        "embedding.weight": (vocabulary, embedding),
        "output.weight": (embedding, hidden + context),
        "output.bias": (embedding,),
        "head.bias": (vocabulary,),
    }
    for layer in range(layers):
        below = embedding if layer == 0 else hidden + (context if layer == 1 else 0)
        shapes[f"rnn.weight_ih_l{layer}"] = (GATES[cell] * hidden, below)
        shapes[f"rnn.weight_hh_l{layer}"] = (GATES[cell] * hidden, hidden)
        shapes[f"rnn.bias_ih_l{layer}"] = shapes[f"rnn.bias_hh_l{layer}"] = (GATES[cell] * hidden,)
    if attention:
        shapes |= {
            "memory.weight": (hidden, channels),
            "memory.bias": (hidden,),
            "attention.key.weight": (attention, hidden),
            "attention.query.weight": (attention, hidden),
            "attention.query.bias": (attention,),
            "attention.score.weight": (1, attention),
        }
    return shapes


class CaptionDecoder:
    """The decoder for one language: `start` reads pictures; the `Decoding` it returns is the search's step function.

    `ids` [V] are the vocabulary ids that may be written, END among them; `end` is END's place in it. One decoder may
    serve several threads.
    """

    def __init__(self, weights: Weights, *, cell: Cell, layers: int, ids: IntArray, language: int, end: int) -> None:
        """`weights` as `caption_shapes` names them; `language` and `end`: ids of the language token and of END."""
        self.cell, self.layers, self.weights = cell, layers, weights
        self.attention = "attention.score.weight" in weights
        self.ids = np.asarray(ids, np.int64)
        self.end = int(np.flatnonzero(self.ids == end)[0])
        self.hidden = weights["rnn.weight_hh_l0"].shape[1]
        embedding = weights["embedding.weight"]
        self._words = np.ascontiguousarray(embedding[self.ids])  # [V, E]
        self._head_bias = weights["head.bias"][self.ids]
        self._language = embedding[language]
        gates = weights["rnn.weight_ih_l0"].shape[0]
        self._table = np.empty((len(self.ids), gates), embedding.dtype)  # what the first layer makes of each word
        self._known = np.zeros(len(self.ids), bool)

    def start(self, features: Array) -> tuple[Decoding, Step]:
        """Read pictures, features [B, R, F]: START, then the language token. The step (K = 1) scores the first word."""
        decoding = Decoding(self, features)
        weights, rows = self.weights, len(features)
        start = features.mean(axis=1) @ weights["start.weight"].T + weights["start.bias"]
        zeros = np.zeros((rows, 1, self.hidden), features.dtype)
        state: tuple[Array, ...] = (zeros,) * (PARTS[self.cell] * self.layers)
        items = np.arange(rows)
        _, _, state = decoding.advance(self._first_layer(start[:, None]), state, items)
        language = np.broadcast_to(self._first_layer(self._language), (rows, 1, self._table.shape[1]))
        return decoding, decoding.score(*decoding.advance(language, state, items))

    def word_inputs(self, tokens: IntArray) -> Array:
        """What the first layer makes of tokens [N, K], biases included: [N, K, G * H]."""
        missing = np.unique(tokens[~self._known[tokens]])
        if missing.size:
            self._table[missing] = self._first_layer(self._words[missing])
            self._known[missing] = True  # after the rows are there: another thread may look at any moment
        return self._table[tokens]

    def logits(self, output: Array) -> Array:
        """Scores [.., V] of output vectors [.., E]."""
        scores = _times(output, self._words)
        scores += self._head_bias
        return scores

    def _first_layer(self, x: Array) -> Array:
        weight_ih, _, bias_ih, bias_hh = layer_weights(self.weights, 0, "rnn.")
        inputs = _times(x, weight_ih) + bias_ih
        return inputs if self.cell == "gru" else inputs + bias_hh


class Decoding:
    """Some pictures being described: the step function of the search, and what attention reads of each picture."""

    def __init__(self, decoder: CaptionDecoder, features: Array) -> None:
        self.decoder = decoder
        self._memory = self._keys = None
        if decoder.attention:
            weights = decoder.weights
            memory = _times(features, weights["memory.weight"]) + weights["memory.bias"]  # [B, R, H]
            self._memory, self._keys = memory, _times(memory, weights["attention.key.weight"])  # [B, R, A]
            self._items: IntArray = np.arange(len(features))
            self._now = (self._memory, self._keys)

    def __call__(self, tokens: IntArray, state: tuple[Array, ...], items: IntArray) -> Step:
        """Feed words [N, K] (places in the decoder's `ids`)."""
        return self.score(*self.advance(self.decoder.word_inputs(tokens), state, items))

    def advance(
        self, inputs: Array, state: tuple[Array, ...], items: IntArray
    ) -> tuple[Array, Array | None, tuple[Array, ...]]:
        """All layers one step on, from what the first one makes of its input: top [N, K, H or 2H], attention, state."""
        decoder = self.decoder
        parts = PARTS[decoder.cell]
        after: list[Array] = []
        below: Array = inputs
        context: Array | None = None
        alpha: Array | None = None
        for layer in range(decoder.layers):
            weight_ih, weight_hh, bias_ih, bias_hh = layer_weights(decoder.weights, layer, "rnn.")
            if layer == 1 and context is not None:
                below = np.concatenate([below, context], axis=-1)
            if layer:
                below = _times(below, weight_ih)
                below += bias_ih if decoder.cell == "gru" else bias_ih + bias_hh
            before = state[layer * parts : (layer + 1) * parts]
            after += _cell(decoder.cell, below, before, weight_hh, bias_hh)
            below = after[-parts]
            if layer == 0 and decoder.attention:
                context, alpha = self._attend(below, items)
        top = below if context is None else np.concatenate([below, context], axis=-1)
        return top, alpha, tuple(after)

    def score(self, top: Array, alpha: Array | None, state: tuple[Array, ...]) -> Step:
        """The head: logits of the next word."""
        weights = self.decoder.weights
        output = np.tanh(_times(top, weights["output.weight"]) + weights["output.bias"])
        return Step(self.decoder.logits(output), state, alpha)

    def _attend(self, h: Array, items: IntArray) -> tuple[Array, Array]:
        weights = self.decoder.weights
        assert self._memory is not None
        assert self._keys is not None
        if len(items) != len(self._items) or not np.array_equal(items, self._items):
            self._items, self._now = items, (self._memory[items], self._keys[items])
        memory, keys = self._now
        query = _times(h, weights["attention.query.weight"]) + weights["attention.query.bias"]
        mixed = keys[:, None] + query[:, :, None]  # [N, K, R, A]
        np.tanh(mixed, out=mixed)
        alpha = softmax(_times(mixed, weights["attention.score.weight"])[..., 0])
        return alpha @ memory, alpha


def _cell(cell: Cell, inputs: Array, before: State, weight_hh: Array, bias_hh: Array) -> State:
    """One cell from its input's share of the gates, [.., G * H]; that includes both biases, except for gru."""
    h = before[0]
    size = h.shape[-1]
    recurrent = _times(h, weight_hh)
    if cell == "gru":
        recurrent += bias_hh
        gates = sigmoid(inputs[..., : 2 * size] + recurrent[..., : 2 * size])
        r, z = gates[..., :size], gates[..., size:]
        n = np.tanh(inputs[..., 2 * size :] + r * recurrent[..., 2 * size :])
        return (n + z * (h - n),)
    recurrent += inputs
    if cell == "rnn":
        return (np.tanh(recurrent),)
    if cell == "rnn_relu":
        return (np.maximum(recurrent, 0),)
    in_forget = sigmoid(recurrent[..., : 2 * size])
    c = in_forget[..., size:] * before[1] + in_forget[..., :size] * np.tanh(recurrent[..., 2 * size : 3 * size])
    return (sigmoid(recurrent[..., 3 * size :]) * np.tanh(c), c)

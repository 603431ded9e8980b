"""Trained recurrent networks as ONNX graphs, with any number of sequences and any number of steps.

`export_stack` writes layers alone, or with an embedding before and a head after them: a language model.
`export_caption` writes the whole caption decoder, as it reads given words. That needs no loop, because no later layer
feeds an earlier one: the first layer runs over all steps, attention looks at the picture for all of them at once, and
the second layer runs over what it saw (`recur/nn/caption.py` trains it in the same way).

ONNX's own order of gates is i, o, f, c for the LSTM and z, r, h for the GRU (operators LSTM, GRU and RNN, opset 14).

B batch, T time, D input features, H hidden units, L layers, V vocabulary, R regions, F features of a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recur.engine.reference import GATES, Array, Cell
from recur.errors import RecurError

OPSET = 17
OPERATORS: dict[Cell, str] = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
ORDERS: dict[Cell, tuple[int, ...]] = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}  # of PyTorch's gates


class _Sequence:
    """Nodes and weights of a graph as they come."""

    def __init__(self, weights: Mapping[str, Array], cell: Cell, prefix: str = "") -> None:
        self.weights, self.cell, self.prefix = weights, cell, prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, name: str, value: Array | list[int]) -> str:
        self.constants[name] = np.asarray(value, np.int64 if isinstance(value, list) else np.float32)
        return name

    def weight(self, name: str) -> Array:
        if name not in self.weights:
            raise RecurError(f"{name} is missing; expected PyTorch's names after {self.prefix!r}; give the prefix")
        return self.weights[name]

    def add(self, kind: str, inputs: list[str], *, outputs: int = 1, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return name

    def linear(self, x: str, weight: str, bias: str = "") -> str:
        """x [.., D] times weight [O, D], plus bias. ONNX Runtime turns the weight once, when it loads the graph."""
        turned = self.add("Transpose", [self.constant(weight, self.weight(weight))], perm=[1, 0])
        product = self.add("MatMul", [x, turned])
        return self.add("Add", [product, self.constant(bias, self.weight(bias))]) if bias in self.weights else product

    def layer(self, x: str, number: int, *, both: bool = False, state: list[str] | None = None) -> tuple[str, str]:
        """One layer over x [T, B, D]: outputs [T, B, H or 2H], and the node's name, whose 2nd and 3rd are the state."""
        ways = ("", "_reverse")[: 1 + both]
        arrays: dict[str, list[Array]] = {"weight_ih": [], "weight_hh": [], "bias": []}
        for way in ways:
            ih, hh, b_ih, b_hh = (
                self._gates(self.weight(f"{self.prefix}{name}_l{number}{way}"))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            for name, value in (("weight_ih", ih), ("weight_hh", hh), ("bias", np.concatenate([b_ih, b_hh]))):
                arrays[name].append(value)
        names = [self.constant(f"{self.prefix}{name}_l{number}", np.stack(value)) for name, value in arrays.items()]
        attributes: dict[str, Any] = {"hidden_size": arrays["weight_hh"][0].shape[1]}
        if both:
            attributes["direction"] = "bidirectional"
        if self.cell == "gru":
            attributes["linear_before_reset"] = 1  # PyTorch's form
        parts = 3 if self.cell == "lstm" else 2
        node = self.add(OPERATORS[self.cell], [x, *names, "", *(state or [])], outputs=parts, **attributes)
        # [T, ways, B, H] -> [T, B, ways * H]
        turned = self.add("Transpose", [node], perm=[0, 2, 1, 3])
        return self.add("Reshape", [turned, self.constant("sides", [0, 0, -1])]), node

    def _gates(self, value: Array) -> Array:
        parts = np.split(np.asarray(value), GATES[self.cell])
        return np.concatenate([parts[gate] for gate in ORDERS[self.cell]])

    def model(self, inputs: list[Any], outputs: dict[str, tuple[str, list[str | int]]]) -> bytes:
        """The finished graph; `outputs` are name -> tensor, shape."""
        for name, (tensor, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
        told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()]
        stored = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in self.constants.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, "recur", inputs, told, stored),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=9,
            producer_name="recur",
        )
        onnx.checker.check_model(model)
        encoded: bytes = model.SerializeToString()
        return encoded


def export_stack(weights: Mapping[str, Array], cell: Cell, *, prefix: str = "", state: bool = False) -> bytes:
    """Layers as ONNX: `x` float [B, T, D] -> `outputs` [B, T, H], or [B, T, 2H] in both directions.

    With `embedding.weight` [V, E] the input is `tokens` int64 [B, T] instead; with `head.weight` [V, H] (and
    `head.bias`) the output is `logits` [B, T, V]. `state`: the first state goes in as `h` (and `c`) [L, B, H] and the
    last one comes out as `last_h` (and `last_c`), so that a text can go on step by step; L is twice as great in both
    directions, forward and backward by turns, as in PyTorch. Errors: RecurError for a weight that is missing.
    """
    graph = _Sequence(weights, cell, prefix)
    both = f"{prefix}weight_ih_l0_reverse" in weights
    layers = sum(name.startswith(f"{prefix}weight_ih_l") and not name.endswith("_reverse") for name in weights)
    hidden = graph.weight(f"{prefix}weight_hh_l0").shape[1]
    ways, count = 1 + both, (1 + both) * layers
    if "embedding.weight" in weights:
        inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"])]
        x = graph.add("Gather", [graph.constant("embedding.weight", weights["embedding.weight"]), "tokens"])
    else:
        width = graph.weight(f"{prefix}weight_ih_l0").shape[1]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", width])]
        x = "x"
    names = (["h", "c"] if cell == "lstm" else ["h"]) if state else []
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, "B", hidden]) for name in names]
    x = graph.add("Transpose", [x], perm=[1, 0, 2])
    last: list[str] = []
    for number in range(layers):
        edges = [
            graph.constant(f"from_{number}", [ways * number]),
            graph.constant(f"to_{number}", [ways * number + ways]),
        ]
        first = [graph.add("Slice", [name, *edges, graph.constant("axis", [0])]) for name in names]
        x, node = graph.layer(x, number, both=both, state=first)
        last.append(node)
    y = graph.add("Transpose", [x], perm=[1, 0, 2])
    outputs: dict[str, tuple[str, list[str | int]]] = {}
    if "head.weight" in weights:
        logits = graph.linear(y, "head.weight", "head.bias")
        outputs["logits"] = (logits, ["B", "T", len(weights["head.weight"])])
    else:
        outputs["outputs"] = (y, ["B", "T", ways * hidden])
    for place, name in enumerate(names, start=1):
        joined = graph.add("Concat", [f"{node}_{place}" for node in last], axis=0)
        outputs[f"last_{name}"] = (joined, [count, "B", hidden])
    return graph.model(inputs, outputs)


def export_caption(weights: Mapping[str, Array], cell: Cell) -> bytes:
    """The caption decoder as ONNX: `features` float [B, R, F] and `tokens` int64 [B, T], the language token first ->
    `logits` [B, T, V] of what follows each token, and `attention` [B, T, R] where the network has it.

    `weights` are those of a bundle, as `recur.bundle.read_bundle` gives them. Errors: RecurError for a missing one.
    """
    graph = _Sequence(weights, cell, "rnn.")
    layers = sum(name.startswith("rnn.weight_ih_l") for name in weights)
    embedding = graph.weight("embedding.weight")
    channels = graph.weight("start.weight").shape[1]
    inputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "R", channels]),
        helper.make_tensor_value_info("tokens", TensorProto.INT64, ["B", "T"]),
    ]
    mean = graph.add("ReduceMean", ["features"], axes=[1], keepdims=1)
    words = graph.add("Gather", [graph.constant("embedding.weight", embedding), "tokens"])
    x = graph.add("Concat", [graph.linear(mean, "start.weight", "start.bias"), words], axis=1)
    below = graph.add("Transpose", [x], perm=[1, 0, 2])
    context = alpha = ""
    for number in range(layers):
        if number == 1 and context:
            below = graph.add("Concat", [below, context], axis=2)
        below, _ = graph.layer(below, number)
        if number == 0 and "attention.score.weight" in weights:
            context, alpha = _attend(graph, below)
    top = graph.add("Concat", [below, context], axis=2) if context else below
    said = graph.add(
        "Slice", [top, graph.constant("one", [1]), graph.constant("end", [1 << 31]), graph.constant("axis", [0])]
    )
    output = graph.add("Tanh", [graph.linear(said, "output.weight", "output.bias")])
    logits = graph.linear(output, "embedding.weight", "head.bias")
    outputs: dict[str, tuple[str, list[str | int]]] = {
        "logits": (graph.add("Transpose", [logits], perm=[1, 0, 2]), ["B", "T", len(embedding)])
    }
    if alpha:
        ends = [graph.constant("one", [1]), graph.constant("end", [1 << 31]), graph.constant("axis_1", [1])]
        outputs["attention"] = (graph.add("Slice", [alpha, *ends]), ["B", "T", "R"])
    return graph.model(inputs, outputs)


def _attend(graph: _Sequence, states: str) -> tuple[str, str]:
    """Context [T, B, H] of states [T, B, H], and attention [B, T, R]: additive, for all steps at once."""
    memory = graph.linear("features", "memory.weight", "memory.bias")  # [B, R, H]
    keys = graph.add("Unsqueeze", [graph.linear(memory, "attention.key.weight"), graph.constant("axis_1", [1])])
    rows = graph.add("Transpose", [states], perm=[1, 0, 2])
    query = graph.linear(rows, "attention.query.weight", "attention.query.bias")  # [B, T, A]
    query = graph.add("Unsqueeze", [query, graph.constant("axis_2", [2])])
    mixed = graph.add("Tanh", [graph.add("Add", [keys, query])])  # [B, T, R, A]
    scores = graph.add("Squeeze", [graph.linear(mixed, "attention.score.weight"), graph.constant("axis_3", [3])])
    alpha = graph.add("Softmax", [scores], axis=2)
    return graph.add("Transpose", [graph.add("MatMul", [alpha, memory])], perm=[1, 0, 2]), alpha

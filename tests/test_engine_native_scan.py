"""The core's scan against the reference: every cell, instruction set and odd size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import CELLS, ISAS, exact, stack_weights

from recur.engine import native
from recur.engine.reference import scan

pytestmark = pytest.mark.skipif(not native.where().core, reason=f"no compiled core: {native.where().reason}")

# Of a state in -1..1, for weights as PyTorch draws them. int8 rounds states to 1/127 of the largest, weights likewise.
WITHIN = {"float32": 1e-5, "bfloat16": 3e-2, "int8": 5e-2}


def worst(found: native.Scan, outputs: Any, state: Any) -> float:
    gaps = [np.abs(found.outputs - outputs).max(initial=0)]
    gaps += [
        np.abs(mine - theirs).max(initial=0)
        for layer, other in zip(found.state, state, strict=True)
        for mine, theirs in zip(layer, other, strict=True)
    ]
    return float(max(gaps))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
def test_equals_the_reference_after_a_thousand_steps(cell: Any, precision: Any, isa: str) -> None:
    spread = 0.7 if cell == "rnn_relu" else 1.0  # a rectified network with more than that runs away
    weights = stack_weights(cell, 9, 33, 2, spread=spread)
    x = np.random.default_rng(1).standard_normal((2, 1000, 9)).astype(np.float32)
    outputs, state = scan(cell, x.astype(np.float64), exact(weights), layers=2)
    stack = native.Stack(weights, cell=cell, layers=2, precision=precision, isa=isa, threads=1)
    assert stack.isa == isa
    assert worst(stack.scan(x), outputs, state) < WITHIN[precision]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_reference_at_odd_sizes(data: st.DataObject) -> None:
    cell: Any = data.draw(st.sampled_from(CELLS))
    hidden = data.draw(st.sampled_from([1, 7, 16, 17, 64, 129]))
    batch = data.draw(st.sampled_from([0, 1, 3, 5, 65]))
    time = data.draw(st.sampled_from([0, 1, 2, 13]))
    inputs = data.draw(st.sampled_from([1, 3, 16, 31]))
    layers = data.draw(st.sampled_from([1, 2]))
    bidirectional, norm = data.draw(st.booleans()), data.draw(st.booleans()) and hidden > 1
    isa, threads = data.draw(st.sampled_from(ISAS)), data.draw(st.sampled_from([1, 2, 3]))
    random = np.random.default_rng(data.draw(st.integers(0, 100)))
    weights = stack_weights(cell, inputs, hidden, layers, bidirectional=bidirectional, norm=norm)
    x = random.standard_normal((batch, time, inputs)).astype(np.float32)
    lengths = random.integers(0, time + 1, batch) if data.draw(st.booleans()) else None
    resets = random.random((batch, time)) < 0.3 if data.draw(st.booleans()) else None
    begin = [
        tuple(random.standard_normal((batch, hidden)).astype(np.float32) for _ in range(2 if cell == "lstm" else 1))
        for _ in range(layers * (1 + bidirectional))
    ]
    outputs, state = scan(
        cell,
        x.astype(np.float64),
        exact(weights),
        layers=layers,
        state=[tuple(part.astype(np.float64) for part in layer) for layer in begin],
        lengths=lengths,
        resets=resets,
        bidirectional=bidirectional,
    )
    stack = native.Stack(weights, cell=cell, layers=layers, bidirectional=bidirectional, isa=isa, threads=threads)
    found = stack.scan(x, state=begin, lengths=lengths, resets=resets)
    assert found.outputs.shape == (batch, time, (1 + bidirectional) * hidden)
    # Normalisation divides by a spread that may be small, and one unit's rectifier has no bound.
    bound = 1e-4 if norm else 1e-5 * max(1.0, float(np.abs(outputs).max(initial=0)))
    assert worst(found, outputs, state) < bound


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
def test_batch_and_threads_change_no_bit(cell: Any, precision: Any, isa: str) -> None:
    weights = stack_weights(cell, 20, 130, 2)
    x = np.random.default_rng(2).standard_normal((13, 40, 20)).astype(np.float32)
    stack = native.Stack(weights, cell=cell, layers=2, precision=precision, isa=isa, threads=1)
    many = native.Stack(weights, cell=cell, layers=2, precision=precision, isa=isa, threads=2)
    whole = stack.scan(x).outputs
    np.testing.assert_array_equal(many.scan(x).outputs, whole)
    for row in (0, 12):
        np.testing.assert_array_equal(stack.scan(x[row : row + 1]).outputs[0], whole[row])
        np.testing.assert_array_equal(many.scan(x[row : row + 1]).outputs[0], whole[row])
    some = stack.scan(x[:5], lengths=[40, 3, 0, 17, 40]).outputs
    np.testing.assert_array_equal(some[3, :17], whole[3, :17])
    assert (some[3, 17:] == 0).all()


def test_panels_shared_among_threads_change_no_bit() -> None:
    """H = 512 is large enough for threads to meet at every step."""
    weights = stack_weights("lstm", 8, 512)
    x = np.random.default_rng(3).standard_normal((2, 12, 8)).astype(np.float32)
    one, two = (native.Stack(weights, cell="lstm", threads=threads).scan(x) for threads in (1, 2))
    np.testing.assert_array_equal(one.outputs, two.outputs)
    np.testing.assert_array_equal(one.state[0][1], two.state[0][1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_instruction_sets_agree(cell: Any, precision: Any) -> None:
    weights = stack_weights(cell, 11, 40, 2, spread=0.7)
    x = np.random.default_rng(4).standard_normal((3, 30, 11)).astype(np.float32)
    plain = native.Stack(weights, cell=cell, layers=2, precision=precision, isa="plain").scan(x)
    for isa in ISAS[1:]:
        other = native.Stack(weights, cell=cell, layers=2, precision=precision, isa=isa).scan(x)
        # Whole numbers are summed exactly everywhere; a state that lies between two steps of 1/127 may go either way.
        np.testing.assert_allclose(other.outputs, plain.outputs, rtol=0, atol=1e-5 if precision == "float32" else 2e-2)


@pytest.mark.parametrize("cell", CELLS)
def test_the_trace_tells_every_gate_and_state(cell: Any) -> None:
    weights = stack_weights(cell, 4, 19, 2, bidirectional=True)
    x = np.random.default_rng(5).standard_normal((3, 6, 4)).astype(np.float32)
    found = native.Stack(weights, cell=cell, layers=2, bidirectional=True).scan(x, lengths=[6, 2, 0], trace=True)
    assert found.hidden is not None
    assert found.gates is not None
    np.testing.assert_array_equal(found.outputs[..., :19], found.hidden[2])
    np.testing.assert_array_equal(found.outputs[..., 19:], found.hidden[3])
    np.testing.assert_array_equal(found.hidden[0, 0, 5], found.state[0][0][0])
    np.testing.assert_array_equal(found.hidden[1, 0, 0], found.state[1][0][0])
    gates, h = found.gates[0, 0, 4], found.hidden[0, 0]
    if cell == "lstm":
        assert found.cells is not None
        i, f, g, o = np.split(gates, 4)
        np.testing.assert_allclose(found.cells[0, 0, 4], f * found.cells[0, 0, 3] + i * g, atol=1e-6)
        np.testing.assert_allclose(h[4], o * np.tanh(found.cells[0, 0, 4]), atol=1e-6)
    elif cell == "gru":
        _, z, n = np.split(gates, 3)
        np.testing.assert_allclose(h[4], (1 - z) * n + z * h[3], atol=1e-6)
    else:
        np.testing.assert_array_equal(h[4], gates)
    assert (found.gates[:, 2] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("norm", [False, True])
def test_the_reference_keeps_the_same_trace(cell: Any, norm: bool) -> None:
    weights = stack_weights(cell, 4, 19, 2, bidirectional=True, norm=norm)
    random = np.random.default_rng(6)
    x = random.standard_normal((3, 6, 4)).astype(np.float32)
    resets = random.random((3, 6)) < 0.3
    core, twin = (
        native.Stack(weights, cell=cell, layers=2, bidirectional=True, isa=isa).scan(
            x, lengths=[6, 2, 0], resets=resets, trace=True
        )
        for isa in (None, "reference")
    )
    for name in ("outputs", "hidden", "gates", *(["cells"] if cell == "lstm" else [])):
        mine, theirs = getattr(core, name), getattr(twin, name)
        assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), name
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6, err_msg=name)
    if cell != "lstm":
        assert core.cells is None
        assert twin.cells is None


def test_a_large_vocabulary_sized_layer() -> None:
    """Inputs far wider than the layer, as a one-hot input of 50,000 words would be."""
    weights = stack_weights("gru", 50_000, 7)
    x = np.zeros((1, 2, 50_000), np.float32)
    x[0, 0, 49_999] = x[0, 1, 3] = 1
    outputs, _ = scan("gru", x.astype(np.float64), exact(weights))
    np.testing.assert_allclose(native.Stack(weights, cell="gru").scan(x).outputs, outputs, atol=1e-6)

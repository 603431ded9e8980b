"""Whatever the core is given: a Python exception that says what is wrong, or a result. Never a crash."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from helpers import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from native_helpers import CELLS, ISAS, language_model, stack_weights

from recur.engine import native

pytestmark = pytest.mark.skipif(not native.where().core, reason=f"no compiled core: {native.where().reason}")

REFUSALS = (ValueError, TypeError)


def stack() -> native.Stack:
    return native.Stack(stack_weights("lstm", 3, 5, 2), cell="lstm", layers=2)


def captioner() -> native.Decoder:
    sizes: dict[str, Any] = {"hidden": 7, "embedding": 6, "vocabulary": 20, "channels": 4, "attention": 5}
    return native.Decoder(random_weights(cell="lstm", layers=2, **sizes), cell="lstm", layers=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.scan(np.zeros((2, 3))), r"x has shape \[2, 3\]; expected 3 axes"),
        (lambda s: s.scan(np.zeros((2, 3, 4))), r"x has shape \[2, 3, 4\]; expected \[B, T, 3\]"),
        (lambda s: s.scan(np.full((1, 1, 3), np.nan)), "x has a number that is not finite"),
        (lambda s: s.scan(np.full((1, 1, 3), 1e300)), "x has a number that is not finite"),
        (lambda s: s.scan(np.zeros((1, 1, 3), complex)), "x has type complex128; expected real numbers"),
        (lambda s: s.scan(np.array([[["a", "b", "c"]]])), "expected real numbers"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), lengths=[3]), "lengths has 3 to 3; expected 0 to 2"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), lengths=[-1]), "lengths has -1 to -1; expected 0 to 2"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), lengths=[1, 1]), r"lengths has shape \[2\]; expected shape \[1\]"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), lengths=[0.5]), "lengths has type float64; expected whole numbers"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), resets=np.zeros((1, 2))), "resets are float64"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), state=[]), "a state of 0 layers; expected 2, of 2 arrays each"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), state=[(np.zeros((1, 4)),) * 2] * 2), r"expected \[1, 5\]"),
        (lambda s: s.scan(np.zeros((1, 2, 3)), state=[(np.full((1, 5), np.inf),) * 2] * 2), "not finite"),
    ],
)
def test_scans_that_cannot_be(call: Any, message: str) -> None:
    with pytest.raises(REFUSALS, match=message):
        call(stack())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": [[20]]}, "the prompt has 20 to 20; expected 0 to 19"),
        ({"prompt": [[-1]]}, "the prompt has -1 to -1"),
        ({"prompt": [[2**62]]}, "the prompt has"),
        ({"prompt": [[0.5]]}, "the prompt has type float64"),
        ({"prompt": [1]}, "expected two axes"),
        ({"features": None}, r"no features; expected \[B, R, F\]"),
        ({"features": np.zeros((1, 9, 3))}, r"features have shape \[1, 9, 3\]; expected \[1, R, 4\]"),
        ({"features": np.zeros((1, 0, 4))}, r"features have shape \[1, 0, 4\]"),
        ({"features": np.zeros((2, 9, 4))}, r"features have shape \[2, 9, 4\]; expected \[1, R, 4\]"),
        ({"features": np.full((1, 9, 4), np.nan)}, "features has a number that is not finite"),
        ({"memory_lengths": [0]}, "memory_lengths has 0 to 0; expected 1 to 9"),
        ({"memory_lengths": [10]}, "memory_lengths has 10 to 10; expected 1 to 9"),
        ({"end": 99}, "end has id 99, which is none of the words"),
        ({"end": -1}, "end has id -1"),
        ({"forbidden": [77]}, "forbidden has id 77"),
        ({"forbidden": [1]}, "forbidden has END"),
        ({"min_length": 5, "max_length": 3}, "min_length 5, max_length 3"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram -1"),
        ({"beam": 0}, "beam"),
        ({"beam": 2, "n_best": 3}, "n_best"),
        ({"length_penalty": -1.0}, "length_penalty"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"state": [(np.zeros((1, 7)),)] * 2}, "a state of 2 layers; expected 2, of 2 arrays each"),
    ],
)
def test_searches_that_cannot_be(options: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"features": np.zeros((1, 9, 4)), "prompt": [[3]], "end": 1, "max_length": 4}
    with pytest.raises(REFUSALS, match=message):
        captioner().beam_search(**{**usual, **options})


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"seed": -1}, {"seed": [1, 2]}, {"length": -1}]
)
def test_generations_that_cannot_be(options: dict[str, Any]) -> None:
    decoder = native.Decoder(language_model("gru", 5, 9), cell="gru", layers=2)
    with pytest.raises(ValueError, match="expected"):
        decoder.generate([[1]], **{"length": 3, "temperature": 1.0, **options})
    with pytest.raises(ValueError, match="an empty prompt"):
        decoder.generate(np.zeros((1, 0), int), length=3)


def test_weights_that_cannot_be() -> None:
    weights = stack_weights("gru", 3, 5)
    with pytest.raises(ValueError, match=r"weight_ih_l0 has shape \[15, 3\]; expected \[12, 3\]"):
        native.Stack({**weights, "weight_hh_l0": weights["weight_hh_l0"][:, :4]}, cell="gru")
    with pytest.raises(ValueError, match="bias_ih_l0 is missing"):
        native.Stack({name: value for name, value in weights.items() if name != "bias_ih_l0"}, cell="gru")
    with pytest.raises(ValueError, match="weight_ih_l0 has a number that is not finite"):
        native.Stack({**weights, "weight_ih_l0": np.full((15, 3), np.nan)}, cell="gru")
    with pytest.raises(ValueError, match="cell 'gruu'; expected one of"):
        native.Stack(weights, cell="gruu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision 'int4'; expected one of"):
        native.Stack(weights, cell="gru", precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="isa 'mmx'; expected one of reference, plain"):
        native.Stack(weights, cell="gru", isa="mmx")
    with pytest.raises(ValueError, match="layers 0"):
        native.Stack(weights, cell="gru", layers=0)
    model = language_model("gru", 5, 9)
    for name in ("head.weight", "head.bias", "embedding.weight", "rnn.weight_ih_l1"):
        with pytest.raises(ValueError, match="expected"):
            native.Decoder({**model, name: model[name][:-1]}, cell="gru", layers=2)
    with pytest.raises(ValueError, match="different ids"):
        native.Decoder(model, cell="gru", layers=2, words=[1, 1])
    with pytest.raises(ValueError, match="different ids"):
        native.Decoder(model, cell="gru", layers=2, words=[])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_scores_that_overflow_are_an_error(precision: Any) -> None:
    model = language_model("rnn_relu", 5, 9)
    huge = {name: value * np.float32(1e30) for name, value in model.items()}
    decoder = native.Decoder(huge, cell="rnn_relu", layers=2, precision=precision)
    for options in ({}, {"temperature": 1.0}):
        with pytest.raises(ValueError, match="not finite"):
            decoder.generate([[1]], length=5, **options)
    with pytest.raises(ValueError, match="not finite"):
        decoder.beam_search(prompt=[[1]], end=1, max_length=5)


@pytest.mark.parametrize("row", [[3e38, -3e38], [3e38, 0], [-3e38, 0]], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("place", [0, 7, 39])
def test_one_score_that_is_not_finite_is_an_error(row: list[float], isa: str, place: int) -> None:
    weights = {name: np.zeros_like(value) for name, value in language_model("rnn_relu", 2, 40, 1).items()}
    weights["rnn.bias_ih_l0"][:] = 2
    weights["head.weight"][place] = row
    decoder = native.Decoder(weights, cell="rnn_relu", isa=isa)
    for options in ({}, {"temperature": 1.0}, {"temperature": 0.5, "top_k": 3}):
        with pytest.raises(ValueError, match="not finite"):
            decoder.generate([[1]], length=2, **options)


def test_nothing_gives_nothing() -> None:
    found = stack().scan(np.zeros((0, 4, 3)))
    assert found.outputs.shape == (0, 4, 5)
    assert stack().scan(np.zeros((2, 0, 3))).outputs.shape == (2, 0, 5)
    decoder = captioner()
    none = np.zeros((0, 1), int)
    assert decoder.beam_search(np.zeros((0, 9, 4)), prompt=none, end=1, max_length=3) == []
    assert decoder.greedy(np.zeros((0, 9, 4)), prompt=none, end=1, max_length=3) == []
    assert decoder.read(none, np.zeros((0, 9, 4))).logits.shape == (0, 1, 20)
    (found,) = decoder.beam_search(np.zeros((1, 9, 4)), prompt=[[3]], end=1, max_length=0)
    assert found[0].tokens.size == 0
    model = native.Decoder(language_model("gru", 5, 9), cell="gru", layers=2)
    assert model.generate([[1]], length=0).tokens.shape == (1, 0)
    assert model.generate(none, length=4).tokens.shape == (0, 4)


anything = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(-5, 50), max_size=4),
    st.builds(
        lambda shape, kind: np.ones(shape, kind),
        st.lists(st.integers(0, 5), max_size=4).map(tuple),
        st.sampled_from(["f4", "f8", "i8", "u1", "?", "c8", "S2"]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_anything_at_all(data: st.DataObject) -> None:
    cell: Any = data.draw(st.sampled_from(CELLS))
    made = native.Stack(stack_weights(cell, 3, 5), cell=cell)
    random = np.random.default_rng(0)
    x = data.draw(anything) if data.draw(st.booleans()) else random.standard_normal((2, 4, 3))
    options = {name: data.draw(anything) for name in ("state", "lengths", "resets") if data.draw(st.booleans())}
    # Any other exception fails the test, and so does a crash, which the run with sanitizers looks for.
    with contextlib.suppress(*REFUSALS):
        made.scan(x, **options)
    usual: dict[str, Any] = {"features": np.zeros((1, 9, 4)), "prompt": [[3]], "end": 1, "max_length": 4}
    names = ["features", "prompt", "end", "beam", "n_best", "forbidden", "memory_lengths", "state", "no_repeat_ngram"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=2)):
        usual[name] = data.draw(anything)
    with contextlib.suppress(*REFUSALS):
        captioner().beam_search(**usual)

"""The fast decoder against the reference, and against itself in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import random_weights

from recur.engine.decoder import CaptionDecoder
from recur.engine.reference import caption_logits
from recur.engine.search import beam_search, greedy

SIZES: dict[str, Any] = {"hidden": 6, "embedding": 5, "vocabulary": 13, "channels": 4}
IDS = np.array([1, 5, 6, 8, 9, 12])  # END and some words
LANGUAGE, END = 3, 1


def make(cell: Any, layers: int, attention: int, dtype: Any = np.float64) -> tuple[CaptionDecoder, dict[str, Any]]:
    weights = random_weights(2, dtype, cell=cell, layers=layers, attention=attention, **SIZES)
    return CaptionDecoder(weights, cell=cell, layers=layers, ids=IDS, language=LANGUAGE, end=END), weights


def features_of(pictures: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(7).standard_normal((pictures, 9, 4)).astype(dtype)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("attention", [0, 3])
def test_equals_the_reference(cell: Any, layers: int, attention: int) -> None:
    decoder, weights = make(cell, layers, attention)
    features = features_of(2)
    words = np.random.default_rng(1).integers(0, len(IDS), (2, 3, 4))  # two pictures, three rows, four words
    decoding, now = decoder.start(features)
    logits, looks = [np.repeat(now.logits, 3, axis=1)], [now.attention]
    state = tuple(np.repeat(part, 3, axis=1) for part in now.state)
    for t in range(4):
        now = decoding(words[:, :, t], state, np.arange(2))
        state = now.state
        logits.append(now.logits)
        looks.append(now.attention)
    for row in range(3):
        tokens = np.concatenate([np.full((2, 1), LANGUAGE), IDS[words[:, row]]], axis=1)
        expected, alpha = caption_logits(features, tokens, weights, cell=cell, layers=layers, attention=bool(attention))
        found = np.stack([step[:, row] for step in logits], axis=1)
        np.testing.assert_allclose(found, expected[:, :, IDS], rtol=0, atol=1e-12)
        if attention:
            assert alpha is not None
            mine = np.stack([look[:, min(row, look.shape[1] - 1)] for look in looks if look is not None], axis=1)
            np.testing.assert_allclose(mine, alpha, rtol=0, atol=1e-12)
        else:
            assert looks == [None] * 5


def test_float32_stays_float32_and_close() -> None:
    exact, _ = make("lstm", 2, 3)
    quick, _ = make("lstm", 2, 3, np.float32)
    decoding, now = quick.start(features_of(3, np.float32))
    assert now.logits.dtype == np.float32
    assert now.attention is not None
    assert now.attention.dtype == np.float32
    after = decoding(np.array([[1], [2], [3]]), now.state, np.arange(3))
    assert after.logits.dtype == np.float32
    twin, first = exact.start(features_of(3))
    np.testing.assert_allclose(
        after.logits, twin(np.array([[1], [2], [3]]), first.state, np.arange(3)).logits, atol=1e-5
    )


def test_pictures_that_left_the_search_do_not_disturb_the_others() -> None:
    decoder, _ = make("gru", 2, 3)
    decoding, now = decoder.start(features_of(4))
    tokens = np.array([[1, 2], [0, 3], [2, 2], [4, 1]])
    state = tuple(np.repeat(part, 2, axis=1) for part in now.state)
    whole = decoding(tokens, state, np.arange(4))
    some = np.array([0, 2])
    part = decoding(tokens[some], tuple(each[some] for each in state), some)
    np.testing.assert_allclose(part.logits, whole.logits[some], rtol=0, atol=1e-12)
    again = decoding(tokens, state, np.arange(4))
    np.testing.assert_allclose(again.logits, whole.logits, rtol=0, atol=0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_beam_search_scores_what_the_reference_scores(cell: Any) -> None:
    decoder, weights = make(cell, 2, 3)
    features = features_of(5)
    step, first = decoder.start(features)
    together = beam_search(
        step, first, end=decoder.end, max_length=7, beam=4, n_best=2, length_penalty=0.7, min_length=1
    )
    for picture, found in enumerate(together):
        alone, begin = decoder.start(features[picture : picture + 1])
        single = beam_search(
            alone, begin, end=decoder.end, max_length=7, beam=4, n_best=2, length_penalty=0.7, min_length=1
        )[0]
        assert [list(each.tokens) for each in found] == [list(each.tokens) for each in single]
        for each in found:
            tokens = np.array([[LANGUAGE, *IDS[each.tokens]]])
            logits, _ = caption_logits(
                features[picture : picture + 1], tokens, weights, cell=cell, layers=2, attention=True
            )
            allowed = logits[0][:, IDS]
            log_probs = allowed - np.log(np.exp(allowed).sum(axis=1, keepdims=True))
            chosen = [*each.tokens, decoder.end]
            assert each.log_prob == pytest.approx(float(log_probs[np.arange(len(chosen)), chosen].sum()), abs=1e-10)


def test_word_inputs_are_the_same_the_second_time() -> None:
    decoder, _ = make("lstm", 1, 0)
    tokens = np.array([[1, 1], [4, 0]])
    once = decoder.word_inputs(tokens)
    np.testing.assert_array_equal(decoder.word_inputs(tokens), once)
    np.testing.assert_allclose(decoder.word_inputs(np.array([[2, 4]]))[0, 1], once[1, 0], atol=1e-14)


def test_greedy_only_writes_words_of_the_language() -> None:
    decoder, _ = make("lstm", 2, 3)
    step, first = decoder.start(features_of(3))
    for found in greedy(step, first, end=decoder.end, max_length=9, min_length=9):
        assert len(found.tokens) == 9
        assert set(decoder.ids[found.tokens]) <= set(IDS) - {END}

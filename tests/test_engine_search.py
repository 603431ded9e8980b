"""The search, on step functions that are tables: every sequence can be enumerated, so the best one is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from recur.engine.hypotheses import Hypothesis, Step, log_softmax, top
from recur.engine.search import beam_search, greedy, sample, search_features

END = 1
V = 5


class Table:
    """Logits that depend on the item and on the last two tokens; the state carries the last token of each row."""

    def __init__(self, items: int, seed: int = 0, sharpness: float = 1.5, size: int = V) -> None:
        random = np.random.default_rng(seed)
        self.size = size
        self.logits = sharpness * random.standard_normal((items, size + 1, size + 1, size))
        self.calls = 0

    def part(self, item: int) -> Table:
        alone = Table(1, size=self.size)
        alone.logits = self.logits[item : item + 1]
        return alone

    def first(self) -> Step:
        items = len(self.logits)
        none = np.full((items, 1), self.size)
        looks = np.full((items, 1, 3), 1 / 3)
        return Step(self.logits[:, self.size, self.size][:, None].copy(), (none.astype(np.float64),), looks)

    def __call__(self, tokens: Any, state: tuple[Any, ...], items: Any) -> Step:
        self.calls += 1
        before = state[0].astype(int)
        looks = np.eye(3)[tokens % 3]
        return Step(self.logits[items[:, None], before, tokens].copy(), (tokens.astype(np.float64),), looks)

    def log_prob(self, item: int, sequence: tuple[int, ...]) -> float:
        """Of a sequence and its END."""
        total, before, last = 0.0, self.size, self.size
        for token in (*sequence, END):
            total += float(log_softmax(self.logits[item, before, last])[token])
            before, last = last, token
        return total

    def best(self, item: int, n: int, penalty: float, rule: Any, least: int, most: int) -> list[tuple[float, Any]]:
        words = [token for token in range(self.size) if token != END]
        every = [
            (self.log_prob(item, sequence) / (length + 1) ** penalty, sequence)
            for length in range(least, most + 1)
            for sequence in itertools.product(words, repeat=length)
            if rule(sequence)
        ]
        return sorted(every, key=lambda entry: -entry[0])[:n]


def told(found: Any) -> list[tuple[int, ...]]:
    return [tuple(int(token) for token in each.tokens) for each in found]


def no_repeat(n: int) -> Any:
    def rule(sequence: tuple[int, ...]) -> bool:
        grams = [sequence[i : i + n] for i in range(len(sequence) - n + 1)]
        return len(grams) == len(set(grams))

    return rule


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, lambda s: True),
        ({"length_penalty": 0.7}, lambda s: True),
        ({"length_penalty": 1.5}, lambda s: True),
        ({"min_length": 2, "length_penalty": 1.0}, lambda s: True),
        ({"forbidden": [0, 3]}, lambda s: not {0, 3} & set(s)),
        ({"no_repeat_ngram": 1, "length_penalty": 1.0}, no_repeat(1)),
        ({"no_repeat_ngram": 2, "length_penalty": 2.0}, no_repeat(2)),
        # At the greatest length END comes anyway, so sequences of that length may end on a 2.
        ({"no_end_after": [2], "length_penalty": 1.0}, lambda s: not s or s[-1] != 2 or len(s) == 4),
    ],
)
def test_a_wide_beam_finds_what_enumeration_finds(options: dict[str, Any], rule: Any) -> None:
    table = Table(2, seed=4)
    found = beam_search(table, table.first(), end=END, max_length=4, beam=700, n_best=6, **options)
    least, penalty = options.get("min_length", 0), options.get("length_penalty", 0.0)
    for item in range(2):
        expected = table.best(item, 6, penalty, rule, least, 4)
        assert told(found[item]) == [sequence for _, sequence in expected]
        np.testing.assert_allclose([each.score for each in found[item]], [score for score, _ in expected], atol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_beam_one_is_greedy(penalty: float, seed: int) -> None:
    table = Table(4, seed=seed)
    one = beam_search(table, table.first(), end=END, max_length=7, beam=1, length_penalty=penalty)
    plain = greedy(table, table.first(), end=END, max_length=7)
    for (best,), other in zip(one, plain, strict=True):
        assert told([best]) == told([other])
        np.testing.assert_allclose(best.log_probs, other.log_probs)
        np.testing.assert_allclose(best.entropies, other.entropies)
        assert best.log_prob == pytest.approx(other.log_prob)


@pytest.mark.parametrize("beam", [2, 3, 5, 12])
@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram": 2, "length_penalty": 1.2}, {"min_length": 3}])
def test_a_batch_gives_what_its_items_give_alone(beam: int, options: dict[str, Any]) -> None:
    table = Table(6, seed=8)
    together = beam_search(table, table.first(), end=END, max_length=8, beam=beam, n_best=2, **options)
    for item, found in enumerate(together):
        alone = table.part(item)
        expected = beam_search(alone, alone.first(), end=END, max_length=8, beam=beam, n_best=2, **options)[0]
        assert told(found) == told(expected)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.log_probs, theirs.log_probs)
            np.testing.assert_array_equal(mine.alternatives, theirs.alternatives)
            assert mine.attention is not None
            np.testing.assert_array_equal(mine.attention, theirs.attention)


def plain_beam(table: Table, item: int, beam: int, most: int, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """The same search as one loop over lists, that never stops early."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for length in range(most + 1):
        every = []
        for total, sequence in live:
            pair = (table.size, table.size, *sequence)[-2:]
            for token, value in enumerate(log_softmax(table.logits[item][pair])):
                if length < most or token == END:
                    every.append((total + float(value), sequence, token))
        every.sort(key=lambda entry: -entry[0])
        live = []
        for total, sequence, token in every[: beam - len(finished)]:
            if token == END:
                finished.append((total / (length + 1) ** penalty, sequence))
            else:
                live.append((total, (*sequence, token)))
    return sorted(finished, key=lambda entry: -entry[0])


@pytest.mark.parametrize("penalty", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("beam", [2, 4, 7])
def test_narrow_beams_equal_a_plain_loop_and_stop_early_without_loss(beam: int, penalty: float) -> None:
    table = Table(8, seed=beam, size=7)
    found = beam_search(table, table.first(), end=END, max_length=9, beam=beam, n_best=2, length_penalty=penalty)
    for item in range(8):
        expected = plain_beam(table, item, beam, 9, penalty)[:2]
        assert told(found[item]) == [sequence for _, sequence in expected]
        np.testing.assert_allclose([each.score for each in found[item]], [score for score, _ in expected], atol=1e-12)


def test_stops_early_when_nothing_can_become_better() -> None:
    table = Table(1)
    table.logits[:] = 0
    table.logits[..., END] = 2  # END at once is certain enough: no continuation can overtake it
    best = beam_search(table, table.first(), end=END, max_length=20, beam=4)
    assert told(best[0]) == [()]
    assert table.calls == 0
    # With the mean as score a long sequence of likely words could still win, so the search must go on.
    beam_search(table, table.first(), end=END, max_length=20, beam=4, length_penalty=1.0)
    assert table.calls > 0


def test_finished_items_leave_the_batch() -> None:
    table = Table(3)
    table.logits[:] = 0
    table.logits[..., END] = [[[-3]], [[9]], [[-3]]]
    seen: list[list[int]] = []

    def step(tokens: Any, state: Any, items: Any) -> Step:
        seen.append(list(items))
        return table(tokens, state, items)

    found = beam_search(step, table.first(), end=END, max_length=3, beam=2)
    assert seen[0] == [0, 2]
    assert told(found[1]) == [()]


def test_a_hypothesis_tells_its_probabilities_alternatives_and_attention() -> None:
    table = Table(2, seed=3)
    for found in beam_search(table, table.first(), end=END, max_length=5, beam=4, min_length=2, length_penalty=1.0):
        best = found[0]
        before, last, total = V, V, 0.0
        for place, token in enumerate(best.tokens):
            item = next(i for i in range(2) if found is not None and _belongs(table, i, best))
            expected = log_softmax(table.logits[item, before, last])
            assert best.log_probs[place] == pytest.approx(expected[token])
            others = [int(other) for other in np.argsort(-expected) if other != token]
            assert list(best.alternatives[place]) == others[:5]
            np.testing.assert_allclose(best.alternative_probs[place], np.exp(expected[others[:5]]))
            assert best.entropies[place] == pytest.approx(-(np.exp(expected) * expected).sum())
            look = np.full(3, 1 / 3) if place == 0 else np.eye(3)[last % 3]
            assert best.attention is not None
            np.testing.assert_array_equal(best.attention[place], look)
            total += expected[token]
            before, last = last, int(token)
        assert len(best.entropies) == len(best.tokens) + 1
        assert best.log_prob == pytest.approx(total + best.end_log_prob)
        assert best.score == pytest.approx(best.log_prob / (len(best.tokens) + 1))


def _belongs(table: Table, item: int, best: Hypothesis) -> bool:
    return abs(table.log_prob(item, tuple(int(token) for token in best.tokens)) - best.log_prob) < 1e-9


def test_end_comes_even_before_min_length_when_nothing_else_may() -> None:
    table = Table(2)
    options: dict[str, Any] = {"end": END, "max_length": 9, "min_length": 9, "no_repeat_ngram": 1}
    for best in (
        greedy(table, table.first(), **options)[0],
        beam_search(table, table.first(), beam=3, **options)[0][0],
    ):
        assert sorted(best.tokens) == [0, 2, 3, 4]


def test_impossible_tokens_have_probability_zero() -> None:
    table = Table(1, seed=2)
    table.logits[..., 3] = -np.inf
    found = beam_search(table, table.first(), end=END, max_length=3, beam=50, n_best=50)[0]
    assert len(found) == 1 + 3 + 9 + 27
    assert all(3 not in each.tokens and np.isfinite(each.entropies).all() for each in found)


# ----------------------------------------------------------------------------------------------------------- sampling


def test_samples_do_not_depend_on_the_batch() -> None:
    table = Table(5, seed=6)
    options: dict[str, Any] = {"end": END, "max_length": 8, "temperature": 1.3, "top_k": 4, "top_p": 0.95, "samples": 3}
    together = sample(table, table.first(), seed=11, **options)
    for item in range(5):
        alone = table.part(item)
        assert told(sample(alone, alone.first(), seed=11, **options)[0]) == told(together[item])
    own = sample(table, table.first(), seed=[11, 12, 13, 14, 15], **options)
    assert told(own[0]) == told(together[0])
    assert [told(each) for each in own[1:]] != [told(each) for each in together[1:]]
    assert len({tuple(told([each])[0]) for each in together[0]}) > 1


def test_samples_follow_the_probabilities() -> None:
    table = Table(1, seed=7)
    found = sample(table, table.first(), end=END, max_length=1, seed=0, samples=1500)[0]
    firsts = np.bincount([each.tokens[0] if len(each.tokens) else END for each in found], minlength=V) / 1500
    expected = np.exp(log_softmax(table.logits[0, V, V]))
    np.testing.assert_allclose(firsts, expected, atol=4 * np.sqrt(0.25 / 1500))
    hot = sample(table, table.first(), end=END, max_length=1, seed=0, samples=1500, temperature=3.0)[0]
    flat = np.bincount([each.tokens[0] if len(each.tokens) else END for each in hot], minlength=V) / 1500
    np.testing.assert_allclose(flat, np.exp(log_softmax(table.logits[0, V, V] / 3)), atol=4 * np.sqrt(0.25 / 1500))


def test_top_k_and_top_p_cut_the_tail() -> None:
    table = Table(1, seed=9)
    probs = np.exp(log_softmax(table.logits[0, V, V]))
    order = np.argsort(-probs)

    def firsts(**options: Any) -> set[int]:
        found = sample(table, table.first(), end=END, max_length=1, seed=5, samples=600, **options)[0]
        return {int(each.tokens[0]) if len(each.tokens) else END for each in found}

    assert firsts(top_k=2) == {int(token) for token in order[:2]}
    reach = float(probs[order[:3]].sum())
    assert firsts(top_p=reach - 1e-6) == {int(token) for token in order[:3]}
    assert firsts(top_p=float(probs[order[0]]) - 1e-6) == {int(order[0])}


def test_low_temperature_and_top_k_one_are_greedy() -> None:
    table = Table(3, seed=10)
    expected = told(greedy(table, table.first(), end=END, max_length=6, min_length=2))
    options: dict[str, Any] = {"end": END, "max_length": 6, "min_length": 2, "seed": 1}
    assert told(found[0] for found in sample(table, table.first(), temperature=1e-3, **options)) == expected
    assert told(found[0] for found in sample(table, table.first(), top_k=1, **options)) == expected


def test_samples_report_the_models_own_log_probability() -> None:
    table = Table(2, seed=12)
    for item, found in enumerate(
        sample(table, table.first(), end=END, max_length=5, seed=3, samples=4, temperature=2.0)
    ):
        for each in found:
            assert each.log_prob == pytest.approx(table.log_prob(item, told([each])[0]))


# --------------------------------------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize("k", [1, 3, 10, 11, 40])
def test_top_finds_the_largest_and_leaves_its_input(k: int) -> None:
    values = np.random.default_rng(0).integers(0, 9, (3, 2, 40)).astype(np.float64)
    values[0, 0] = -np.inf
    before = values.copy()
    ids, found = top(values, k)
    np.testing.assert_array_equal(values, before)
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :k]
    np.testing.assert_array_equal(found, np.take_along_axis(values, expected, axis=-1))
    np.testing.assert_array_equal(ids[1:], expected[1:])


def test_features_of_a_search() -> None:
    table = Table(1, seed=3)
    first, second = beam_search(table, table.first(), end=END, max_length=5, beam=4, n_best=2, min_length=2)[0]
    features = search_features([first, second])
    count = len(first.tokens) + 1
    assert features["mean_log_prob"] == pytest.approx(first.log_prob / count)
    assert features["margin"] == pytest.approx(first.log_prob / count - second.log_prob / (len(second.tokens) + 1))
    assert features["min_log_prob"] == first.log_probs.min()
    assert features["length"] == count - 1
    assert features["first_entropy"] == first.entropies[0]
    assert search_features([first])["margin"] == 0
    empty = greedy(table, table.first(), end=END, max_length=0)[0]
    assert search_features([empty])["min_log_prob"] == empty.end_log_prob


@pytest.mark.parametrize(
    "options",
    [
        {"beam": 0},
        {"n_best": 0},
        {"beam": 2, "n_best": 3},
        {"length_penalty": -0.1},
        {"min_length": 5},
        {"forbidden": [END]},
        {"no_repeat_ngram": -1},
    ],
)
def test_senseless_widths_and_lengths_are_refused(options: dict[str, Any]) -> None:
    table = Table(1)
    with pytest.raises(ValueError, match=r"expected|leave it out"):
        beam_search(table, table.first(), end=END, max_length=4, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"samples": 0},
        {"seed": [1, 2]},
        {"seed": -1},
    ],
)
def test_senseless_sampling_is_refused(options: dict[str, Any]) -> None:
    table = Table(1)
    with pytest.raises(ValueError, match="expected"):
        sample(table, table.first(), end=END, max_length=4, **{"seed": 0, **options})


def test_float32_logits_are_enough() -> None:
    table = Table(3, seed=1)
    narrow = Table(3, seed=1)
    narrow.logits = table.logits.astype(np.float32)
    wide = beam_search(table, table.first(), end=END, max_length=6, beam=3)
    small = beam_search(narrow, narrow.first(), end=END, max_length=6, beam=3)
    assert [told(found) for found in wide] == [told(found) for found in small]
    scores: list[npt.NDArray[Any]] = [np.array([found[0].score for found in each]) for each in (wide, small)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)

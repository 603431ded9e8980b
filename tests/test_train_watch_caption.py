"""What the training page of a captioner shows is what happened: the gradient of END against finite differences."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from recur.data.captions import CaptionData, CaptionedPicture  # noqa: E402
from recur.data.text import END, Vocabulary  # noqa: E402
from recur.nn.caption import CaptionNetwork  # noqa: E402
from recur.train.caption_data import Captions, make_split  # noqa: E402
from recur.train.watch_caption import (  # noqa: E402
    Followed,
    gradients_back,
    render_caption_training,
    sentences_to_follow,
)

FOLLOWED = Followed(np.arange(2), torch.tensor([[1, 4, 2, 5], [1, 3, 3, 6]]), torch.tensor([0, 2, 3, 4, 5, 6]), 0)
FEATURES = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def captions_of(texts: list[dict[str, tuple[str, ...]]]) -> Captions:
    """Of pictures with these texts in a language each or more, all of them in train."""
    pictures = tuple(CaptionedPicture(Path(f"{i}.jpg"), "train", each) for i, each in enumerate(texts))
    languages = tuple(dict.fromkeys(lang for each in texts for lang in each))
    split = make_split(CaptionData(pictures, "a test", languages, ()), "train")
    words = {lang: (each for rows in split.tokens[lang] for each in rows) for lang in languages}
    return Captions(split, Vocabulary.build(words, 1))


@pytest.mark.parametrize(
    ("cell", "attention", "layers"), [("lstm", 3, 2), ("lstm", 0, 2), ("gru", 3, 3), ("gru", 0, 1), ("rnn", 3, 1)]
)
def test_gradients_back_are_those_of_small_changes(
    cell: Any, attention: int, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Attention weighs in 32 bits, which small changes need more of.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    torch.manual_seed(2)
    network = CaptionNetwork(
        channels=5, vocabulary=7, cell=cell, embedding=3, hidden=4, layers=layers, attention=attention
    ).double()
    norms = gradients_back(network, FEATURES, FOLLOWED)
    assert len(norms) == 4, "a sentence of three words has two steps before them, and the last one foresees END"
    assert all(value.grad is None for value in network.parameters())

    def loss(after: int, moved: tuple[int, int, int, int] | None, by: float) -> float:
        """The mean loss of END; one number of what step `after` hands on is moved (layer, part, row, unit)."""
        with torch.no_grad():
            start, memory, keys = network.look(FEATURES)
            state = network.first_state(2, start)
            for step, x in enumerate([start, *network.embedding(FOLLOWED.tokens).unbind(1)]):
                top, state = network.step(x, state, memory, keys)
                if moved is not None and step == after:
                    layer, part, row, unit = moved
                    state[layer][part][row, unit] += by
            # As training computes it, from packed sentences.
            if moved is None:
                every = network.eval()(FEATURES, torch.arange(2), FOLLOWED.tokens, FOLLOWED.words)
                np.testing.assert_allclose(network.predict(top, FOLLOWED.words), every[:, -1], atol=1e-12)
            scores = network.predict(top, FOLLOWED.words)
            return float(torch.nn.functional.cross_entropy(scores, torch.zeros(2, dtype=torch.long)))

    assert loss(0, None, 0.0) > 0
    for back in (1, 4):
        squares = 0.0
        for layer in range(layers):
            for part in range(2 if cell == "lstm" else 1):
                for row in range(2):
                    for unit in range(4):
                        place = (layer, part, row, unit)
                        costs = [loss(4 - back, place, by) for by in (1e-6, -1e-6)]
                        squares += ((costs[0] - costs[1]) / 2e-6) ** 2
        assert norms[back - 1] == pytest.approx(squares**0.5, rel=1e-4)


def test_gradients_of_small_recurrent_weights_vanish() -> None:
    torch.manual_seed(0)
    network = CaptionNetwork(channels=5, vocabulary=7, cell="rnn", embedding=4, hidden=6, layers=1, attention=0)
    long = replace(FOLLOWED, tokens=torch.randint(1, 7, (2, 20)))
    with torch.no_grad():
        network.rnn[0].weight_hh_l0.copy_(0.3 * torch.eye(6))
    small = gradients_back(network, FEATURES.float(), long)
    assert len(small) == 20
    assert small[0] > 1e-3
    # Each step back takes 0.3 at most: the derivative of tanh is never above 1.
    assert all(after <= 0.3 * before * (1 + 1e-4) for before, after in pairwise(small))
    with torch.no_grad():  # hands on everything, and is too quiet for tanh to bend it
        for value in network.parameters():
            value.mul_(0.01)
        network.rnn[0].weight_hh_l0.copy_(torch.eye(6))
    kept = gradients_back(network, FEATURES.float(), long)
    assert kept[-1] > 0.9 * kept[0] > 0


def test_sentences_of_the_most_common_length() -> None:
    captions = captions_of(
        [
            {"en": ("a dog",), "zh": ("一只狗",)},
            {"en": ("a cat sleeps", "the cat sleeps", "a cat"), "zh": ()},
            *[{"en": ("a bird sings",), "zh": ()} for _ in range(9)],
        ]
    )
    found = sentences_to_follow(captions)
    assert found is not None
    assert found.rows.tolist() == [1, *range(2, 9)], "eight pictures, a sentence each"
    vocabulary = captions.vocabulary
    assert found.tokens.shape == (8, 4)
    assert found.tokens[0].tolist() == [vocabulary.language_id("en"), *vocabulary.encode(["a", "cat", "sleeps"])]
    assert int(found.words[found.end]) == END
    other = sentences_to_follow(captions_of([{"en": (), "zh": ("一只狗",)}]))
    assert other is not None
    assert other.tokens[0, 0] != other.tokens[0, 1]
    captions.ids = {"en": [[], []]}
    assert sentences_to_follow(captions) is None


def test_the_page_numbers_epochs_through() -> None:
    log = [
        {"phase": "decoder", "epoch": 1, "loss": 4.0, "mean": 20.0, "en": 20.0, "en_distinct": 7.0},
        {"phase": "cider", "epoch": 1, "loss": -0.5, "mean": 41.25, "en": 41.25, "en_distinct": 8.0},
    ]
    watched = [
        {
            "phase": each["phase"],
            "epoch": n,
            "gradients": [0.5, 0.25, 1e-7],
            "ratios": {f"w{i}": 0.001 for i in range(8)},
        }
        for n, each in enumerate(log, 1)
    ]
    page = render_caption_training("shapes", log, watched)
    assert page.count('<img src="data:image/png;base64,') == 3
    assert '<th scope="col">CIDEr-D en</th>' in page
    assert "<td>2</td><td>cider</td><td>-0.5</td><td>41.25</td><td>8</td>" in page
    assert "<td>2</td><td>cider</td><td>0.5</td><td>0.25</td><td>1e-07</td>" in page, "1, 2 and 3 steps back"
    assert render_caption_training("shapes", log, []).count("<img") == 1, "a run that an older version began"

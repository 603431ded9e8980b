"""The caption network: the scan equals the step equals the engine, and every gradient equals PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recur.engine.decoder import CaptionDecoder  # noqa: E402
from recur.nn.caption import CaptionNetwork  # noqa: E402
from recur.nn.sequence import Packing, locked_dropout, packed_lstm  # noqa: E402

VARIANTS = [(cell, layers, attention) for cell in ("lstm", "gru", "rnn") for layers in (1, 3) for attention in (0, 5)]


def make(cell: str, layers: int, attention: int) -> CaptionNetwork:
    torch.manual_seed(0)
    network = CaptionNetwork(
        channels=6, vocabulary=23, cell=cell, embedding=7, hidden=9, layers=layers, attention=attention
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.4)
    return network.double().eval()


@pytest.mark.parametrize("lengths", [[1], [7] * 5, [1, 19, 4], [3, 3, 1, 2, 9, 1]])
@pytest.mark.parametrize(("inputs", "hidden"), [(3, 1), (4, 7), (8, 33)])
def test_packed_lstm_equals_torch_in_values_and_every_gradient(lengths: list[int], inputs: int, hidden: int) -> None:
    packing = Packing.of(torch.tensor(lengths))
    layer = torch.nn.LSTM(inputs, hidden, batch_first=True).double()
    x = torch.randn(len(lengths), max(lengths), inputs, dtype=torch.float64, requires_grad=True)
    share = torch.randn(sum(lengths), hidden, dtype=torch.float64)
    slow, fast = packing.pack(layer(x)[0]), packed_lstm(packing.pack(x), layer, packing.live)
    assert torch.allclose(slow, fast, atol=1e-13)
    wanted = torch.autograd.grad((slow * share).sum(), [x, *layer.parameters()])
    found = torch.autograd.grad((fast * share).sum(), [x, *layer.parameters()])
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_packed_lstm_in_bfloat16_stays_close() -> None:
    packing = Packing.of(torch.tensor([12, 5, 12, 1]))
    layer = torch.nn.LSTM(16, 24, batch_first=True)
    x = torch.randn(4, 12, 16)
    with torch.autocast("cpu", torch.bfloat16):
        fast = packed_lstm(packing.pack(x), layer, packing.live)
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - packing.pack(layer(x)[0])).abs().max() < 0.02


@pytest.mark.parametrize(("cell", "layers", "attention"), VARIANTS)
def test_sentences_of_unequal_length_score_as_padded_ones(cell: str, layers: int, attention: int) -> None:
    network = make(cell, layers, attention)
    features = torch.randn(3, 4, 6, dtype=torch.float64)
    owner, lengths = torch.tensor([2, 0, 0, 2, 1]), torch.tensor([3, 6, 1, 4, 6])
    tokens = torch.randint(3, 23, (5, 6))
    parameters = list(network.parameters())
    share = torch.randn(5, 6, 23, dtype=torch.float64)
    live = torch.arange(6)[None] < lengths[:, None]
    padded = network(features, owner, tokens)
    packing, packed = network.score_sentences(features, owner, tokens, lengths)
    assert len(packed) == int(lengths.sum())
    assert torch.allclose(packed, padded[packing.row, packing.step], atol=1e-12)
    wanted = torch.autograd.grad((padded * share)[live].sum(), parameters)
    found = torch.autograd.grad((packed * share[packing.row, packing.step]).sum(), parameters)
    for one, other in zip(wanted, found, strict=True):
        assert torch.allclose(one, other, atol=1e-11)


@pytest.mark.parametrize(("cell", "layers", "attention"), VARIANTS)
def test_scan_equals_step(cell: str, layers: int, attention: int) -> None:
    network = make(cell, layers, attention)
    features = torch.randn(3, 4, 6, dtype=torch.float64)
    owner = torch.tensor([2, 0, 0, 1])
    tokens = torch.randint(3, 23, (4, 6))
    whole = network(features, owner, tokens)
    start, memory, keys = (part[owner] for part in network.look(features))
    state = network.first_state(4, start)
    _, state = network.step(start, state, memory, keys)
    for place in range(tokens.shape[1]):
        top, state = network.step(network.embedding(tokens[:, place]), state, memory, keys)
        assert torch.allclose(network.predict(top), whole[:, place], atol=1e-12)


@pytest.mark.parametrize(("cell", "layers", "attention"), VARIANTS)
def test_network_equals_engine(cell: str, layers: int, attention: int) -> None:
    network = make(cell, layers, attention)
    weights = {name: value.double().numpy() for name, value in network.engine_weights().items()}
    features = torch.randn(3, 4, 6, dtype=torch.float64)
    words = np.array([1, *range(5, 23)])
    tokens = torch.tensor([[3, 5, 9, 20], [3, 22, 6, 7], [3, 8, 8, 8]])
    with torch.no_grad():
        expected = network(features, torch.arange(3), tokens, torch.from_numpy(words)).log_softmax(-1).numpy()
    decoder = CaptionDecoder(weights, cell=cell, layers=layers, ids=words, language=3, end=1)  # type: ignore[arg-type]
    step, now = decoder.start(features.numpy())
    for place in range(4):
        scores = now.logits[:, 0]
        assert np.allclose(scores - np.log(np.exp(scores).sum(-1, keepdims=True)), expected[:, place], atol=1e-10)
        if place < 3:
            at = np.array([int(np.flatnonzero(words == token)[0]) for token in tokens[:, place + 1]])
            now = step(at[:, None], now.state, np.arange(3))


def test_generate_is_greedy_and_ends() -> None:
    network = make("lstm", 2, 5)
    words = torch.tensor([1, 5, 6, 7, 8])
    features = torch.randn(2, 4, 6, dtype=torch.float64)
    found = network.generate(features, 3, words, end=1, length=7)
    assert set(found.flatten().tolist()) <= set(words.tolist())
    tokens = torch.cat([torch.full((2, 1), 3), found[:, :-1]], 1)
    best = words[network(features, torch.arange(2), tokens, words).argmax(-1)]
    for row, expected in zip(found.tolist(), best.tolist(), strict=True):
        end = row.index(1) + 1 if 1 in row else len(row)
        assert row[:end] == expected[:end]
        assert set(row[end:]) <= {1}


def test_samples_follow_the_distribution() -> None:
    network = make("gru", 1, 0)
    words = torch.tensor([1, 5, 6])
    features = torch.randn(1, 4, 6, dtype=torch.float64)
    probabilities = network(features, torch.tensor([0]), torch.tensor([[3]]), words)[0, 0].softmax(-1)
    torch.manual_seed(4)
    drawn = network.generate(features, 3, words, end=1, copies=4000, length=1, temperature=1.0)[:, 0]
    shares = torch.stack([(drawn == word).double().mean() for word in words])
    assert (shares - probabilities).abs().max() < 0.03


@pytest.mark.parametrize(("cell", "layers", "attention"), VARIANTS)
def test_weights_go_to_the_engine_and_back(cell: str, layers: int, attention: int) -> None:
    network = make(cell, layers, attention).float()
    other = CaptionNetwork(
        channels=6, vocabulary=23, cell=cell, embedding=7, hidden=9, layers=layers, attention=attention
    ).eval()
    other.load_engine_weights(network.engine_weights())
    features, tokens = torch.randn(2, 4, 6), torch.randint(3, 23, (2, 5))
    assert torch.equal(network(features, torch.arange(2), tokens), other(features, torch.arange(2), tokens))


def test_locked_dropout_keeps_one_mask_for_all_steps() -> None:
    packing = Packing.of(torch.randint(1, 7, (50,)))
    x = torch.ones(len(packing.row), 40)
    dropped = locked_dropout(x, 0.5, packing, training=True)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    for row in range(50):
        mine = dropped[packing.row == row]
        assert torch.equal(mine, mine[:1].expand_as(mine))
    assert 0.4 < float((dropped == 0).float().mean()) < 0.6
    assert locked_dropout(x, 0.5, packing, training=False) is x


def test_features_of_any_scale_are_heard_alike_and_the_engine_needs_no_scale() -> None:
    network = make("lstm", 2, 5).float()
    features = torch.rand(40, 4, 6) * torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0, 0.0])
    network.normalise(features)
    spread = (features * network.feature_scale).flatten(0, 1).std(0)
    assert torch.allclose(spread[3:5], torch.ones(2), atol=1e-4)
    assert float(spread[:3].max()) <= 1.0001
    assert torch.isfinite(network.feature_scale).all()
    tokens = torch.tensor([[3, 5, 9]])
    other = make("lstm", 2, 5).float()
    other.load_engine_weights(network.engine_weights())
    assert torch.allclose(
        network(features[:1], torch.tensor([0]), tokens), other(features[:1], torch.tensor([0]), tokens), atol=1e-4
    )

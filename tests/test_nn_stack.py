"""Cells, stacks of them, their states and their dropout: steps are scans, scans are torch.nn and the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from recur.engine import native, reference  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.nn.cells import CELLS, RnnCell  # noqa: E402
from recur.nn.dropout import locked, weight_drop, zoneout  # noqa: E402
from recur.nn.stack import Stack  # noqa: E402
from recur.nn.state import State  # noqa: E402

T, B, D, H = 7, 3, 4, 5
ENGINE = {"rnn": "rnn", "rnn_relu": "rnn_relu", "lstm": "lstm", "gru": "gru", "lstm_norm": "lstm"}
MODULES: dict[str, Any] = {
    "rnn": torch.nn.RNN,
    "rnn_relu": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k),
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
}


def stack(cell: str, **options: Any) -> Stack:
    torch.manual_seed(0)
    made = Stack(cell, D, H, **options).double()
    with torch.no_grad():  # gains and biases of a normalisation too
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def inputs(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return torch.randn(T, B, D, dtype=torch.float64)


def random_state(made: Stack) -> State:
    torch.manual_seed(2)
    return made.first_state(B).map(lambda part: torch.rand_like(part) + 0.1)


def engine_weights(made: Stack) -> dict[str, Any]:
    return {
        f"{name}_l{number // made.ways}{'_reverse' if number % made.ways else ''}": value.detach().numpy()
        for number, cell in enumerate(made.cells)
        for name, value in cell.named_parameters()
    }


def assert_states(one: State, other: State, **tolerance: float) -> None:
    assert one.to_dict().keys() == other.to_dict().keys()
    for name, part in one.to_dict().items():
        torch.testing.assert_close(part, other.to_dict()[name], **tolerance)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", MODULES)
def test_equals_torch_nn_with_every_gradient(cell: str, bidirectional: bool) -> None:
    made = stack(cell, layers=2, bidirectional=bidirectional)
    module = MODULES[cell](D, H, num_layers=2, bidirectional=bidirectional).double()
    ours = engine_weights(made)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in ours.items()})
    x, state = inputs().requires_grad_(), random_state(made)
    given = tuple(torch.stack([layer[i] for layer in state.layers]) for i in range(len(state.layers[0])))
    theirs, last = module(x, given if cell == "lstm" else given[0])
    mine, after = made.scan(x, state)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for i, part in enumerate(last if cell == "lstm" else (last,)):
        torch.testing.assert_close(torch.stack([layer[i] for layer in after.layers]), part, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(theirs)
    names = [f"{name}_l{n // made.ways}{'_reverse' if n % made.ways else ''}" for n, c in enumerate(made.cells)
             for name, _ in c.named_parameters()]  # fmt: skip
    mine_grads = torch.autograd.grad((mine * weight).sum(), [x, *made.parameters()])
    their_grads = torch.autograd.grad((theirs * weight).sum(), [x, *(getattr(module, name) for name in names)])
    for a, b in zip(mine_grads, their_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_steps_are_a_scan(cell: str) -> None:
    made = stack(cell)
    x, state = inputs(), random_state(made)
    out, last = made.scan(x, state)
    parts = state.layers[0]
    for t in range(T):
        parts = made.cells[0].step(x[t], parts)
        torch.testing.assert_close(out[t], parts[0], rtol=1e-9, atol=1e-12)
    assert_states(State((parts,)), last, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_step(cell: str) -> None:
    made = stack(cell)
    parts = tuple(part.requires_grad_() for part in random_state(made).layers[0])
    x = inputs()[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *state: made.cells[0].step(x, state), (x, *parts))
    assert torch.autograd.gradcheck(lambda x, *state: made.scan(x[None], State((state,)))[0], (x, *parts))


@pytest.mark.parametrize("irregular", ["lengths", "resets", "both", "neither"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ENGINE)
def test_equals_the_reference_and_the_core(cell: str, bidirectional: bool, irregular: str) -> None:
    made = stack(cell, layers=2, bidirectional=bidirectional)
    lengths = torch.tensor([T, 0, 4]) if irregular in ("lengths", "both") else None
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 0] = resets[0, 2] = resets[3, 2] = resets[5, 2] = True
    begins = resets if irregular in ("resets", "both") else None
    x, state = inputs(), random_state(made)
    out, last = made.scan(x, state, lengths=lengths, resets=begins)
    given: dict[str, Any] = {
        "lengths": None if lengths is None else lengths.numpy(),
        "resets": None if begins is None else begins.numpy().T,
    }
    weights = engine_weights(made)
    begin = [tuple(part.numpy() for part in layer) for layer in state.layers]
    batch_first = x.numpy().transpose(1, 0, 2)
    expected, after = reference.scan(
        ENGINE[cell],
        batch_first,
        weights,
        layers=2,
        state=begin,
        bidirectional=bidirectional,
        **given,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(out.detach().numpy().transpose(1, 0, 2), expected, rtol=1e-10, atol=1e-12)
    for layer, theirs in zip(last.layers, after, strict=True):
        for part, other in zip(layer, theirs, strict=True):
            np.testing.assert_allclose(part.detach().numpy(), other, rtol=1e-10, atol=1e-12)
    core = native.Stack(weights, cell=ENGINE[cell], layers=2, bidirectional=bidirectional)  # type: ignore[arg-type]
    np.testing.assert_allclose(core.scan(batch_first, state=begin, **given).outputs, expected, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_changes_nothing(cell: str) -> None:
    made = stack(cell, layers=2, bidirectional=True)
    x, lengths = inputs(), torch.tensor([T, 2, 5])
    out, last = made.scan(x, lengths=lengths)
    other = x.clone()
    for row, length in enumerate(lengths.tolist()):
        other[length:, row] = 1e3
        alone, end = made.scan(x[:length, row : row + 1])
        torch.testing.assert_close(out[:length, row : row + 1], alone, rtol=1e-9, atol=1e-12)
        assert_states(last.rows(torch.tensor([row])), end, rtol=1e-9, atol=1e-12)
        assert not out[length:, row].any()
    assert torch.equal(made.scan(other, lengths=lengths)[0], out)


@pytest.mark.parametrize("cell", CELLS)
def test_a_reset_begins_anew(cell: str) -> None:
    made = stack(cell, layers=2)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[3] = True
    whole, last = made.scan(inputs(), random_state(made), resets=resets)
    second, end = made.scan(inputs()[3:])
    torch.testing.assert_close(whole[3:], second, rtol=1e-9, atol=1e-12)
    assert_states(last, end, rtol=1e-9, atol=1e-12)


def test_pieces_with_the_state_carried_on_have_truncated_gradients() -> None:
    made = stack("lstm")
    x = inputs().requires_grad_()
    first, state = made.scan(x[:4])
    second, _ = made.scan(x[4:], state.detach())
    torch.testing.assert_close(torch.cat([first, second]), made.scan(x)[0])
    (gradient,) = torch.autograd.grad(second.sum(), x)
    assert not gradient[:4].any()
    assert gradient[4:].all()


def test_a_state_selects_resets_saves_and_comes_back(tmp_path: Path) -> None:
    state = random_state(stack("lstm", layers=11))
    picked = state.rows(torch.tensor([2, 0, 2]))
    assert torch.equal(picked.layers[10][1], state.layers[10][1][[2, 0, 2]])
    zeroed = state.reset(torch.tensor([False, True, False]))
    assert not zeroed.layers[3][0][1].any()
    assert torch.equal(zeroed.layers[3][0][0], state.layers[3][0][0])
    state.save(tmp_path / "state")
    assert_states(State.load(tmp_path / "state"), state, rtol=0, atol=0)
    (tmp_path / "state").write_bytes(b"nothing of the kind")
    with pytest.raises(RecurError, match="no saved state"):
        State.load(tmp_path / "state")
    with pytest.raises(RecurError, match=r"1\.0 comes after 0 layers"):
        State.from_dict({"1.0": torch.zeros(1, 1)})


def test_locked_dropout_is_the_same_at_every_step() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 40, 60)
    out = locked(x, 0.25, training=True)
    assert torch.equal(out, out[:1].expand_as(out))
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert float((out[0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert locked(x, 0.25, training=False) is x


def test_zoneout_keeps_old_values() -> None:
    torch.manual_seed(0)
    new, old = torch.ones(200, 50), torch.zeros(200, 50)
    out = zoneout(new, old, 0.3, training=True)
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(zoneout(new, old, 0.3, training=False), torch.full((200, 50), 0.7))
    made = stack("lstm", zoneout=1.0).eval()
    state = random_state(made)
    assert_states(made.scan(inputs(), state)[1], state)


def test_weight_drop_is_one_mask_for_a_whole_sequence() -> None:
    torch.manual_seed(0)
    weight = torch.ones(100, 100)
    assert float((weight_drop(weight, 0.4, training=True) == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert weight_drop(weight, 0.4, training=False).equal(weight)
    for cell in ("lstm", "gru", "rnn", "lstm_norm"):
        made = stack(cell, weight_drop=0.5)
        x = inputs()[:1].expand(T, B, D)
        torch.manual_seed(1)
        fast, _ = made.scan(x)
        torch.manual_seed(1)
        slow, _ = made.scan(x, lengths=torch.full((B,), T))
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("activation", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1), ("relu", 0, None)])
def test_activations_stay_in_their_range(activation: Any, low: float, high: float | None) -> None:
    torch.manual_seed(0)
    (h,) = RnnCell(D, H, activation).step(10 * torch.randn(50, D), (torch.randn(50, H),))
    assert float(h.detach().min()) >= low
    assert high is None or float(h.detach().max()) <= high
    (h,) = RnnCell(D, H, "identity").step(10 * torch.randn(50, D), (torch.zeros(50, H),))
    assert float(h.detach().abs().max()) > 1

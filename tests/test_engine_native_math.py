"""The core's own tanh, sigmoid and exp: the bounds that engine/_core/vec.h states, over the whole range of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_helpers import ISAS

from recur.engine import native

pytestmark = pytest.mark.skipif(not native.where().core, reason=f"no compiled core: {native.where().reason}")


def numbers() -> Any:
    """Every 4,099th float, both signs, and a dense grid where the functions bend."""
    bits = np.arange(0, 0x7F800000, 4099, dtype=np.uint32).view(np.float32)
    return np.concatenate([bits, -bits, np.linspace(-12, 12, 200_001, dtype=np.float32)])


@pytest.mark.parametrize("isa", ISAS)
def test_tanh_and_sigmoid(isa: str) -> None:
    x = numbers()
    exact = x.astype(np.float64)
    tanh = native.elementwise("tanh", x, isa=isa)
    assert np.abs(tanh - np.tanh(exact)).max() < 2e-7
    small = np.abs(x) < 1e-3
    assert (np.abs(tanh - np.tanh(exact))[small] <= 3e-7 * np.abs(exact[small]) + 1e-44).all()
    assert np.abs(native.elementwise("sigmoid", x, isa=isa) - 0.5 * (np.tanh(exact / 2) + 1)).max() < 1.2e-7
    assert native.elementwise("tanh", np.array([-np.inf, np.inf], np.float32), isa=isa).tolist() == [-1, 1]


@pytest.mark.parametrize("isa", ISAS)
def test_exp(isa: str) -> None:
    x = numbers()
    x = x[np.abs(x) <= 87]
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(native.elementwise("exp", x, isa=isa) - exact) / exact).max() < 2e-7
    low, high = native.elementwise("exp", np.array([-1e30, 1e30], np.float32), isa=isa)
    assert 0 < low < 2e-38
    assert 1e38 < high < np.inf


@pytest.mark.parametrize("isa", ISAS)
def test_what_is_no_number_stays_none(isa: str) -> None:
    for function in ("tanh", "sigmoid", "exp"):
        assert np.isnan(native.elementwise(function, np.array([np.nan], np.float32), isa=isa)).all()  # type: ignore[arg-type]

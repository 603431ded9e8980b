"""A device that is no device: what a GPU asks of a program, on a machine without one.

PyTorch's "meta" device has a name and no memory. Here its tensors wrap real ones, in memory, that do the computing: the
numbers are those of a processor, and an operation on tensors of both devices is an error, as it is on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
# What may look from one device to the other: copies, and small index lists, which PyTorch brings over by itself.
ACROSS = ("aten::copy_", "aten::_to_copy", "aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_")


class Away(Tensor):
    """A tensor on the stand-in; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        made: Away = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None:
        pass

    def tolist(self) -> Any:
        """Its numbers, brought over."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


def compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the device that its tensors, or its `device`, name."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    away = [isinstance(each, Away) for each in tensors]
    name = operation.name()
    if any(away) and not all(away) and not name.startswith(ACROSS):
        here = [each for each in tensors if not isinstance(each, Away) and each.ndim]
        if here:
            raise RuntimeError(f"{name}: tensors of both devices")
    target = kwargs.get("device")
    on = any(away) if target is None else torch.device(target) == DEVICE
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(each.inner): each for each in tensors if isinstance(each, Away)}
    out = operation(*tree_map(_inner, args), **tree_map(_inner, kwargs))

    def outer(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, Away) or not on:
            return value
        return known[id(value)] if id(value) in known else Away(value)  # what was changed in place is itself

    return tree_map(outer, out)


class StandIn(TorchDispatchMode):
    """Within it, tensors may be made on the stand-in and moved to it."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, args, kwargs or {})


@contextmanager
def trained_there() -> Iterator[None]:
    """Within it, trainings find that the stand-in is the device of their process."""
    move = torch.nn.Module.to

    def swapping(module: Any, *where: Any, **how: Any) -> Any:  # parameters of another kind take the place of theirs
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return move(module, *where, **how)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    own = patch("recur.train.team.own_device", lambda: DEVICE)
    with own, patch.object(torch.nn.Module, "to", swapping), StandIn():
        yield

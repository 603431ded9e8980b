"""What a recurrent network carries from one piece of a sequence to the next, as an object of its own.

B rows, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from recur.engine.weights import read_safetensors, write_safetensors
from recur.errors import RecurError
from recur.files import write_atomically


@dataclass(frozen=True)
class State:
    """An entry a layer (in both directions two, forward and backward by turns): (h,) or (h, c), each [B, H].

    It never changes: every method gives a new one.
    """

    layers: tuple[tuple[Tensor, ...], ...]

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The state with every tensor replaced by what `function` makes of it."""
        return State(tuple(tuple(function(part) for part in layer) for layer in self.layers))

    def detach(self) -> State:
        """The same numbers without their history: gradients end here (truncated backpropagation through time)."""
        return self.map(torch.Tensor.detach)

    def rows(self, index: Tensor) -> State:
        """Only these rows, in this order; a row may come twice, as in a beam search."""
        return self.map(lambda part: part[index])

    def reset(self, rows: Tensor) -> State:
        """Zero where `rows` [B] is true: there something new begins."""
        return self.map(lambda part: part.masked_fill(rows[:, None], 0.0))

    def to_dict(self) -> dict[str, Tensor]:
        """`{"layer.part": tensor}`, for checkpoints."""
        return {f"{i}.{j}": part for i, layer in enumerate(self.layers) for j, part in enumerate(layer)}

    @classmethod
    def from_dict(cls, parts: dict[str, Tensor]) -> Self:
        """Undo `to_dict`. Errors: RecurError when a part is missing."""
        layers: list[list[Tensor]] = []
        for name in sorted(parts, key=lambda name: tuple(map(int, name.split(".")))):
            layer, part = map(int, name.split("."))
            if layer == len(layers):
                layers.append([])
            if layer != len(layers) - 1 or part != len(layers[-1]):
                raise RecurError(f"state: {name} comes after {len(layers)} layers; a part is missing; save it again")
            layers[-1].append(parts[name])
        return cls(tuple(map(tuple, layers)))

    def save(self, path: str | Path) -> None:
        """Write it as a safetensors file."""
        write_atomically(
            path, write_safetensors({name: part.numpy() for name, part in self.detach().to_dict().items()})
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Errors: RecurError for another file, OSError."""
        try:
            tensors = read_safetensors(Path(path).read_bytes())
            return cls.from_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
        except (RecurError, ValueError, TypeError) as error:
            raise RecurError(f"{path}: no saved state ({error}); expected a file that State.save wrote") from error

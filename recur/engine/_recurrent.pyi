"""What the compiled core offers. Use it through `engine/native.py`."""

from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

compiler: str

def isas() -> list[str]: ...
def apply(isa: str, function: int, x: _Floats) -> None: ...
def finite(x: _Floats) -> bool: ...

class Stack:
    isa: str
    def scan(
        self,
        x: _Floats,
        lengths: _Ints,
        resets: npt.NDArray[np.uint8] | None,
        h: _Floats,
        c: _Floats | None,
        out: _Floats,
        trace_h: _Floats | None,
        trace_c: _Floats | None,
        trace_gates: _Floats | None,
        threads: int,
    ) -> None: ...

class Network: ...

class Decoder:
    def beam_search(self, *args: Any, **options: Any) -> tuple[npt.NDArray[Any], ...]: ...
    def roll(self, *args: Any, **options: Any) -> tuple[npt.NDArray[Any], ...]: ...
    def generate(self, *args: Any, **options: Any) -> None: ...
    def read(self, *args: Any, **options: Any) -> None: ...

def make_stack(
    cell: int,
    precision: int,
    hidden: int,
    directions: int,
    arrays: list[list[_Floats | None]],
    inputs: list[list[int]],
    exact_first: bool,
    isa: str,
) -> Stack: ...
def make_network(
    stack: Stack,
    weights: dict[str, _Floats],
    vocabulary: int,
    embedding: int,
    features: int,
    memory: int,
    attention: int,
    output: int,
    precision: int,
) -> Network: ...
def make_decoder(network: Network, words: _Ints, head: _Floats, bias: _Floats | None, precision: int) -> Decoder: ...

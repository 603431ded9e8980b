"""The compiled core's Python face: recurrent stacks over whole sequences, and token decoders, on packed weights.

Weights are packed once, when a `Stack` or `Decoder` is made, in float32, bfloat16 or int8 (one scale a row;
activations are quantized on the fly). The core (`engine/_core`, C++) is chosen when it can be loaded; where it cannot,
the plain loops of `engine/reference.py` and `engine/search.py` run instead, with one warning that says why. Both take
the same arguments and give the same results to the tolerance of the precision, so `isa="reference"` is the slow twin.

Environment: `RECUR_ISA` names the instruction set when the caller does not ("plain", "avx2", … or "reference");
`RECUR_CORE=off` leaves the core alone.

B batch, T time, D input features, H hidden units, L layers, G gates, E embedding, V vocabulary, R regions,
F features of a region, A attention units, P tokens of a prompt, W words that may be written.
"""

from __future__ import annotations

from recur.engine.core import Where, where
from recur.engine.native_decoder import Decoder
from recur.engine.native_stack import Precision, Scan, Stack, elementwise
from recur.engine.twin import Generation, Reading

__all__ = ["Decoder", "Generation", "Precision", "Reading", "Scan", "Stack", "Where", "elementwise", "where"]

"""The trunk that a head is put on: its graph, in the numbers that it will run in, and where it comes from; and the
steps that its convolutions take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recur.errors import RecurError
from recur.hub import EMBEDDED_TRUNK
from recur.nn.export import export_trunk, is_trunk
from recur.nn.export_heads import ranges_of
from recur.nn.vision import Trunk
from recur.train.encoders import DEFAULT_SIZE, open_encoder, trunk_of
from recur.train.quantize import measure_ranges, sample_batches


@dataclass(frozen=True)
class HeadTrunk:
    """`encoded` is the graph `pixels` -> `features` of a trunk for pictures of `size`; `name` as the user wrote it.

    `shared`: it is that of the captioner that comes with recur, and is left out of the bundle.
    """

    name: str
    encoded: bytes
    size: int
    shared: bool

    def describe(self, outputs: Sequence[str]) -> dict[str, Any]:
        """For bundle.json["encoder"]."""
        found: dict[str, Any] = {
            "file": "encoder.onnx",
            "input": "pixels",
            "outputs": list(outputs),
            "size": self.size,
            "arithmetic": "float32" if ranges_of(self.encoded) is None else "int8",
        }
        if self.shared:
            found["trunk"] = {"model": EMBEDDED_TRUNK, "sha256": hashlib.sha256(self.encoded).hexdigest()}
        return found

    def bundled(self, head: bytes) -> bytes:
        """What a bundle's encoder.onnx holds: the whole graph, or the head alone where the trunk is shared."""
        return head if self.shared else self.encoded + head


def open_trunk(spec: str, *, pictures: Sequence[Path], share: bool) -> HeadTrunk:
    """The trunk of `spec`: `embedded`, a bundle, or an .onnx file of `recur train trunk`.

    One in floating point is put into 8-bit numbers, their ranges measured on some of `pictures`. RecurError when it is
    not a trunk of recur's own, or cannot be shared.
    """
    if share and spec != "embedded":
        raise RecurError(f"{spec}: only the trunk that comes with recur can be shared; leave out --share-trunk")
    encoded, size = trunk_of(spec)
    if encoded is None or not is_trunk(encoded):
        raise RecurError(
            f"{spec}: not a trunk of recur's own; expected 'embedded', a bundle, or a file of `recur train trunk`"
        )
    size = size or DEFAULT_SIZE
    if ranges_of(encoded) is None:
        module = open_encoder(spec, size=size).module
        assert isinstance(module, Trunk)
        encoded = export_trunk(module, ranges=measure_ranges(module, sample_batches(pictures, size)))
    return HeadTrunk(spec, encoded, size, share)

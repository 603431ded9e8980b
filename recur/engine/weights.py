"""Weights on disk: the safetensors format (huggingface.co/docs/safetensors), and matrices as 8-bit numbers.

A file is the length of a header (8 bytes, little-endian), the header (JSON: type, shape and place of each tensor), and
the numbers. Matrices are stored with one scale a row, in a tensor named `<name>.scale`: `w = q * scale`, q in
-127..127, `scale = max|row| / 127`. Vectors, and matrices of a single row, stay float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from recur.errors import RecurError

Stored = Literal["int8", "float16", "float32"]
FloatArray = npt.NDArray[np.float32]
MAX_HEADER: Final = 16 << 20  # bytes
_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I8": np.dtype("i1"),
}
_TYPE_NAMES: Final = {dtype: name for name, dtype in _TYPES.items()}


def read_safetensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a file, as read-only views of it. Errors: RecurError when anything does not fit."""
    if len(data) < 8:
        raise RecurError(f"{len(data)} bytes; expected a header")
    size = int.from_bytes(data[:8], "little")
    if size > min(MAX_HEADER, len(data) - 8):
        raise RecurError(f"a header of {size:,} bytes in a file of {len(data):,}")
    try:
        header = json.loads(data[8 : 8 + size].decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecurError(f"a broken header ({error})") from error
    if not isinstance(header, dict):
        raise RecurError("a header that is no JSON object")
    header.pop("__metadata__", None)
    tensors: dict[str, npt.NDArray[Any]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        try:
            dtype, shape, (start, stop) = _TYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise RecurError(f"{name!r} is not described as expected ({entry!r})") from error
        if any(type(number) is not int or number < 0 for number in (*shape, start, stop)) or len(shape) > 8:
            raise RecurError(f"{name!r} has shape {list(shape)} at {start}..{stop}; expected whole numbers")
        count = math.prod(shape)
        if stop - start != count * dtype.itemsize or 8 + size + stop > len(data):
            raise RecurError(f"{name!r} of shape {list(shape)} does not fit its place {start}..{stop}")
        spans.append((start, stop))
        tensors[name] = np.frombuffer(data, dtype, count, 8 + size + start).reshape(shape)
    at = 0
    for start, stop in sorted(spans):
        if start != at:
            raise RecurError(f"a gap or overlap at byte {at}")
        at = stop
    if at != len(data) - 8 - size:
        raise RecurError(f"{len(data) - 8 - size - at} bytes after the last tensor")
    return tensors


def write_safetensors(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The file of some tensors (float64, float32, float16 or int8); the same tensors always give the same bytes."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    at = 0
    # Widest type first keeps every tensor aligned, as the format's own writer does.
    for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
        values = np.ascontiguousarray(tensors[name], dtype=tensors[name].dtype.newbyteorder("<"))
        raw = values.tobytes()
        header[name] = {
            "dtype": _TYPE_NAMES[values.dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [at, at + len(raw)],
        }
        parts.append(raw)
        at += len(raw)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return b"".join([len(encoded).to_bytes(8, "little"), encoded, *parts])


def quantized(weights: Mapping[str, npt.NDArray[Any]], stored: Stored) -> dict[str, npt.NDArray[Any]]:
    """The tensors to store for float weights. Errors: RecurError for a number that `stored` cannot hold."""
    out: dict[str, npt.NDArray[Any]] = {}
    for name, given in weights.items():
        values = np.asarray(given, np.float32)
        if not np.isfinite(values).all():
            raise RecurError(f"{name} has a number that is not finite; expected finite weights; train again")
        if values.ndim != 2 or len(values) < 2 or stored == "float32":
            out[name] = values
        elif stored == "float16":
            if np.abs(values).max() > np.finfo(np.float16).max:
                raise RecurError(f"{name} has a number too great for float16; expected at most 65504; store float32")
            out[name] = values.astype(np.float16)
        else:
            scale = np.maximum(np.abs(values).max(axis=1), np.float32(1e-12)) / np.float32(127)
            out[name] = np.clip(np.rint(values / scale[:, None]), -127, 127).astype(np.int8)
            out[f"{name}.scale"] = scale
    return out


def dequantize(tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, FloatArray]:
    """The float32 weights of stored tensors. Errors: RecurError for a missing scale, or a number that is not finite."""
    out: dict[str, FloatArray] = {}
    for name, values in tensors.items():
        if name.endswith(".scale") and name.removesuffix(".scale") in tensors:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            weight = values.astype(np.float32)
            if values.dtype == np.int8:
                scale = tensors.get(f"{name}.scale")
                if scale is None or scale.dtype == np.int8 or values.ndim != 2 or scale.shape != values.shape[:1]:
                    raise RecurError(f"{name} is 8-bit without one scale a row")
                weight *= scale.astype(np.float32)[:, None]
        if not np.isfinite(weight).all():
            raise RecurError(f"{name} has a number that is not finite")
        out[name] = weight
    return out

"""The number format that training computes in: the faster one of this processor."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has_matrix_tiles() -> bool:
    """Whether the processor multiplies bfloat16 matrices in tiles (AMX).

    Without them bfloat16 is the slower format, whatever else the processor has for it: on AVX-512 with its bfloat16
    instructions, PyTorch's products run at half and its convolutions at two fifths of the speed of 32 bits.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)  # older versions of PyTorch do not have it
    capabilities: dict[str, object] = {} if ask is None else ask()
    return bool(capabilities.get("amx_bf16", False))


def autocast() -> torch.autocast:
    """The context of a training step: bfloat16 products with 32-bit sums where that is faster, else 32 bits."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_matrix_tiles())

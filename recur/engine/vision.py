"""The picture encoder: an ONNX graph that turns pixels into features, run by ONNX Runtime on the CPU.

The embedded encoder takes bytes and normalises them inside the graph; for encoders from elsewhere the bundle names the
mean and standard deviation of each channel, in units of pixels (0..255), and the names of input and output.

B pictures, Y and X pixels, R grid cells (gy * gx, row by row), F features of a cell.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recur.engine.reference import Array
from recur.errors import RecurError


class Encoder:
    """Pixels uint8 [B, Y, X, 3] (RGB) to features float32 [B, R, F]; a graph that gives vectors [B, F] has R = 1.

    `grid` is the (gy, gx) that the last call gave, (1, 1) for a vector. May be called from several threads.
    """

    def __init__(
        self,
        model: bytes | Path,
        *,
        input: str = "pixels",
        output: str = "features",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        threads: int | None = None,
    ) -> None:
        """`threads` for one run: all processors this process may use when None.

        Errors: RecurError when the graph cannot be loaded, or has no such input or output.
        """
        import onnxruntime  # here, because it takes longer to import than the rest of the runtime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised; ONNX Runtime need not print it as well
        options.intra_op_num_threads = threads or processors()
        options.inter_op_num_threads = 1
        # Spinning threads would take the processor from those that read pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not exact_bytes():
            options.add_session_config_entry("session.x64quantprecision", "1")  # the slow, exact way
        if isinstance(model, bytes):
            # A graph from a bundle is complete: it must not name other files for its weights to be read from.
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", "no-such-folder")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime has a class of its own for each kind, all of them bare Exceptions
            raise RecurError(
                f"encoder: cannot be loaded ({_first_line(error)}); expected a complete ONNX graph"
            ) from error
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = [node.name for node in self._session.get_outputs()]
        if input not in inputs or len(inputs) > 1:
            raise RecurError(f"encoder: inputs {', '.join(inputs)}; expected one, named {input!r}; name the right one")
        if output not in outputs:
            raise RecurError(
                f"encoder: outputs {', '.join(outputs)}; expected one named {output!r}; name the right one"
            )
        self._input, self._output = input, output
        self._bytes = inputs[input].type == "tensor(uint8)"
        shape = inputs[input].shape
        self._colours_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        fixed = shape[0]
        self._batch = fixed if isinstance(fixed, int) and fixed > 0 else 0  # 0: any number at once
        channels = (1, 1, 1, -1) if self._colours_last else (1, -1, 1, 1)
        self._mean = np.asarray(mean, np.float32).reshape(channels)
        self._scale = 1 / np.asarray(std, np.float32).reshape(channels)
        self._plain = bool((self._mean == 0).all() and (self._scale == 1).all())
        self.grid = (1, 1)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> Array:
        """Features [B, R, F] of pixels [B, Y, X, 3]. Errors: RecurError when the graph refuses their size."""
        return self._shape(self.raw(pixels, [self._output])[0])

    def both(self, pixels: npt.NDArray[np.uint8], others: Sequence[str]) -> tuple[Array, list[Array]]:
        """Features [B, R, F], and other outputs of the same pass as the graph gives them: those of a head."""
        first, *rest = self.raw(pixels, [self._output, *others])
        return self._shape(first), rest

    def raw(self, pixels: npt.NDArray[np.uint8], outputs: Sequence[str]) -> list[Array]:
        """Outputs of the graph as they are, for pixels [B, Y, X, 3]."""
        if pixels.ndim != 4 or pixels.shape[3] != 3:
            raise RecurError(f"encoder: pixels of shape {list(pixels.shape)}; expected [pictures, rows, columns, 3]")
        planes: npt.NDArray[Any] = pixels if self._colours_last else pixels.transpose(0, 3, 1, 2)
        planes = np.ascontiguousarray(planes) if self._bytes else planes.astype(np.float32, order="C")
        if not self._plain and not self._bytes:
            planes -= self._mean
            planes *= self._scale
        if not self._batch:
            return self._run(planes, outputs)
        parts: list[list[Array]] = []
        for at in range(0, len(planes), self._batch):
            part = planes[at : at + self._batch]
            padding = np.zeros((self._batch - len(part), *part.shape[1:]), part.dtype)
            parts.append([each[: len(part)] for each in self._run(np.concatenate([part, padding]), outputs)])
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _run(self, planes: npt.NDArray[Any], outputs: Sequence[str]) -> list[Array]:
        try:
            found: list[Array] = self._session.run(list(outputs), {self._input: planes})
        except Exception as error:
            raise RecurError(f"encoder: refuses pixels of shape {list(planes.shape)} ({_first_line(error)})") from error
        return found

    def _shape(self, features: Array) -> Array:
        if features.ndim not in (2, 4):
            raise RecurError(
                f"encoder: output {self._output!r} has shape {list(features.shape)}; "
                "expected a grid [B, F, gy, gx] or a vector [B, F]; name another output"
            )
        if features.ndim == 2:
            self.grid = (1, 1)
            return features[:, None, :].astype(np.float32, copy=False)
        batch, channels, rows, columns = features.shape
        self.grid = (rows, columns)
        cells = features.reshape(batch, channels, rows * columns).transpose(0, 2, 1)
        return np.ascontiguousarray(cells, dtype=np.float32)


def exact_bytes() -> bool:
    """Whether ONNX Runtime's fast products of 8-bit numbers are exact here.

    On x86 without VNNI they add pairs in 16 bits, which may overflow (its documentation of quantization, "U8S8").
    Where nothing can be found out, the answer is no.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    from recur.engine import core  # here, because it asks this module how many processors there are

    if any("vnni" in name for name in core.where().isas):
        return True
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # another system than Linux
        return False


def processors() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

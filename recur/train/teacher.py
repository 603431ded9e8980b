"""What a teacher network sees in a collection of pictures, computed once and kept on disk.

Distillation asks the same question of the same picture many times; the teacher answers each (picture, view)
once. A view is a crop and a flip, so that the small network learns the teacher's function rather than its answers
on whole pictures only (Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent").

Maps are kept as 8-bit numbers: the teacher ends in ReLU6, so value / 6 * 255 loses at most 0.012.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from recur.data.images import read_picture
from recur.engine.vision import processors
from recur.errors import InputError, RecurError
from recur.files import fingerprint, write_atomically
from recur.train.checkpoint import StopRequest
from recur.train.graph import first_line

MAP_MAX = 6.0  # ReLU6
STAMP = "cache.json"
ANSWERED, UNREADABLE = 1, 2
BLOCK = 16  # pictures asked about together


@dataclass(frozen=True)
class TeacherCache:
    """Memory-mapped answers. N pictures, V views, R = 49 grid cells, F teacher channels."""

    pixels: NDArray[np.uint8]  # [N, Y, X, 3], every picture squashed to one square size
    views: NDArray[np.float32]  # [N, V, 5]: x0, y0, x1, y1 in 0..1, flip 0 or 1
    maps: NDArray[np.uint8]  # [N, V, F, 7, 7], times 6/255
    probabilities: NDArray[np.float16]  # [N, V, classes]
    readable: NDArray[np.bool_]  # [N]; the others have no answers
    identity: dict[str, Any]  # what was asked of whom: pictures, teacher, views, seed, size
    complete: bool  # False when it was stopped before the end


def draw_views(pictures: int, views: int, seed: int, least_area: float = 0.3) -> NDArray[np.float32]:
    """Views 0 and 1 are the whole picture and its mirror image; the rest are random crops. [N, V, 5]

    `least_area`: of a crop, as a share of the picture.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((pictures, views, 5), np.float32)
    out[:, :, 2:4] = 1.0
    out[:, 1::2, 4] = 1.0
    shape = (pictures, max(views - 2, 0))
    area = rng.uniform(least_area, 1.0, shape)
    ratio = np.exp(rng.uniform(-0.3, 0.3, shape))
    width = np.minimum(np.sqrt(area * ratio), 1.0)
    height = np.minimum(np.sqrt(area / ratio), 1.0)
    x0 = rng.uniform(0, 1, shape) * (1 - width)
    y0 = rng.uniform(0, 1, shape) * (1 - height)
    out[:, 2:, :4] = np.stack([x0, y0, x0 + width, y0 + height], -1)
    return out


def cut_view(pixels: NDArray[np.uint8], view: NDArray[np.float32], size: int) -> Tensor:
    """One view of one picture [Y, X, 3] as uint8 [1, 3, size, size]."""
    side_y, side_x = pixels.shape[:2]
    x0, x1 = round(float(view[0]) * side_x), round(float(view[2]) * side_x)
    y0, y1 = round(float(view[1]) * side_y), round(float(view[3]) * side_y)
    patch = torch.from_numpy(pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])[None].permute(0, 3, 1, 2)
    if patch.shape[2:] != (size, size):
        patch = torch.nn.functional.interpolate(patch, (size, size), mode="bilinear", antialias=True)
    return patch.flip(3) if view[4] else patch


class Teacher:
    """An ONNX network: pixels [B, 3, Y, X] in 0..255 -> features [B, T, gy, gx] and probabilities [B, classes]."""

    def __init__(self, path: Path, size: int) -> None:
        """Errors: RecurError when the file is no such network."""
        import onnxruntime as ort

        self.path = path
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.intra_op_num_threads = processors()
        try:
            self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise RecurError(
                f"{path}: cannot be read ({error.strerror}); expected an ONNX file; check --teacher"
            ) from error
        except Exception as error:  # ONNX Runtime has a class of its own for each kind, all of them bare Exceptions
            raise RecurError(f"{path}: no ONNX network ({first_line(error)}); check --teacher") from error
        names = [[node.name for node in nodes] for nodes in (self._session.get_inputs(), self._session.get_outputs())]
        if names[0] != ["pixels"] or not {"features", "probabilities"} <= {*names[1]}:
            raise RecurError(
                f"{path}: has inputs {', '.join(names[0])} and outputs {', '.join(names[1])}; expected pixels, and "
                "features and probabilities; rename them or name another --teacher"
            )
        features, probabilities = self(np.zeros((1, 3, size, size), np.float32))
        if features.ndim != 4 or probabilities.ndim != 2:
            raise RecurError(
                f"{path}: gives features {list(features.shape)} and probabilities {list(probabilities.shape)}; "
                "expected a grid [B, T, gy, gx] and [B, classes]; name another --teacher"
            )
        self.map_shape, self.classes = features.shape[1:], probabilities.shape[1]

    def __call__(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features and probabilities of pixels [B, 3, Y, X]."""
        try:
            features, probabilities = self._session.run(["features", "probabilities"], {"pixels": pixels})
        except Exception as error:
            what = f"refuses pixels of shape {list(pixels.shape)} ({first_line(error)})"
            raise RecurError(f"{self.path}: {what}; name another --teacher") from error
        return features, probabilities


def build_teacher_cache(
    pictures: Sequence[Path],
    teacher: Path,
    folder: Path,
    *,
    views: int = 6,
    seed: int = 1,
    size: int = 224,
    least_area: float = 0.3,
    stop: StopRequest | None = None,
) -> TeacherCache:
    """Ask `teacher` about every view, or reuse what `folder` holds. What cannot be read is named and left out.

    An interrupted build goes on where it stopped; `stop` ends one early. Errors: RecurError for a cache of
    other pictures, views or another teacher, one that is damaged, and a file that is no teacher.
    """
    if views < 2:
        raise RecurError(f"{views} views; expected 2 or more: the picture and its mirror image; choose another number")
    asked = Teacher(teacher, size)
    identity = {
        "pictures": len(pictures),
        "pictures_sha256": fingerprint(pictures),
        "teacher_sha256": asked.sha256,
        "views": views,
        "seed": seed,
        "size": size,
        "least_area": least_area,
    }
    count = len(pictures)
    arrays = _open_arrays(
        folder,
        identity,
        {
            "pixels": ((count, size, size, 3), np.dtype(np.uint8)),
            "maps": ((count, views, *asked.map_shape), np.dtype(np.uint8)),
            "probabilities": ((count, views, asked.classes), np.dtype(np.float16)),
            "done": ((count,), np.dtype(np.uint8)),
        },
    )
    boxes = draw_views(count, views, seed, least_area)
    for start in range(0, count, BLOCK):
        if stop is not None and stop.requested:
            break
        rows = [i for i in range(start, min(start + BLOCK, count)) if not arrays["done"][i]]
        rows = [i for i in rows if _read_into(arrays, i, pictures[i], size)]
        if not rows:
            continue
        for view in range(views):
            cut = torch.cat([cut_view(arrays["pixels"][i], boxes[i, view], size) for i in rows])
            features, probabilities = asked(cut.float().contiguous().numpy())
            arrays["maps"][rows, view] = np.rint(features * (255 / MAP_MAX)).clip(0, 255).astype(np.uint8)
            arrays["probabilities"][rows, view] = probabilities.astype(np.float16)
        arrays["done"][rows] = ANSWERED
    done = np.asarray(arrays["done"])
    readable, complete = done == ANSWERED, bool((done != 0).all())
    return TeacherCache(arrays["pixels"], boxes, arrays["maps"], arrays["probabilities"], readable, identity, complete)


def _read_into(arrays: dict[str, Any], row: int, path: Path, size: int) -> bool:
    """Squash one picture into its row, whole and upright. False, with a line on stderr, when it cannot be read."""
    try:
        # A target that large: not reduced while decoding, so that the resizing starts from all its pixels.
        pixels = read_picture(path, target=1 << 24).pixels
    except InputError as error:
        print(f"{error}; left out", file=sys.stderr, flush=True)
        arrays["done"][row] = UNREADABLE
        return False
    arrays["pixels"][row] = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    return True


def _open_arrays(
    folder: Path, identity: dict[str, Any], shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
) -> dict[str, Any]:
    """The arrays of a cache, as they are or new ones. The stamp comes last: without it there is no cache."""
    files = {name: folder / f"{name}.npy" for name in shapes}
    stamp = folder / STAMP
    folder.mkdir(parents=True, exist_ok=True)
    if not stamp.exists():
        arrays: dict[str, Any] = {
            name: np.lib.format.open_memmap(files[name], mode="w+", dtype=dtype, shape=shape)
            for name, (shape, dtype) in shapes.items()
        }
        write_atomically(stamp, json.dumps(identity))
        return arrays
    try:
        found = json.loads(stamp.read_text("utf-8"))
        if found == identity:
            arrays = {name: np.lib.format.open_memmap(path, mode="r+") for name, path in files.items()}
            if all((arrays[name].shape, arrays[name].dtype) == shapes[name] for name in shapes):
                return arrays
            raise ValueError("arrays of other shapes")
    except (OSError, ValueError) as error:
        raise RecurError(f"{folder}: a damaged teacher cache ({error}); delete it or name another --cache") from error
    other = [key for key in identity if not isinstance(found, dict) or found.get(key) != identity[key]]
    raise RecurError(
        f"{folder}: holds a teacher cache of another run (other {', '.join(other)}); "
        "name another --cache or delete this one"
    )

"""Foreign ONNX graphs brought into the form of `encoder.onnx`.

Whatever a graph looks like - other names, several outputs, colours last, half precision, tokens instead of a grid,
pictures that must be normalised first - `conform` gives one that takes `pixels` float [B, 3, Y, X], RGB 0..255, and
gives `features`, a grid [B, F, gy, gx] or a vector [B, F]. What the output does not need is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recur.errors import RecurError

INPUT, OUTPUT = "pixels", "features"
# Tokens that are no region come first: none, the class token, class + distillation, class + four registers (DINOv2).
EXTRA_TOKENS = (0, 1, 2, 5)


def load_graph(source: bytes | Path, *, name: str) -> onnx.ModelProto:
    """The model in a file. RecurError when it is truncated or something else."""
    try:
        model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    except Exception as error:  # protobuf and file errors share no base class
        raise RecurError(f"{name}: not a whole ONNX file ({first_line(error)}); export it again") from error
    if not model.graph.node:
        raise RecurError(f"{name}: not a whole ONNX file (it computes nothing); export it again")
    return model


def picture_side(model: onnx.ModelProto, *, name: str) -> int | None:
    """The fixed side of the graph's pictures in pixels; None when it takes any. RecurError when it takes no picture."""
    return _picture_input(model, name=name)[0]


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {entry.name for entry in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in stored]


def _element_type(info: onnx.ValueInfoProto) -> int:
    return info.type.tensor_type.elem_type


def _shape_text(info: onnx.ValueInfoProto) -> str:
    """`features [B, 1280, 7, 7]`"""
    sides = [dim.dim_param or (str(dim.dim_value) if dim.dim_value else "?") for dim in info.type.tensor_type.shape.dim]
    return f"{info.name} [{', '.join(sides)}]"


def _picture_input(model: onnx.ModelProto, *, name: str) -> tuple[int | None, bool]:
    """The fixed side of the pictures in pixels (None: free) and whether colours are the last axis."""
    inputs = _real_inputs(model)
    found = ", ".join(map(_shape_text, inputs)) or "none"
    if len(inputs) != 1:
        raise RecurError(
            f"{name}: has the inputs {found}, expected one picture [B, 3, Y, X]; export the vision part alone"
        )
    sides = [int(dim.dim_value) for dim in inputs[0].type.tensor_type.shape.dim]
    if len(sides) != 4 or 3 not in (sides[1], sides[3]) or _element_type(inputs[0]) not in (
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8,
    ):  # fmt: skip
        raise RecurError(f"{name}: its input is {found}, expected numbers [B, 3, Y, X] or [B, Y, X, 3]; export it so")
    channels_last = sides[1] != 3
    rows, columns = sides[1:3] if channels_last else sides[2:4]
    if rows and columns and rows != columns:
        raise RecurError(f"{name}: its pictures are {rows} x {columns}, expected a square; export it for a square")
    return rows or columns or None, channels_last


def _choose_output(model: onnx.ModelProto, wanted: str | None, *, name: str) -> str:
    outputs = list(model.graph.output)
    listed = ", ".join(map(_shape_text, outputs))
    if wanted is None:
        if len(outputs) != 1:
            raise RecurError(f"{name}: has the outputs {listed}; name one (a grid, tokens or a vector)")
        return str(outputs[0].name)
    if wanted not in {tensor for node in model.graph.node for tensor in node.output}:
        raise RecurError(f"{name}: has no output {wanted!r}; it has {listed}")
    return wanted


def _used_names(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Every name that the nodes read, those of their inner graphs (If, Loop) too."""
    used: set[str] = set()
    for node in nodes:
        used.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                used |= _used_names(inner.node)
                used.update(entry.name for entry in inner.output)
    return used


def _prune(model: onnx.ModelProto, output: str) -> None:
    """Leave only what `output` depends on: a classifier's head must not travel in the bundle."""
    graph = model.graph
    maker = {tensor: index for index, node in enumerate(graph.node) for tensor in node.output if tensor}
    keep: set[int] = set()
    open_names = {output}
    while open_names:
        tensor = open_names.pop()
        if tensor in maker and maker[tensor] not in keep:
            keep.add(maker[tensor])
            open_names |= _used_names([graph.node[maker[tensor]]])
    nodes = [node for index, node in enumerate(graph.node) if index in keep]
    used = _used_names(nodes)
    picture = _real_inputs(model)
    stored = [entry for entry in graph.initializer if entry.name in used]
    sparse = [entry for entry in graph.sparse_initializer if entry.values.name in used]
    for field, content in (
        (graph.node, nodes), (graph.initializer, stored), (graph.sparse_initializer, sparse), (graph.input, picture),
        (graph.value_info, []), (graph.output, [helper.make_empty_tensor_value_info(output)]),
    ):  # fmt: skip
        copies = [type(entry).FromString(entry.SerializeToString()) for entry in content]
        del field[:]
        field.extend(copies)


def conform(
    model: onnx.ModelProto,
    *,
    name: str,
    size: int,
    output_name: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> bytes:
    """The graph as `pixels` [B, 3, Y, X] in 0..255 -> `features`, a grid [B, F, gy, gx] or a vector [B, F].

    `output_name` chooses among several outputs, or any tensor inside; `mean` and `std` (of pixels in 0..255, one number
    a colour) are subtracted and divided by first. A fixed batch becomes a free one where the graph allows it.
    A grid of a graph whose colours are last is taken to have its channels last. RecurError says what does not fit.
    """
    _, channels_last = _picture_input(model, name=name)
    output = _choose_output(model, output_name, name=name)
    _prune(model, output)
    fixed = int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)
    failure: RecurError | None = None
    for batch in (0, fixed) if fixed else (0,):
        try:
            return _wrap(
                onnx.compose.add_prefix(model, "encoder/"),
                output=f"encoder/{output}",
                batch=batch,
                size=size,
                channels_last=channels_last,
                mean=mean,
                std=std,
                name=name,
            )
        except RecurError as error:
            failure = error
    assert failure is not None
    raise failure


def _wrap(
    model: onnx.ModelProto,
    *,
    output: str,
    batch: int,
    size: int,
    channels_last: bool,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    name: str,
) -> bytes:
    """Nodes before and after a pruned graph, whose names all have a prefix. `batch` 0 means any number of pictures."""
    graph = model.graph
    picture = graph.input[0]
    element = _element_type(picture)
    first = picture.type.tensor_type.shape.dim[0]
    if batch:
        first.dim_value = batch
    else:
        first.dim_param = "B"
    try:
        # Two pictures: a graph with the number of pictures written into it does not survive that.
        shape = (batch or 2, size, size, 3) if channels_last else (batch or 2, 3, size, size)
        session = load_session(model.SerializeToString(), name=name)
        made = session.run([output], {picture.name: np.zeros(shape, helper.tensor_dtype_to_np_dtype(element))})[0].shape
    except RecurError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise RecurError(
            f"{name}: does not run on {batch or 2} pictures of {size} x {size} ({first_line(error)}); "
            "give the size it was made for, or export it with a dynamic batch axis"
        ) from error
    if len(made) not in (2, 3, 4) or made[0] != (batch or 2):
        raise RecurError(
            f"{name}: {output.removeprefix('encoder/')} has the shape {list(made)} for {batch or 2} pictures, expected "
            "a grid [B, F, rows, columns], tokens [B, regions, F] or a vector [B, F]; name another output"
        )

    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []

    def constant(label: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, label))
        return label

    def chain(nodes: list[onnx.NodeProto], kind: str, source: str, *others: str, **attributes: Any) -> str:
        target = f"recur/{kind.lower()}_{len(before)}_{len(after)}"
        nodes.append(helper.make_node(kind, [source, *others], [target], **attributes))
        return target

    x = INPUT
    if mean is not None:
        x = chain(before, "Sub", x, constant("recur/mean", _per_colour(mean, "mean", name)))
    if std is not None:
        x = chain(before, "Div", x, constant("recur/std", _per_colour(std, "std", name)))
    if channels_last:
        x = chain(before, "Transpose", x, perm=[0, 2, 3, 1])
    before.append(helper.make_node("Cast", [x], [picture.name], to=element))

    y = chain(after, "Cast", output, to=TensorProto.FLOAT)
    if len(made) == 4 and channels_last:
        y = chain(after, "Transpose", y, perm=[0, 3, 1, 2])
    if len(made) == 3:
        skip, side = token_grid(made[1], name=name)
        tokens = constant("recur/tokens", np.arange(skip, made[1], dtype=np.int64))
        y = chain(after, "Transpose", chain(after, "Gather", y, tokens, axis=1), perm=[0, 2, 1])
        y = chain(after, "Reshape", y, constant("recur/grid", np.array([0, made[2], side, side], np.int64)))
    after.append(helper.make_node("Identity", [y], [OUTPUT]))

    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    free = batch or "B"
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [free, 3, size, size]))
    sides = [free, "F"] if len(made) == 2 else [free, "F", "gy", "gx"]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, sides))
    encoded: bytes = model.SerializeToString()
    return encoded


def _per_colour(values: Sequence[float], what: str, name: str) -> NDArray[np.float32]:
    """[3, 1, 1]"""
    array = np.asarray(values, np.float32)
    if array.shape not in ((), (1,), (3,)) or not np.isfinite(array).all() or (what == "std" and (array <= 0).any()):
        raise RecurError(f"{name}: {what} is {list(values)}, expected one number for each of red, green and blue")
    return np.broadcast_to(array, (3,)).reshape(3, 1, 1).copy()


def token_grid(tokens: int, *, name: str) -> tuple[int, int]:
    """How many leading tokens are no region, and the side of the square that the others form."""
    for skip in EXTRA_TOKENS:
        side = math.isqrt(max(tokens - skip, 0))
        if side > 0 and side * side == tokens - skip:
            return skip, side
    raise RecurError(
        f"{name}: gives {tokens} tokens, which form no square grid; name an output that is a grid or a vector"
    )


def load_session(encoded: bytes, *, name: str) -> ort.InferenceSession:
    """A session to try a graph out. RecurError when ONNX Runtime cannot load it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    try:
        return ort.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base class
        raise RecurError(f"{name}: ONNX Runtime cannot load it ({first_line(error)}); export it again") from error


def first_line(error: Exception) -> str:
    """What went wrong, not too long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]

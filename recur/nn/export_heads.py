"""Heads in ONNX: what is put on the trunk's graph, and comes off again.

A head is written as the part of a graph that follows the trunk's: nodes and weights only, which read the trunk's maps
by their names. In the format of ONNX files (protocol buffers) two messages one after the other are one message with the
parts of both; so the bytes of a trunk and the bytes of a head, joined, are the graph that gives the features and the
head's answers in one pass, and the trunk's bytes alone are the trunk with its head off. The runtime needs no library
for that.

The names and scales of the trunk's maps follow from its structure, so a head fits the one trunk that it was made for:
whoever keeps a head apart keeps the SHA-256 of its trunk with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recur.nn.classification import ClassificationHead
from recur.nn.detection import DetectionHead, Evidence, Level, grid_of, stage_ends
from recur.nn.export import Graph, Ranges, emit_trunk, import_trunk

Emit = Callable[[Graph, Sequence[str]], dict[str, Sequence[int | str]]]  # writes nodes; name of output -> its shape
MAPS = ("stride8", "stride16", "stride32")
EVIDENCE = "detect.evidence"  # how the names of what the whole picture says begin


def ranges_of(encoded: bytes, points: tuple[str, ...] = ("stem.", "layers.")) -> dict[str, tuple[float, float]] | None:
    """The ranges that an 8-bit trunk was written with; None for one in floating point.

    `points`: how the names begin; `("detect.",)` for those of a detection head.
    """
    stored = {entry.name: numpy_helper.to_array(entry) for entry in onnx.load_from_string(encoded).graph.initializer}
    found: dict[str, tuple[float, float]] = {}
    for name, zero in stored.items():
        point = name.removesuffix(".zero")
        if point != name and name.startswith(points):
            scale, low = (float(each.reshape(-1)[0]) for each in (stored[f"{point}.scale"], zero))
            found[point] = (-low * scale, (255.0 - low) * scale)
    return found or None


def attach(encoded: bytes, emit: Emit, *, ranges: Ranges | None = None, prefix: str = "head.") -> bytes:
    """The bytes to put behind a trunk's: what `emit` writes onto its maps of stride 8, 16 and 32.

    `ranges` of the head's own points: it computes in 8-bit numbers where the trunk does; None: in floating point.
    """
    trunk = import_trunk(encoded)
    own = ranges_of(encoded)
    stored = {entry.name for entry in onnx.load_from_string(encoded).graph.initializer}
    below = Graph(own, quantize="stem.conv.weight.scale" in stored)  # as it was written: the names follow from it
    emit_trunk(below, trunk)
    whole = own is not None and ranges is not None
    graph = Graph(ranges if whole else None, quantize=True, prefix=prefix)
    if whole:
        graph.scales = dict(below.scales)
    maps = []
    for end in stage_ends(trunk):
        name = below.points.get(f"layers.{end}.out")
        if name is None:
            maps.append("features")
        elif own is None:
            maps.append(name)
        else:  # what comes out of the 8-bit numbers at this point
            rounded = next(node.output[0] for node in below.nodes if list(node.input[:1]) == [name])
            maps.append(next(node.output[0] for node in below.nodes if list(node.input[:1]) == [rounded]))
    outputs = emit(graph, maps)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()]
    part = onnx.GraphProto(node=graph.nodes, initializer=graph.initializers, output=infos)
    head: bytes = onnx.ModelProto(graph=part).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(encoded + head))
    return head


def without_heads(encoded: bytes) -> bytes:
    """The graph with all heads off: what `features` needs. A graph without a head comes back byte for byte."""
    model = onnx.load_from_string(encoded)
    if [each.name for each in model.graph.output] == ["features"]:
        return encoded
    needed = {"features"}
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):
        if needed & {*node.output}:
            needed |= {*node.input}
            nodes.insert(0, node)
    for kept, part in (
        (nodes, model.graph.node),
        ([each for each in model.graph.initializer if each.name in needed], model.graph.initializer),
        ([each for each in model.graph.output if each.name == "features"], model.graph.output),
    ):
        del part[:]
        part.extend(kept)
    out: bytes = model.SerializeToString()
    return out


def name_maps(graph: Graph, maps: Sequence[str]) -> dict[str, Sequence[int | str]]:
    """`emit` of no head: the maps themselves as outputs, under the names of `MAPS`."""
    for name, tensor in zip(MAPS, maps, strict=True):
        graph.add("Identity", [tensor])
        graph.nodes[-1].output[0] = name
    return dict.fromkeys(MAPS, ("B", "C", "y", "x"))


def detection_emitter(
    head: DetectionHead,
    shapes: Sequence[tuple[int, int]],
    *,
    evidence: Evidence | None = None,
    watch: bool = False,
) -> Emit:
    """Writes `scores` [B, A, N] and `boxes` [B, A, 4]; `shapes` (rows, columns) of the three maps.

    `evidence` of the whole picture: the scores come with its factor. `watch`: the points that `ranges` must name are
    outputs as well.
    """

    def emit(graph: Graph, maps: Sequence[str]) -> dict[str, Sequence[int | str]]:
        head.eval()
        merged: list[str] = []
        coarser: str | None = None
        for place in reversed(range(len(head.levels))):
            level = head.levels[place]
            assert isinstance(level, Level)
            x = maps[place]
            if x not in graph.scales:
                x = graph.point(x, f"detect.{place}.in")
            coarser = _merge(graph, level, x, coarser, f"detect.{place}")
            merged.insert(0, coarser)
        scores: list[str] = []
        sides: list[str] = []
        for place, x in enumerate(merged):
            level, prefix = head.levels[place], f"detect.{place}"
            assert isinstance(level, Level)
            seen = graph.point(graph.add("Relu", [graph.conv(x, f"{prefix}.look", level.look)]), f"{prefix}.seen")
            for found, name, module, width in (
                (scores, "score", level.score, head.classes),
                (sides, "sides", level.sides, 4),
            ):
                flat = graph.constant(f"{prefix}.{name}.shape", np.array([0, width, -1], np.int64))
                found.append(graph.add("Reshape", [graph.conv(seen, f"{prefix}.{name}", module), flat]))
        one, half = (
            graph.constant(f"detect.{name}", np.array([v], np.float32)) for name, v in (("one", 1.0), ("half", 0.5))
        )
        score = graph.add("Transpose", [graph.add("Concat", scores, axis=2)], perm=[0, 2, 1])
        score = graph.add("Sigmoid", [score])
        if evidence is not None:
            score = graph.add("Min", [graph.add("Mul", [score, _factor(graph, evidence, maps[-1])]), one])
        graph.nodes[-1].output[0] = "scores"
        side = graph.add("Transpose", [graph.add("Concat", sides, axis=2)], perm=[0, 2, 1])
        root = graph.add("Sqrt", [graph.add("Add", [graph.add("Mul", [side, side]), one])])
        side = graph.add("Mul", [graph.add("Add", [side, root]), half])
        centres, cells = (each.numpy() for each in grid_of(shapes))
        signed = np.concatenate([-cells, cells], 1).astype(np.float32)
        offset = graph.add("Mul", [side, graph.constant("detect.cells", signed)])
        graph.add("Add", [offset, graph.constant("detect.centres", np.tile(centres, (1, 2)).astype(np.float32))])
        graph.nodes[-1].output[0] = "boxes"
        outputs: dict[str, Sequence[int | str]] = {
            "scores": ("B", len(centres), head.classes),
            "boxes": ("B", len(centres), 4),
        }
        if watch:
            outputs |= _watched(graph)
        return outputs

    return emit


def _merge(graph: Graph, level: Level, x: str, coarser: str | None, prefix: str) -> str:
    # A point after each convolution: ONNX Runtime multiplies whole numbers only where whole numbers come out as well.
    x = graph.point(graph.conv(x, f"{prefix}.inside", level.inside), f"{prefix}.inside.out")
    if level.above is not None and coarser is not None:
        scales = graph.constant(f"{prefix}.twice", np.array([1, 1, 2, 2], np.float32))
        above = graph.point(graph.conv(coarser, f"{prefix}.above", level.above), f"{prefix}.above.out")
        modes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        x = graph.add("Add", [x, graph.add("Resize", [above, "", scales], **modes)])
    x = graph.point(graph.add("Relu", [x]), f"{prefix}.merged")
    joint = level.joint
    y = graph.add("Relu", [graph.conv(x, f"{prefix}.joint.conv1", joint.conv1)])
    y = graph.conv(graph.point(y, f"{prefix}.middle"), f"{prefix}.joint.conv2", joint.conv2)
    y = graph.point(y, f"{prefix}.added")
    return graph.point(graph.add("Relu", [graph.add("Add", [x, y])]), f"{prefix}.out")


def _factor(graph: Graph, evidence: Evidence, features: str) -> str:
    """The factor [B, 1, N] of `evidence`."""
    weight, bias, spread, usual, power = (
        each.detach().float().contiguous().numpy()
        for each in (evidence.linear.weight, evidence.linear.bias, evidence.spread, evidence.usual, evidence.power)
    )
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [features])])
    pooled = graph.add("Div", [pooled, graph.constant(f"{EVIDENCE}.spread", spread)])
    stored, _ = graph.weight(f"{EVIDENCE}.linear.weight", weight, whole=False)
    there = graph.add("Gemm", [pooled, stored, graph.constant(f"{EVIDENCE}.linear.bias", bias)], transB=1)
    share = graph.add("Div", [graph.add("Sigmoid", [there]), graph.constant(f"{EVIDENCE}.usual", usual)])
    factor = graph.add("Pow", [share, graph.constant(f"{EVIDENCE}.power", power)])
    shape = graph.constant(f"{EVIDENCE}.shape", np.array([0, 1, evidence.linear.out_features], np.int64))
    return graph.add("Reshape", [factor, shape])


def watched_names(head: bytes) -> list[str]:
    """The points that a head written with `watch` has as outputs."""
    outputs = [each.name for each in onnx.load_from_string(head).graph.output]
    return [name for name in outputs if name.startswith("detect.")]


def _watched(graph: Graph) -> dict[str, Sequence[int | str]]:
    for name, tensor in graph.points.items():
        graph.nodes.append(helper.make_node("Identity", [tensor], [name]))
    return dict.fromkeys(graph.points, ("B", "C", "y", "x"))


def classification_emitter(head: ClassificationHead) -> Emit:
    """Writes `labels` [B, N], probabilities. It is so small that it stays in floating point."""

    def emit(graph: Graph, maps: Sequence[str]) -> dict[str, Sequence[int | str]]:
        pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [maps[-1]])])
        value = head.linear.weight.detach().float().contiguous().numpy()
        weight, _ = graph.weight("classify.weight", value, whole=False)
        bias = graph.constant("classify.bias", head.linear.bias.detach().float().numpy())
        scores = graph.add("Gemm", [pooled, weight, bias], transB=1)
        graph.add("Sigmoid" if head.several else "Softmax", [scores], **({} if head.several else {"axis": 1}))
        graph.nodes[-1].output[0] = "labels"
        return {"labels": ("B", head.classes)}

    return emit


def import_detection_head(encoded: bytes, head: DetectionHead) -> DetectionHead:
    """Fill `head` with the weights that `attach` wrote for one of its shape."""
    _fill(head, _stored(encoded), lambda name: name.replace("levels.", "detect.", 1))
    return head


def import_evidence(encoded: bytes) -> Evidence | None:
    """What the whole picture says in a graph that `attach` wrote; None where it says nothing."""
    stored = _stored(encoded)
    weight = stored.get(f"{EVIDENCE}.linear.weight")
    if weight is None:
        return None
    evidence = Evidence(weight.shape[1], weight.shape[0])
    _fill(evidence, stored, lambda name: f"{EVIDENCE}.{name}")
    return evidence


def _stored(encoded: bytes) -> dict[str, NDArray[Any]]:
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load_from_string(encoded).graph.initializer}


def _fill(module: torch.nn.Module, stored: Mapping[str, NDArray[Any]], key_of: Callable[[str], str]) -> None:
    state = module.state_dict()
    for name, value in state.items():
        key = key_of(name)
        found = stored[key].astype(np.float32)
        if name.endswith("weight"):
            found = found * stored[f"{key}.scale"].reshape((-1,) + (1,) * (found.ndim - 1))
        elif f"{key}.scale" in stored:
            found = found * stored[f"{key}.scale"]
        state[name] = torch.from_numpy(np.ascontiguousarray(found)).reshape(value.shape)
    module.load_state_dict(state)

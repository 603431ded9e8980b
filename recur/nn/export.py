"""The trunk as an ONNX graph, and back.

Written node by node rather than traced: the graph is small, its weights keep their names (so that a bundle's
encoder can be fine-tuned again), and they are stored as 8-bit numbers per output channel.

There are two ways to compute with them. In floating point, `Cast` and `Mul` restore the weights; ONNX Runtime folds
both into constants when it loads the file, so that the picture never pays for it. In whole numbers, pairs of
`QuantizeLinear` and `DequantizeLinear` around each 3x3 convolution say in which range its input and output lie, and
ONNX Runtime makes one product of 8-bit numbers of it (Jacob et al. 2018, section 2). The sums of the residual
connections and the gates of squeeze-and-excitation stay in floating point: they are cheap, and need precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recur.errors import RecurError
from recur.nn.vision import PATCH, PIXEL_MEAN, PIXEL_SCALE, Block, Shrink, Trunk, channels_last

OPSET = 17
STRUCTURE = "recur.trunk"  # the metadata entry with widths and depths
Ranges = Mapping[str, tuple[float, float]]  # least and greatest value of each point of the network


class Graph:
    """Nodes and weights as they come. `ranges`: compute in 8-bit numbers; None: in floating point."""

    def __init__(self, ranges: Ranges | None = None, *, quantize: bool = True, prefix: str = "") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.points: dict[str, str] = {}  # name of a place where values become 8-bit -> tensor before it
        self.scales: dict[str, float] = {}  # tensor that comes out of 8-bit numbers -> what 1 of them stands for
        self.ranges, self.quantize, self.prefix = ranges, quantize, prefix
        self.count = 0

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        self.count += 1
        output = f"{self.prefix}{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def point(self, x: str, name: str) -> str:
        """The place `name`: with ranges, values are rounded to 8 bits here."""
        self.points[name] = x
        if self.ranges is None:
            return x
        low, high = self.ranges[name]
        low, high = min(low, 0.0), max(high, 1e-6)  # 0 must be one of the 256 values: padding is made of it
        scale = np.float32((high - low) / 255)
        grain = self._grain(name, scale, np.uint8(round(-low / float(scale))))
        return self._real(self.add("QuantizeLinear", [x, *grain]), grain, float(scale))

    def _grain(self, name: str, scale: np.float32, zero: np.uint8) -> list[str]:
        return [self.constant(f"{name}.scale", np.array(scale)), self.constant(f"{name}.zero", np.array(zero))]

    def _real(self, x: str, grain: list[str], scale: float) -> str:
        """What 8-bit numbers stand for."""
        real = self.add("DequantizeLinear", [x, *grain])
        self.scales[real] = scale
        return real

    def weight(self, name: str, value: NDArray[np.float32], *, whole: bool) -> tuple[str, NDArray[np.float32]]:
        """A weight and the scale of each of its output channels. `whole`: it meets 8-bit numbers."""
        shape = (-1,) + (1,) * (value.ndim - 1)
        scale = np.maximum(np.abs(value).reshape(len(value), -1).max(1), 1e-12).astype(np.float32) / 127
        if not self.quantize:
            return self.constant(name, value), scale
        stored = self.constant(name, np.rint(value / scale.reshape(shape)).clip(-127, 127).astype(np.int8))
        if whole:
            return self.add("DequantizeLinear", [stored, self.constant(f"{name}.scale", scale)], axis=0), scale
        real = self.add("Cast", [stored], to=TensorProto.FLOAT)
        return self.add("Mul", [real, self.constant(f"{name}.scale", scale.reshape(shape))]), scale

    def conv(self, x: str, prefix: str, module: torch.nn.Conv2d) -> str:
        if module.bias is None:
            raise RecurError(f"{prefix}: a convolution without bias; expected a folded trunk (Trunk.fold)")
        value, bias = (each.detach().float().contiguous().numpy() for each in (module.weight, module.bias))
        weight, scale = self.weight(f"{prefix}.weight", value, whole=x in self.scales)
        if x in self.scales:  # then sums are whole numbers, and the bias is one of them
            unit = scale * np.float32(self.scales[x])
            stored = self.constant(f"{prefix}.bias", np.rint(bias / unit).clip(-(2**31), 2**31 - 1).astype(np.int32))
            added = self.add("DequantizeLinear", [stored, self.constant(f"{prefix}.bias.scale", unit)], axis=0)
        else:
            added = self.constant(f"{prefix}.bias", bias)
        padding, stride = int(module.padding[0]), module.stride[0]
        return self.add(
            "Conv",
            [x, weight, added],
            kernel_shape=list(module.kernel_size),
            pads=[padding] * 4,
            strides=[stride] * 2,
        )

    def stem_input(self) -> str:
        """Normalised pixels with each patch's pixels as channels: [B, PATCH * PATCH * 3, Y / PATCH, X / PATCH]."""
        if self.ranges is None:
            x = self.add("Sub", ["pixels", self.constant("pixel_mean", np.array(PIXEL_MEAN, np.float32))])
            x = self.add("Mul", [x, self.constant("pixel_scale", np.array(1 / PIXEL_SCALE, np.float32))])
            return self.add("SpaceToDepth", [x], blocksize=PATCH)

        # Bytes with colours last, as pictures come; older ONNX Runtimes (1.20) lack SpaceToDepth for them. The
        # normalisation costs nothing: it is itself a scale and a zero point.
        def shape(name: str, *sides: int) -> str:
            return self.constant(name, np.array(sides, np.int64))

        x = self.add("Reshape", ["pixels", shape("patch_columns", 0, 0, -1, 3 * PATCH)])
        x = self.add("Transpose", [x], perm=[0, 2, 1, 3])
        x = self.add("Reshape", [x, shape("patch_rows", 0, 0, -1, PATCH, 3 * PATCH)])
        x = self.add("Transpose", [x], perm=[0, 2, 1, 3, 4])
        x = self.add("Reshape", [x, shape("patches", 0, 0, 0, 3 * PATCH * PATCH)])
        x = self.add("Transpose", [x], perm=[0, 3, 1, 2])
        grain = self._grain("pixels", np.float32(1 / PIXEL_SCALE), np.uint8(PIXEL_MEAN))
        return self._real(x, grain, 1 / PIXEL_SCALE)


def _stem_for_space_to_depth(stem: Shrink) -> torch.nn.Conv2d:
    # PyTorch's pixel_unshuffle orders channels (colour, row, column), ONNX's SpaceToDepth (row, column, colour).
    conv = stem.conv
    weight = conv.weight.detach()
    out, _, ky, kx = weight.shape
    reordered = weight.reshape(out, 3, PATCH, PATCH, ky, kx).permute(0, 2, 3, 1, 4, 5).reshape(weight.shape)
    twin = torch.nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1)
    twin.weight.data = reordered.contiguous()
    if conv.bias is None:
        raise RecurError("the stem has no bias; expected a folded trunk (Trunk.fold)")
    twin.bias = conv.bias
    return twin


def emit_trunk(graph: Graph, trunk: Trunk) -> None:
    """All nodes from `pixels` to `features`."""
    x = graph.add("Relu", [graph.conv(graph.stem_input(), "stem.conv", _stem_for_space_to_depth(trunk.stem))])
    x = graph.point(x, "stem.out")
    last = len(trunk.layers) - 1
    for i, layer in enumerate(trunk.layers):
        prefix = f"layers.{i}"
        if isinstance(layer, Shrink):
            x = graph.add("Relu", [graph.conv(x, f"{prefix}.conv", layer.conv)])
        elif isinstance(layer, Block):
            y = graph.add("Relu", [graph.conv(x, f"{prefix}.conv1", layer.conv1)])
            y = graph.conv(graph.point(y, f"{prefix}.middle"), f"{prefix}.conv2", layer.conv2)
            y = graph.point(y, f"{prefix}.added")
            if layer.squeeze is not None:
                gate = graph.conv(graph.add("GlobalAveragePool", [y]), f"{prefix}.squeeze.down", layer.squeeze.down)
                gate = graph.conv(graph.add("Relu", [gate]), f"{prefix}.squeeze.up", layer.squeeze.up)
                y = graph.add("Mul", [y, graph.add("Sigmoid", [gate])])
            x = graph.add("Relu", [graph.add("Add", [x, y])])
        if i < last:
            x = graph.point(x, f"{prefix}.out")
    graph.add("Identity", [x])
    graph.nodes[-1].output[0] = "features"


def export_trunk(trunk: Trunk, *, quantize: bool = True, ranges: Ranges | None = None) -> bytes:
    """A folded trunk as ONNX: `pixels` -> `features` float [B, F, Y/32, X/32].

    `pixels` are float [B, 3, Y, X] in 0..255 when it computes in floating point; with the `ranges` of `watch_trunk`'s
    outputs it computes in 8-bit numbers, and they are uint8 [B, Y, X, 3]. `quantize`: weights are stored in 8 bits.
    """
    graph = Graph(ranges, quantize=quantize or ranges is not None)
    emit_trunk(graph, trunk)
    return _model(graph, trunk, [])


def watch_trunk(trunk: Trunk) -> bytes:
    """As `export_trunk` in floating point, but every point that `ranges` must name is an output of its name as well."""
    graph = Graph()
    emit_trunk(graph, trunk)
    for name, tensor in graph.points.items():
        graph.nodes.append(helper.make_node("Identity", [tensor], [name]))
    return _model(graph, trunk, list(graph.points))


def _model(graph: Graph, trunk: Trunk, watched: list[str]) -> bytes:
    if graph.ranges is None:
        pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, "Y", "X"])
    else:
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", "Y", "X", 3])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", trunk.channels, "gy", "gx"])
    others = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", "C", "y", "x"]) for name in watched]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "trunk", [pixels], [features, *others], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="recur",
    )
    structure = {"widths": list(trunk.widths), "depths": list(trunk.depths)}
    model.metadata_props.add(key=STRUCTURE, value=json.dumps(structure))
    onnx.checker.check_model(model)
    encoded: bytes = model.SerializeToString()
    return encoded


def is_trunk(encoded: bytes) -> bool:
    """Whether `export_trunk` wrote it."""
    return any(entry.key == STRUCTURE for entry in onnx.load_from_string(encoded).metadata_props)


def import_trunk(encoded: bytes) -> Trunk:
    """The folded trunk that `export_trunk` wrote, ready to be fine-tuned."""
    model = onnx.load_from_string(encoded)
    found = {entry.key: entry.value for entry in model.metadata_props}
    if STRUCTURE not in found:
        raise RecurError(
            "this ONNX encoder was not written by recur, so it cannot be fine-tuned; leave out --finetune-encoder"
        )
    structure = json.loads(found[STRUCTURE])
    trunk = Trunk(structure["widths"], structure["depths"]).fold()
    stored = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    state = trunk.state_dict()
    for name in state:
        value = stored[name].astype(np.float32)
        if f"{name}.scale" in stored:
            value = value * stored[f"{name}.scale"].reshape((-1,) + (1,) * (value.ndim - 1))
        if name == "stem.conv.weight":
            out, _, ky, kx = value.shape
            value = value.reshape(out, PATCH, PATCH, 3, ky, kx).transpose(0, 3, 1, 2, 4, 5).reshape(value.shape)
        state[name] = torch.from_numpy(np.ascontiguousarray(value))
    trunk.load_state_dict(state)
    return channels_last(trunk)

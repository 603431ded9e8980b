"""The trunk as an ONNX graph, and back.

Written node by node rather than traced: the graph is small, its weights keep their names (so that a bundle's
encoder can be fine-tuned again), and they are stored as 8-bit numbers per output channel. `Cast` and `Mul` restore
them; ONNX Runtime folds both into constants when it loads the file, so that the picture never pays for it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recur.errors import RecurError
from recur.nn.vision import PATCH, PIXEL_MEAN, PIXEL_SCALE, Block, Shrink, Trunk, channels_last

OPSET = 17


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.count = 0

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        self.count += 1
        output = f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, name: str, value: NDArray[np.float32], *, quantize: bool) -> str:
        if not quantize:
            return self.constant(name, value)
        shape = (-1,) + (1,) * (value.ndim - 1)
        scale = np.maximum(np.abs(value).reshape(len(value), -1).max(1), 1e-12).astype(np.float32) / 127
        stored = np.rint(value / scale.reshape(shape)).clip(-127, 127).astype(np.int8)
        whole = self.add("Cast", [self.constant(name, stored)], to=TensorProto.FLOAT)
        return self.add("Mul", [whole, self.constant(f"{name}.scale", scale.reshape(shape))])

    def conv(self, x: str, prefix: str, module: torch.nn.Conv2d, *, quantize: bool) -> str:
        weight = module.weight.detach().float().contiguous().numpy()
        if module.bias is None:
            raise RecurError(f"{prefix}: a convolution without bias; expected a folded trunk (Trunk.fold)")
        bias = self.constant(f"{prefix}.bias", module.bias.detach().float().numpy())
        padding, stride = int(module.padding[0]), module.stride[0]
        return self.add(
            "Conv",
            [x, self.weight(f"{prefix}.weight", weight, quantize=quantize), bias],
            kernel_shape=list(module.kernel_size),
            pads=[padding] * 4,
            strides=[stride] * 2,
        )


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


def export_trunk(trunk: Trunk, *, quantize: bool = True) -> bytes:
    """A folded trunk as ONNX: `pixels` float [B, 3, Y, X] in 0..255 -> `features` [B, F, Y/32, X/32]."""
    graph = _Graph()
    x = graph.add("Sub", ["pixels", graph.constant("pixel_mean", np.array(PIXEL_MEAN, np.float32))])
    x = graph.add("Mul", [x, graph.constant("pixel_scale", np.array(1 / PIXEL_SCALE, np.float32))])
    x = graph.add("SpaceToDepth", [x], blocksize=PATCH)
    x = graph.add("Relu", [graph.conv(x, "stem.conv", _stem_for_space_to_depth(trunk.stem), quantize=quantize)])
    for i, layer in enumerate(trunk.layers):
        prefix = f"layers.{i}"
        if isinstance(layer, Shrink):
            x = graph.add("Relu", [graph.conv(x, f"{prefix}.conv", layer.conv, quantize=quantize)])
        elif isinstance(layer, Block):
            y = graph.add("Relu", [graph.conv(x, f"{prefix}.conv1", layer.conv1, quantize=quantize)])
            y = graph.conv(y, f"{prefix}.conv2", layer.conv2, quantize=quantize)
            if layer.squeeze is not None:
                gate = graph.add("GlobalAveragePool", [y])
                gate = graph.conv(gate, f"{prefix}.squeeze.down", layer.squeeze.down, quantize=quantize)
                gate = graph.conv(
                    graph.add("Relu", [gate]), f"{prefix}.squeeze.up", layer.squeeze.up, quantize=quantize
                )
                y = graph.add("Mul", [y, graph.add("Sigmoid", [gate])])
            x = graph.add("Relu", [graph.add("Add", [x, y])])
    graph.nodes[-1].output[0] = "features"
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "trunk",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["B", 3, "Y", "X"])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", trunk.channels, "gy", "gx"])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=9,
        producer_name="recur",
    )
    structure = {"widths": list(trunk.widths), "depths": list(trunk.depths)}
    model.metadata_props.add(key="recur.trunk", value=json.dumps(structure))
    onnx.checker.check_model(model)
    encoded: bytes = model.SerializeToString()
    return encoded


def import_trunk(encoded: bytes) -> Trunk:
    """The folded trunk that `export_trunk` wrote, ready to be fine-tuned."""
    model = onnx.load_from_string(encoded)
    found = {entry.key: entry.value for entry in model.metadata_props}
    if "recur.trunk" not in found:
        raise RecurError(
            "this ONNX encoder was not written by recur, so it cannot be fine-tuned; leave out --finetune-encoder"
        )
    structure = json.loads(found["recur.trunk"])
    trunk = Trunk(structure["widths"], structure["depths"]).fold()
    stored = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    state = trunk.state_dict()
    for name in state:
        value = stored[name].astype(np.float32)
        if f"{name}.scale" in stored:
            value = value * stored[f"{name}.scale"]
        if name == "stem.conv.weight":
            out, _, ky, kx = value.shape
            value = value.reshape(out, PATCH, PATCH, 3, ky, kx).transpose(0, 3, 1, 2, 4, 5).reshape(value.shape)
        state[name] = torch.from_numpy(np.ascontiguousarray(value))
    trunk.load_state_dict(state)
    return channels_last(trunk)

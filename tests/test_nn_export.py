"""The trunk: folding changes nothing, ONNX Runtime computes the same, and the file can be read back."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from recur.errors import RecurError  # noqa: E402
from recur.nn.export import export_trunk, import_trunk  # noqa: E402
from recur.nn.vision import Trunk  # noqa: E402


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(0)
    made = Trunk((8, 16, 16, 24), (1, 1, 2, 1))
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(value, 0.5, 0.3)  # type: ignore[arg-type]
    return made.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (2, 3, 64, 96)).astype(np.float32))


def test_folding_changes_nothing(trunk: Trunk, pixels: torch.Tensor) -> None:
    folded = trunk.fold()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        before, after = trunk(pixels), folded(pixels)
    assert before.shape == (2, 24, 2, 3)
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))


def test_onnx_computes_the_same(trunk: Trunk, pixels: torch.Tensor) -> None:
    folded = trunk.fold()
    session = onnxruntime.InferenceSession(export_trunk(folded, quantize=False), providers=["CPUExecutionProvider"])
    (found,) = session.run(["features"], {"pixels": pixels.numpy()})
    expected = folded(pixels).detach().numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_quantized_file_is_small_close_and_read_back_exactly(trunk: Trunk, pixels: torch.Tensor) -> None:
    folded = trunk.fold()
    encoded = export_trunk(folded)
    assert len(encoded) < 0.4 * len(export_trunk(folded, quantize=False))
    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    (found,) = session.run(["features"], {"pixels": pixels.numpy()})
    expected = folded(pixels).detach().numpy()
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.05 * expected.std()
    again = import_trunk(encoded)(pixels).detach().numpy()
    assert np.abs(found - again).max() < 1e-4 * np.abs(expected).max()


def test_a_trunk_that_is_not_folded_is_refused(trunk: Trunk) -> None:
    with pytest.raises(RecurError, match="folded"):
        export_trunk(trunk)


def test_a_foreign_graph_is_refused() -> None:
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out]))
    with pytest.raises(RecurError, match="not written by recur"):
        import_trunk(model.SerializeToString())

"""The encoder: an ONNX graph on the CPU, its pixels and its output in the shapes that the rest expects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import CELL, CHANNELS, tiny_encoder

from recur.engine.vision import Encoder, exact_bytes, processors
from recur.errors import RecurError

onnx = pytest.importorskip("onnx")


def pixels(count: int = 3, rows: int = 48, columns: int = 48) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, rows, columns, 3)).astype(np.uint8)


def expected_cells(given: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The tiny encoder as plain NumPy: [B, R, F]."""
    model = onnx.load_from_string(tiny_encoder())
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    kernel = stored["stored"].astype(np.float64) * stored["scale"]
    count, rows, columns, _ = given.shape
    cells = given.astype(np.float64).reshape(count, rows // CELL, CELL, columns // CELL, CELL, 3)
    out = np.einsum("byixjc,fcij->byxf", cells, kernel)
    return np.maximum(out, 0).reshape(count, -1, CHANNELS)


def test_a_grid_comes_row_by_row() -> None:
    encoder = Encoder(tiny_encoder(), threads=1)
    given = pixels(columns=64)
    features = encoder(given)
    assert encoder.grid == (3, 4)
    assert features.shape == (3, 12, CHANNELS)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    np.testing.assert_allclose(features, expected_cells(given), rtol=1e-4, atol=1e-4)


def test_a_vector_is_one_cell() -> None:
    encoder = Encoder(tiny_encoder(grid=False), threads=1)
    features = encoder(pixels())
    assert encoder.grid == (1, 1)
    np.testing.assert_allclose(features, expected_cells(pixels()).mean(1, keepdims=True), rtol=1e-4, atol=1e-4)


def test_mean_and_deviation_of_the_channels() -> None:
    mean, std = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]
    features = Encoder(tiny_encoder(), mean=mean, std=std, threads=1)(pixels())
    np.testing.assert_allclose(
        features, expected_cells((pixels() - np.array(mean)) / np.array(std)), rtol=1e-3, atol=1e-4
    )


def test_a_graph_with_a_fixed_batch_is_fed_in_parts() -> None:
    given = pixels(5)
    features = Encoder(tiny_encoder(batch=2), threads=1)(given)
    np.testing.assert_allclose(features, expected_cells(given), rtol=1e-4, atol=1e-4)


def test_a_graph_that_takes_bytes() -> None:
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=tensor.FLOAT),
        helper.make_node("AveragePool", ["numbers"], ["y"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("x", tensor.UINT8, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("y", tensor.FLOAT, ["B", 3, 2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    given = pixels(2, 8, 8)
    features = Encoder(model.SerializeToString(), input="x", output="y", threads=1)(given)
    means = given.astype(float).reshape(2, 2, 4, 2, 4, 3).mean((2, 4)).reshape(2, 4, 3)
    np.testing.assert_allclose(features, means, rtol=1e-5)


def test_a_file_is_as_good_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "some encoder.onnx"
    path.write_bytes(tiny_encoder())
    np.testing.assert_array_equal(Encoder(path, threads=1)(pixels()), Encoder(tiny_encoder(), threads=1)(pixels()))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"input": "image"}, "inputs pixels; expected one, named 'image'"), ({"output": "map"}, "outputs features")],
)
def test_names_that_are_not_there(options: dict[str, str], said: str) -> None:
    with pytest.raises(RecurError, match=said):
        Encoder(tiny_encoder(), threads=1, **options)


@pytest.mark.parametrize("graph", [b"", b"not a graph at all", tiny_encoder()[:300]])
def test_what_is_no_graph_is_refused(graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RecurError, match="cannot be loaded"):
        Encoder(graph, threads=1)
    assert capfd.readouterr() == ("", "")


def test_a_graph_must_not_read_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(np.ones(CHANNELS, np.float32).tobytes())
    model = onnx.load_from_string(tiny_encoder())
    outside = onnx.TensorProto(name="scale", data_type=1, dims=[CHANNELS, 1, 1, 1], data_location=1)
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "secret.bin"
    kept = [each for each in model.graph.initializer if each.name != "scale"]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, outside])
    with pytest.raises(RecurError, match="cannot be loaded"):
        Encoder(model.SerializeToString(), threads=1)
    assert capfd.readouterr().err == ""


def test_pixels_of_another_shape_are_refused() -> None:
    encoder = Encoder(tiny_encoder(), threads=1)
    with pytest.raises(RecurError, match=r"expected \[pictures, rows, columns, 3\]"):
        encoder(pixels()[0])
    with pytest.raises(RecurError, match="refuses pixels of shape"):
        encoder(pixels(1, 8, 8))


def test_other_output_shapes_are_refused() -> None:
    helper, tensor = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["pixels"], ["features"], axes=[1], keepdims=0)],
        "flat",
        [helper.make_tensor_value_info("pixels", tensor.FLOAT, ["B", 3, "Y", "X"])],
        [helper.make_tensor_value_info("features", tensor.FLOAT, ["B", "Y", "X"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(RecurError, match="expected a grid"):
        Encoder(model.SerializeToString(), threads=1)(pixels())


def test_products_of_bytes_are_trusted_where_they_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(name: str, isas: tuple[str, ...], flags: str) -> bool:
        monkeypatch.setattr("platform.machine", lambda: name)
        monkeypatch.setattr("recur.engine.core.where", lambda: SimpleNamespace(isas=isas))
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: flags)
        return exact_bytes()

    assert machine("arm64", (), "")
    assert machine("AMD64", ("avx2", "avx512_vnni"), "")
    assert machine("x86_64", ("avx2",), "flags: avx2 avx_vnni")
    assert not machine("x86_64", ("avx2",), "flags: avx2")

    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert not exact_bytes()


def test_processors_is_at_least_one() -> None:
    assert processors() >= 1

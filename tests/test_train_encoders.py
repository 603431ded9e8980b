"""Encoders of every kind in one form, and their features on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

torch = pytest.importorskip("torch")

import recur.hub  # noqa: E402
from recur.bundle import read_meta  # noqa: E402
from recur.engine.vision import Encoder  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.nn.export import export_trunk  # noqa: E402
from recur.nn.vision import Trunk  # noqa: E402
from recur.train.checkpoint import StopRequest  # noqa: E402
from recur.train.encoders import FeatureEncoder, open_encoder  # noqa: E402
from recur.train.feature_cache import cache_features  # noqa: E402
from recur.train.graph import INPUT, OUTPUT, token_grid  # noqa: E402


def pictures(count: int, size: int) -> Any:
    return np.random.default_rng(7).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def make_graph(
    path: Path,
    *,
    size: int = 8,
    last: bool = False,
    batch: int | str = "B",
    element: int = TensorProto.FLOAT,
    tokens: int = 0,
    name: str = "image",
) -> Path:
    """A graph with the outputs `map`, the pixels averaged over 4x4 patches, and `scores` [B, 5].

    With `tokens`, `map` is [B, tokens + R, 3]: so many tokens of zeros, then the regions.
    """
    shape = [batch, size, size, 3] if last else [batch, 3, size, size]
    weights = [numpy_helper.from_array(np.ones((3, 5), np.float32), "head")]
    nodes = [helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT)]
    source = "wide"
    if last:
        nodes.append(helper.make_node("Transpose", ["wide"], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    grid = "grid" if last or tokens else "map"
    nodes.append(helper.make_node("AveragePool", [source], [grid], kernel_shape=[4, 4], strides=[4, 4]))
    if last:
        nodes.append(helper.make_node("Transpose", ["grid"], ["map"], perm=[0, 2, 3, 1]))
    if tokens:
        regions = (size // 4) ** 2
        weights.append(numpy_helper.from_array(np.array([0, 3, regions], np.int64), "flat"))

        weights.append(numpy_helper.from_array(np.array([0, tokens, 0, 0, 0, 0], np.int64), "pads"))
        nodes += [
            helper.make_node("Reshape", ["grid", "flat"], ["cells"]),
            helper.make_node("Transpose", ["cells"], ["regions"], perm=[0, 2, 1]),
            helper.make_node("Pad", ["regions", "pads"], ["map"]),
        ]
    nodes += [
        helper.make_node("ReduceMean", [grid], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("map", "scores")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(name, element, shape)], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def patch_means(pixels: Any, patch: int = 4) -> Any:
    """[B, Y, X, 3] -> [B, R, 3]: what `map` should be."""
    batch, side = pixels.shape[0], pixels.shape[1] // patch
    return pixels.astype(np.float64).reshape(batch, side, patch, side, patch, 3).mean((2, 4)).reshape(batch, -1, 3)


def as_the_runtime_sees(encoder: FeatureEncoder, path: Path, pixels: Any) -> Any:
    encoder.export_onnx(path)
    described = encoder.describe()
    return Encoder(path.read_bytes(), input=described["input"], output=described["output"])(pixels)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"last": True},
        {"batch": 1},
        {"element": TensorProto.UINT8},
        {"element": TensorProto.FLOAT16},
        {"tokens": 1},
        {"tokens": 5, "size": 12},
        {"name": INPUT},
        {"last": True, "element": TensorProto.UINT8, "batch": 3},
    ],
    ids=str,
)
def test_every_kind_of_graph_comes_out_the_same(tmp_path: Path, options: Any) -> None:
    encoder = open_encoder(str(make_graph(tmp_path / "e.onnx", **options)), output_name="map")
    size = options.get("size", 8)
    pixels, side = pictures(3, size), size // 4
    assert (encoder.size, encoder.channels, encoder.grid, encoder.regions) == (size, 3, (side, side), side * side)
    assert encoder.module is None
    np.testing.assert_allclose(
        encoder.features(pixels), patch_means(pixels), rtol=1e-3 if "element" in options else 1e-6
    )
    np.testing.assert_allclose(as_the_runtime_sees(encoder, tmp_path / "out.onnx", pixels), encoder.features(pixels))
    written = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert [o.name for o in written.graph.output] == [OUTPUT]
    assert not any("head" in entry.name for entry in written.graph.initializer), "the classifier stays behind"


def test_vector_output_and_tensors_inside(tmp_path: Path) -> None:
    path = str(make_graph(tmp_path / "e.onnx"))
    pixels = pictures(2, 8)
    vector = open_encoder(path, output_name="scores")
    assert vector.grid == (1, 1)
    assert vector.describe()["grid"] == [1, 1]
    assert vector.channels == 5
    expected = np.repeat(patch_means(pixels).mean(1).sum(-1)[:, None, None], 5, 2)
    np.testing.assert_allclose(vector.features(pixels), expected, rtol=1e-5)
    assert open_encoder(path, output_name="mean").channels == 3
    assert vector.identity != open_encoder(path, output_name="mean").identity
    assert vector.identity == open_encoder(path, output_name="scores").identity


def test_normalisation_goes_into_the_graph(tmp_path: Path) -> None:
    path = str(make_graph(tmp_path / "e.onnx"))
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 5.0)
    encoder = open_encoder(path, output_name="map", mean=mean, std=std)
    pixels = pictures(2, 8)
    np.testing.assert_allclose(
        as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), (patch_means(pixels) - mean) / std, rtol=1e-5
    )
    assert encoder.describe()["mean"] == [0, 0, 0]
    assert encoder.describe()["std"] == [1, 1, 1]
    for wrong in ({"std": (1.0, 0.0, 1.0)}, {"mean": (1.0, 2.0)}):
        with pytest.raises(RecurError, match="one number for each of red, green and blue"):
            open_encoder(path, output_name="map", **wrong)  # type: ignore[arg-type]


def test_refusals_of_graphs(tmp_path: Path) -> None:
    path = str(make_graph(tmp_path / "e.onnx"))
    for match, spec, options in (
        (r"has the outputs map \[.*\], scores \[.*\]; name one", path, {}),
        ("no output 'nothing'; it has map", path, {"output_name": "nothing"}),
        ("pictures are 8 x 8, got size 9", path, {"output_name": "map", "size": 9}),
        ("no such file", str(tmp_path / "missing.onnx"), {}),
        ("above 0", path, {"size": 0}),
        ("output_name can be given for an .onnx file only", "embedded", {"output_name": "map"}),
        ("form no square grid", str(make_graph(tmp_path / "t.onnx", tokens=3)), {"output_name": "map"}),
    ):
        with pytest.raises(RecurError, match=match):
            open_encoder(spec, **options)  # type: ignore[arg-type]
    (tmp_path / "broken.onnx").write_bytes(Path(path).read_bytes()[:100])
    with pytest.raises(RecurError, match="not a whole ONNX file"):
        open_encoder(str(tmp_path / "broken.onnx"))
    two = onnx.load(path)
    two.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["B", 4]))
    onnx.save(two, tmp_path / "two.onnx")
    with pytest.raises(RecurError, match=r"inputs image \[B, 3, 8, 8\], mask \[B, 4\], expected one picture"):
        open_encoder(str(tmp_path / "two.onnx"))
    with pytest.raises(RecurError, match=r"got uint8 \[1, 9, 9, 3\]"):
        open_encoder(path, output_name="map").features(pictures(1, 9))


def test_token_grid() -> None:
    assert [token_grid(n, name="x") for n in (49, 50, 197, 198, 261, 1)] == [
        (0, 7), (1, 7), (1, 14), (2, 14), (5, 16), (0, 1),
    ]  # fmt: skip


def test_the_trunk_can_be_trained_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = Trunk((8, 8), (1, 1)).fold()
    (tmp_path / "trunk.onnx").write_bytes(export_trunk(trunk))
    encoder = open_encoder(str(tmp_path / "trunk.onnx"), size=64)
    assert encoder.module is not None
    assert encoder.size == 64
    pixels = pictures(2, 64)
    before = encoder.identity
    seen = encoder.features(pixels)
    np.testing.assert_allclose(as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), seen, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.mul_(1.1)
    assert encoder.identity != before
    later = encoder.features(pixels)
    assert not np.allclose(later, seen)
    # 8-bit weights are not exactly those of the module.
    np.testing.assert_allclose(
        as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), later, atol=0.05 * np.abs(later).max()
    )


def test_the_encoder_of_a_bundle_and_the_embedded_one(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder(str(tiny_bundle))
    described = read_meta(tiny_bundle)["encoder"]
    assert (encoder.size, encoder.channels) == (described["size"], described["channels"])
    pixels = pictures(2, encoder.size)
    stored = Encoder((tiny_bundle / "encoder.onnx").read_bytes())
    np.testing.assert_allclose(encoder.features(pixels), stored(pixels), rtol=1e-5)
    monkeypatch.setattr(recur.hub, "EMBEDDED", tiny_bundle.parent)
    assert open_encoder("embedded").identity == encoder.identity
    monkeypatch.setattr(recur.hub, "EMBEDDED", tiny_bundle / "nothing")
    with pytest.raises(RecurError, match="comes without a captioner"):
        open_encoder("embedded")


@pytest.mark.data
def test_the_teacher(tmp_path: Path) -> None:
    path = Path(os.environ.get("RECUR_DATA", "")) / "teacher" / "mobilenet_v2_1.0_224.onnx"
    if "RECUR_DATA" not in os.environ or not path.is_file():
        pytest.skip("RECUR_DATA names no folder with the teacher")
    with pytest.raises(RecurError, match=r"outputs features \[B, 1280, 7, 7\], probabilities \[B, 1001\]; name one"):
        open_encoder(str(path))
    encoder = open_encoder(str(path), output_name="features")
    assert (encoder.size, encoder.channels, encoder.grid) == (224, 1280, (7, 7))
    pixels = pictures(1, 224)
    whole = Encoder(path)(pixels)
    np.testing.assert_allclose(encoder.features(pixels), whole, atol=1e-4)
    np.testing.assert_allclose(as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), whole, atol=1e-4)
    assert (tmp_path / "o.onnx").stat().st_size < path.stat().st_size - 1_000_000, "the classifier stays behind"


# ---------------------------------------------------------------------------------------------------- Hugging Face


def save_hugging_face(folder: Path, kind: str) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "vit":
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=8,
        )
    elif kind == "clip":
        part = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.CLIPConfig(
            vision_config={**part, "image_size": 32, "patch_size": 8}, text_config={**part, "vocab_size": 50}
        )
    elif kind == "resnet":
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    else:
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50
        )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


PROCESSOR = """{"do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true,
 "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7], "size": {"shortest_edge": 32}}"""


@pytest.mark.parametrize("kind", ["vit", "resnet", "clip"])
def test_hugging_face_backbones(tmp_path: Path, kind: str, capfd: Any) -> None:
    folder = save_hugging_face(tmp_path / kind, kind)
    (folder / "preprocessor_config.json").write_text(PROCESSOR)
    encoder = open_encoder(str(folder))
    assert (encoder.size, encoder.channels, encoder.grid) == (32, 16, (4, 4))
    pixels = pictures(3, 32)
    seen = encoder.features(pixels)
    model = encoder.module.model.eval()  # type: ignore[union-attr]
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.5, 0.6, 0.7])
    planes = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        hidden = model(pixel_values=planes).last_hidden_state
    expected = hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden[:, 1:]
    np.testing.assert_allclose(seen, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), seen, atol=1e-3)
    assert encoder.module is not None
    assert not any("Loading" in part for part in capfd.readouterr())


def test_hugging_face_other_size_and_no_processor(tmp_path: Path) -> None:
    encoder = open_encoder(str(save_hugging_face(tmp_path / "vit", "vit")), size=48)
    assert encoder.grid == (6, 6)
    pixels = pictures(2, 48)
    np.testing.assert_allclose(
        as_the_runtime_sees(encoder, tmp_path / "o.onnx", pixels), encoder.features(pixels), atol=1e-3
    )


def test_hugging_face_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(RecurError, match="does not take pictures; name a vision model"):
        open_encoder(str(save_hugging_face(tmp_path / "bert", "bert")))
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("nobody/has-this-model", str(tmp_path / "no" / "folder")):
        with pytest.raises(RecurError, match="as a Hugging Face model it cannot be loaded"):
            open_encoder(name)


# ---------------------------------------------------------------------------------------------- features on disk


@pytest.fixture
def collection(tmp_path: Path) -> list[Path]:
    paths = []
    for i, pixels in enumerate(pictures(7, 8)):
        paths.append(tmp_path / f"picture {i}.png")
        Image.fromarray(pixels).save(paths[-1])
    paths[3].write_bytes(b"not a picture")
    return paths


def test_cached_features(tmp_path: Path, collection: list[Path]) -> None:
    encoder = open_encoder(str(make_graph(tmp_path / "e.onnx")), output_name="map")
    cache = cache_features(encoder, collection, tmp_path / "cache", batch=2)
    assert cache.features.shape == (7, 2, 4, 3)
    assert cache.features.dtype == np.float16
    assert cache.complete
    assert cache.kept.tolist() == [0, 1, 2, 4, 5, 6]
    assert [problem.path for problem in cache.problems] == [str(collection[3])]
    pixels = pictures(7, 8)[cache.kept]
    np.testing.assert_allclose(cache.features[cache.kept, 0], patch_means(pixels), rtol=1e-3)
    np.testing.assert_allclose(cache.features[cache.kept, 1], patch_means(pixels[:, :, ::-1]), rtol=1e-3)
    assert not cache.features[3].any()

    class Blind(FeatureEncoder):
        def features(self, pixels: Any) -> Any:
            raise AssertionError("computed again")

    encoder.__class__ = Blind
    again = cache_features(encoder, collection, tmp_path / "cache", batch=2)
    assert np.array_equal(again.features, cache.features)
    assert again.kept.tolist() == cache.kept.tolist()


def test_views_of_a_cache_are_the_picture_its_mirror_image_and_crops(tmp_path: Path, collection: list[Path]) -> None:
    encoder = open_encoder(str(make_graph(tmp_path / "e.onnx")), output_name="map")
    four = cache_features(encoder, collection, tmp_path / "four", views=4)
    two = cache_features(encoder, collection, tmp_path / "two")
    assert np.array_equal(four.features[:, :2], two.features)
    crops = four.features[four.kept, 2:].astype(np.float32)
    assert (np.abs(crops - four.features[four.kept, :1]).max((2, 3)) > 1e-3).mean() > 0.5  # a crop may be the whole
    whole = four.features[four.kept, 0].astype(np.float32)
    assert np.abs(crops.mean((1, 2)) - whole.mean(1)).max() < 0.5 * np.abs(whole.mean(1)).max()


def test_stopped_cache_goes_on(tmp_path: Path, collection: list[Path]) -> None:
    encoder = open_encoder(str(make_graph(tmp_path / "e.onnx")), output_name="map")
    stop = StopRequest()
    stop.request("test")
    part = cache_features(encoder, collection, tmp_path / "cache", batch=2, views=1, stop=stop)
    assert not part.complete
    assert part.kept.tolist() == [0]
    whole = cache_features(encoder, collection, tmp_path / "cache", batch=2, views=1)
    assert whole.complete
    assert whole.kept.tolist() == [0, 1, 2, 4, 5, 6]
    straight = cache_features(encoder, collection, tmp_path / "other", batch=2, views=1)
    assert np.array_equal(whole.features, straight.features)


def test_refusals_of_caches(tmp_path: Path, collection: list[Path]) -> None:
    path = str(make_graph(tmp_path / "e.onnx"))
    encoder = open_encoder(path, output_name="map")
    cache_features(encoder, collection, tmp_path / "cache")
    for other, paths, views in (
        (open_encoder(path, output_name="scores"), collection, 2),
        (encoder, collection[1:], 2),
        (encoder, collection, 1),
    ):
        with pytest.raises(RecurError, match="features of other pictures or of another encoder"):
            cache_features(other, paths, tmp_path / "cache", views=views)
    done = tmp_path / "cache" / "done.npy"
    done.write_bytes(done.read_bytes()[:-2])
    with pytest.raises(RecurError, match="broken feature cache"):
        cache_features(encoder, collection, tmp_path / "cache")
    with pytest.raises(RecurError, match=r"none of 1 pictures can be read; the first: .*picture 3.png"):
        cache_features(encoder, collection[3:4], tmp_path / "bad")

"""The encoder in 8-bit numbers: close to the one in floating point, kept only where captions stay as good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from helpers import random_weights, tiny_encoder, tiny_meta, tiny_vocabulary, write_tiny_bundle  # noqa: E402
from training import write_shapes  # noqa: E402

import recur  # noqa: E402
from recur.bundle import read_bundle, write_bundle  # noqa: E402
from recur.cli import main  # noqa: E402
from recur.data.captions import read_captions  # noqa: E402
from recur.data.text import Vocabulary  # noqa: E402
from recur.engine.vision import Encoder  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.nn.export import export_trunk, import_trunk, is_trunk, watch_trunk  # noqa: E402
from recur.nn.vision import Trunk  # noqa: E402
from recur.train import quantize  # noqa: E402
from recur.train.caption_data import make_split  # noqa: E402

WIDTHS = (8, 16, 16, 24)


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(0)
    made = Trunk(WIDTHS, (1, 1, 2, 1))
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return made.eval().fold()


def pixels(count: int = 4, rows: int = 64, columns: int = 96) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (count, rows // 8, columns // 8, 3))
    return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)


@pytest.fixture(scope="module")
def small(trunk: Trunk) -> bytes:
    return export_trunk(trunk, ranges=quantize.measure_ranges(trunk, [pixels()]))


def test_eight_bits_are_close_on_bytes_with_colours_last(trunk: Trunk, small: bytes) -> None:
    exact, rounded = Encoder(export_trunk(trunk, quantize=False)), Encoder(small)
    before, after = exact(pixels()), rounded(pixels())
    assert rounded.grid == (2, 3)
    assert np.sqrt(((before - after) ** 2).mean()) < 0.05 * before.std()
    np.testing.assert_array_equal(rounded(pixels())[1:2], rounded(pixels()[1:2]))


def test_every_3x3_convolution_works_on_eight_bits_and_nothing_else(small: bytes) -> None:
    graph = onnx.load_from_string(small).graph
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    kinds = {(tuple(node.attribute[0].ints), made_by[node.input[0]]) for node in graph.node if node.op_type == "Conv"}
    assert kinds == {
        ((3, 3), "DequantizeLinear"),
        ((1, 1), "GlobalAveragePool"),
        ((1, 1), "Relu"),
    }


def test_it_can_be_fine_tuned_again(trunk: Trunk, small: bytes) -> None:
    again = import_trunk(small)
    for name, value in trunk.state_dict().items():
        step = np.abs(value.numpy()).max() / 127
        assert np.abs(again.state_dict()[name].numpy() - value.numpy()).max() <= 0.51 * step + 1e-3, name
    ranges = quantize.measure_ranges(trunk, [pixels()])
    twice = Encoder(export_trunk(again, ranges=ranges))(pixels())
    once = Encoder(small)(pixels())
    assert np.abs(twice - once).max() < 0.05 * once.max()


def test_ranges_name_every_point_and_are_the_same_again(trunk: Trunk) -> None:
    first, second = (quantize.measure_ranges(trunk, [pixels()[:2], pixels()[2:]]) for _ in range(2))
    assert first == second
    assert "layers.0.added" in first
    assert first["layers.0.added"][0] < 0 < first["layers.0.added"][1]
    assert first["stem.out"][0] == 0
    outputs = {each.name for each in onnx.load_from_string(watch_trunk(trunk)).graph.output}
    assert outputs == {"features", *first}
    with pytest.raises(RecurError, match="no picture"):
        quantize.measure_ranges(trunk, [])


def test_trunks_are_told_from_other_graphs(small: bytes) -> None:
    assert is_trunk(small)
    assert not is_trunk(tiny_encoder())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes") / "data", count=24)


@pytest.fixture
def captioner(tmp_path: Path, trunk: Trunk) -> Path:
    """Random weights on a trunk of our own."""
    meta = tiny_meta()
    meta["encoder"] |= {"channels": WIDTHS[-1], "size": 64, "grid": [2, 2]}
    sizes = {key: meta[key] for key in ("cell", "hidden", "layers", "embedding", "attention")}
    weights = random_weights(0, **sizes, vocabulary=meta["vocabulary_size"], channels=WIDTHS[-1])
    words: Vocabulary = tiny_vocabulary()
    return write_bundle(tmp_path / "own", meta, weights, tokenizer=words, encoder=export_trunk(trunk), card="")


def test_an_existing_bundle_is_quantized_from_the_command_line(captioner: Path, shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    before = (captioner / "encoder.onnx").read_bytes()
    assert main(["train", "quantize", "--model", str(captioner), "--data", str(shapes), "--out", str(out)]) == 0
    assert (captioner / "encoder.onnx").read_bytes() == before
    found = read_bundle(out)
    assert found.meta["encoder"]["arithmetic"] == "int8"
    scores = found.meta["encoder"]["quantized"]["dev_cider_d"]
    assert set(scores["int8"]) == {"en", "zh"}
    assert all(scores["float32"][lang] - scores["int8"][lang] <= quantize.TOLERANCE for lang in scores["int8"])
    assert "8-bit whole numbers" in found.card
    assert (out / "weights.safetensors").read_bytes() == (captioner / "weights.safetensors").read_bytes()
    assert recur.load(out)([shapes / "images" / "003.png"], lang="en")[0].log_prob < 0


def test_it_is_left_alone_where_captions_get_worse(
    captioner: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_captions(shapes)
    scores = iter([{"en": 0.5, "zh": 0.5}, {"en": 0.6, "zh": 0.49}])
    monkeypatch.setattr(quantize, "_scores", lambda *_: next(scores))
    kept = quantize.quantize_encoder(captioner, train=make_split(found, "train"), dev=make_split(found, "dev"))
    assert not kept
    assert "dev CIDEr-D would lose en -10.00, zh +1.00" in capsys.readouterr().err
    assert read_bundle(captioner).meta["encoder"]["arithmetic"] == "float32"
    assert Encoder(captioner / "encoder.onnx")(pixels(1, 64, 64)).shape == (1, 4, WIDTHS[-1])


def test_what_cannot_be_quantized_is_refused(captioner: Path, shapes: Path, tmp_path: Path) -> None:
    foreign = write_tiny_bundle(tmp_path / "foreign")
    with pytest.raises(RecurError, match="not one of recur's own"):
        quantize.quantize_bundle(model=foreign, data=shapes, out=tmp_path / "x")
    data: Any = read_captions(shapes)
    split = make_split(data, "train")
    assert not quantize.quantize_encoder(foreign, train=split, dev=split)
    english = write_shapes(tmp_path / "english", count=8)
    lines = (english / "annotations.jsonl").read_text(encoding="utf-8").replace("captions_zh", "other")
    (english / "annotations.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises(RecurError, match="no captions in zh"):
        quantize.quantize_bundle(model=captioner, data=english, out=tmp_path / "x")

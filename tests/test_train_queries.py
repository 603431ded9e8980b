"""Detectors of `transformers`: their queries as regions of a captioner, and under new names as a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxes import write_boxed
from helpers import tiny_meta, tiny_vocabulary

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import recur  # noqa: E402
from recur.bundle import read_bundle, write_bundle  # noqa: E402
from recur.errors import RecurError  # noqa: E402
from recur.nn.queries import HuggingFaceRegions  # noqa: E402
from recur.predict.caption import spread  # noqa: E402
from recur.train.detect import train_detect  # noqa: E402
from recur.train.encoders import open_encoder  # noqa: E402


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random DETR for pictures of 64 pixels."""
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    backbone = transformers.ResNetConfig(**sizes, out_features=["stage2"])
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=backbone, use_pretrained_backbone=False, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=9, num_labels=5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("detr")
    transformers.DetrForObjectDetection(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    transformers.DetrImageProcessorPil(size=size).save_pretrained(folder)
    return str(folder)


def test_queries_are_the_regions_of_a_captioner(detr: str, tmp_path: Path, photos: list[Path]) -> None:
    eye = open_encoder(detr, size=64)
    assert isinstance(eye.module, HuggingFaceRegions)
    assert eye.grid == (9, 1)
    assert eye.channels == 16
    assert eye.describe()["regions"] == "regions"
    from helpers import random_weights

    meta = tiny_meta(encoder=eye.describe())
    sizes = {key: meta[key] for key in ("cell", "hidden", "layers", "embedding", "attention")}
    weights = random_weights(0, **sizes, vocabulary=meta["vocabulary_size"], channels=16)
    write_bundle(tmp_path / "b", meta, weights, tokenizer=tiny_vocabulary(), encoder=eye.to_onnx(), card="")
    captioner = recur.load(tmp_path / "b", threads=1)
    (caption,) = captioner(photos[:1])
    square = np.zeros((1, 3, 64, 64), np.float32)
    with torch.no_grad():
        _, boxes = eye.module.regions(torch.from_numpy(square))
    assert boxes.shape == (1, 9, 4)
    for word in caption.words:
        assert word.attention is not None
        assert word.attention.shape == (14, 14)
        assert word.attention.sum() == pytest.approx(1.0, abs=1e-3)
        assert word.region is not None
        x0, y0, x1, y1 = word.region
        assert 0 <= x0 <= x1 <= caption.width
        assert 0 <= y0 <= y1 <= caption.height


def test_attention_to_boxes_as_attention_to_cells() -> None:
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], np.float32)
    grid = spread(np.array([[0.75, 0.25]], np.float32), boxes)[0]
    assert grid[:7, :7].sum() == pytest.approx(0.75, abs=1e-5)
    assert grid[7:, 7:].sum() == pytest.approx(0.25, abs=1e-5)
    assert grid[:7, 7:].sum() == 0


def test_queries_learn_other_names(detr: str, tmp_path: Path) -> None:
    data = write_boxed(tmp_path / "d", count=8)
    out = train_detect(data=data, encoder=detr, out=tmp_path / "b", epochs=2, alike=("red", "green"))
    bundle = read_bundle(out)
    assert bundle.meta["classes"] == ["red", "green", "blue"]
    assert bundle.meta["results"]["dev"]["pictures"] == 2
    (found,) = recur.load(out, threads=1)(data / "images" / "000.png", min_score=0.0)
    assert 0 < len(found.objects) <= 27
    log = bundle.meta["training"]["log"]
    assert log[1]["classes"] < log[0]["classes"]


def tiny_transformer(kind: str, folder: Path) -> str:
    """A tiny random RT-DETR or D-FINE for pictures of 64 pixels, as saved by `save_pretrained`."""
    torch.manual_seed(0)
    stages: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    stages["out_features"] = ["stage2", "stage3", "stage4"]
    common: dict[str, Any] = {
        "encoder_hidden_dim": 16, "encoder_in_channels": [8, 16, 16], "encoder_ffn_dim": 16,
        "encoder_attention_heads": 2, "encoder_layers": 1, "d_model": 16, "num_queries": 9,
        "decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 16, "decoder_attention_heads": 2, "decoder_layers": 2,
        "num_denoising": 0, "num_labels": 5, "feat_strides": [8, 16, 32], "hidden_expansion": 1.0,
    }  # fmt: skip
    if kind == "RT-DETR":
        backbone = transformers.RTDetrResNetConfig(**stages, layer_type="basic")
        model = transformers.RTDetrForObjectDetection(transformers.RTDetrConfig(backbone_config=backbone, **common))
    else:
        backbone = transformers.HGNetV2Config(
            **stages, stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 8, 16], stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[8, 8, 16, 16], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
            stage_downsample=[False, True, True, True], stage_light_block=[False, False, True, True],
            stage_kernel_size=[3, 3, 3, 3],
        )  # fmt: skip
        model = transformers.DFineForObjectDetection(
            transformers.DFineConfig(backbone_config=backbone, depth_mult=0.34, **common)
        )
    with torch.no_grad():  # as they begin, all places look alike, and which of them are taken is chance
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.orthogonal_(parameter, gain=1.5)
    model.save_pretrained(folder)
    transformers.RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["RT-DETR", "D-FINE"])
def test_detectors_that_choose_where_their_queries_begin(kind: str, tmp_path: Path) -> None:
    data = write_boxed(tmp_path / "d", count=8)
    folder = tiny_transformer(kind, tmp_path / "model")
    out = train_detect(data=data, encoder=folder, out=tmp_path / "b", epochs=1)
    eye = open_encoder(folder, size=64)
    assert isinstance(eye.module, HuggingFaceRegions)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)  # no two places alike
    with torch.no_grad():
        _, boxes, _ = eye.module.look(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    detector = recur.load(out, threads=1)
    assert detector.size == 64
    ((_, found),) = detector.look(pixels[None])
    assert found == pytest.approx(boxes[0].numpy(), abs=1e-3)


def test_a_backbone_without_boxes_is_refused(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "resnet")
    with pytest.raises(RecurError, match="finds no objects"):
        train_detect(data=write_boxed(tmp_path / "d", count=4), encoder=str(tmp_path / "resnet"), out=tmp_path / "b")

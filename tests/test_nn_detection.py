"""The detection head: who answers for what, what it costs to be wrong, and the same numbers from ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boxes import write_seeing_captioner

torch = pytest.importorskip("torch")

from recur.bundle import read_bundle  # noqa: E402
from recur.engine.vision import Encoder  # noqa: E402
from recur.nn.detection import (  # noqa: E402
    DetectionHead,
    Evidence,
    assign,
    detection_loss,
    grid_of,
    overlaps,
    stage_ends,
    stage_maps,
    to_boxes,
    total_loss,
)
from recur.nn.export import export_trunk, import_trunk  # noqa: E402
from recur.nn.export_heads import (  # noqa: E402
    MAPS,
    attach,
    detection_emitter,
    import_detection_head,
    import_evidence,
    name_maps,
    ranges_of,
    watched_names,
    without_heads,
)
from recur.nn.vision import Trunk  # noqa: E402

SHAPES = [(8, 8), (4, 4), (2, 2)]
CHANNELS = (16, 16, 24)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    bundle = read_bundle(write_seeing_captioner(tmp_path_factory.mktemp("trunk") / "b"))
    assert bundle.encoder is not None
    return bundle.encoder


@pytest.fixture
def head() -> DetectionHead:
    torch.manual_seed(1)
    made = DetectionHead(CHANNELS, 3, (8, 8, 16))
    for parameter in made.parameters():  # beyond the small numbers that training starts with
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def pixels(count: int = 3) -> Any:
    return np.random.default_rng(2).integers(0, 256, (count, 64, 64, 3)).astype(np.uint8)


def test_the_maps_are_those_of_the_trunk() -> None:
    trunk = Trunk((8, 16, 16, 24), (1, 1, 2, 1)).eval()
    assert stage_ends(trunk) == (2, 5, 7)
    planes = torch.from_numpy(pixels()).permute(0, 3, 1, 2)
    maps = stage_maps(trunk, planes)
    assert [tuple(each.shape) for each in maps] == [(3, 16, 8, 8), (3, 16, 4, 4), (3, 24, 2, 2)]
    assert torch.equal(maps[-1], trunk(planes))


def test_boxes_from_distances() -> None:
    centres, cells = grid_of([(2, 4)])
    assert centres[5].tolist() == [0.375, 0.75]
    boxes = to_boxes(centres, cells, torch.ones(1, 8, 4))
    assert boxes[0, 5].tolist() == [0.125, 0.25, 0.625, 1.25]


def test_overlaps_by_hand() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    for other, iou, giou in (
        ([0.0, 0.0, 2.0, 2.0], 1.0, 1.0),
        ([1.0, 0.0, 3.0, 2.0], 1 / 3, 1 / 3),
        ([4.0, 0.0, 6.0, 2.0], 0.0, -1 / 3),
    ):
        got = overlaps(a, torch.tensor(other))
        assert got[0].item() == pytest.approx(iou, abs=1e-5)
        assert got[1].item() == pytest.approx(giou, abs=1e-5)


def test_cells_answer_for_the_object_they_lie_in() -> None:
    centres, cells = grid_of(SHAPES)
    truth = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0], [0.51, 0.01, 0.515, 0.015]])
    labels = torch.eye(3)
    boxes = to_boxes(centres, cells, torch.full((1, len(centres), 4), 1.5))[0]
    owner, strength = assign(torch.full((len(centres), 3), 0.1), boxes, centres, truth, labels)
    for cell in range(len(centres)):
        x, y = centres[cell].tolist()
        if owner[cell] == 0:
            assert x < 0.5
            assert y < 0.5
        if owner[cell] == 1:
            assert x > 0.5
            assert y > 0.5
    assert {*owner.tolist()} == {-1, 0, 1, 2}
    # The third object is smaller than a cell: the one nearest to it answers, and nothing else does.
    (tiny,) = (owner == 2).nonzero()[:, 0].tolist()
    middle = torch.tensor([0.5125, 0.0125])
    assert tiny == int((centres - middle).square().sum(1).argmin())
    assert strength[owner < 0].abs().max() == 0
    assert float(strength.min()) >= 0
    assert float(strength.max()) <= 1
    for each in (0, 1):  # the best cell of an object is asked for the overlap that it has
        mine = owner == each
        best = overlaps(boxes[mine], truth[each])[0].max()
        assert strength[mine].max().item() == pytest.approx(best.item(), abs=1e-4)


def test_no_object_and_five_thousand() -> None:
    centres, cells = grid_of(SHAPES)
    boxes = to_boxes(centres, cells, torch.ones(1, len(centres), 4))[0]
    scores = torch.full((len(centres), 2), 0.1)
    owner, strength = assign(scores, boxes, centres, torch.zeros(0, 4), torch.zeros(0, 2))
    assert owner.tolist() == [-1] * len(centres)
    assert strength.sum() == 0
    random = torch.Generator().manual_seed(0)
    corner = torch.rand((5000, 2), generator=random) * 0.9
    truth = torch.cat([corner, corner + 0.1], 1)
    labels = torch.eye(2)[torch.randint(0, 2, (5000,), generator=random)]
    owner, strength = assign(scores, boxes, centres, truth, labels)
    assert bool(((owner >= 0) == (strength > 0)).all())
    assert int((owner >= 0).sum()) > len(centres) // 2


def test_a_box_of_two_classes_teaches_both() -> None:
    centres, cells = grid_of(SHAPES)
    boxes = to_boxes(centres, cells, torch.full((1, len(centres), 4), 2.0))
    scores = torch.zeros(1, len(centres), 3, requires_grad=True)
    truth = (torch.tensor([[0.1, 0.1, 0.8, 0.8]]), torch.tensor([[1.0, 1.0, 0.0]]))
    losses = detection_loss(scores, boxes, centres, [truth])
    total_loss(losses).backward()
    assert scores.grad is not None
    pushed = scores.grad[0].amin(0)  # the score of some cell is to rise
    assert pushed[0] < 0
    assert pushed[1] < 0
    assert pushed[2] >= 0


def test_it_learns_one_picture() -> None:
    torch.manual_seed(0)
    head = DetectionHead(CHANNELS, 2, (8, 8, 16))
    maps = [torch.rand(1, c, *shape) for c, shape in zip(CHANNELS, SHAPES, strict=True)]
    truth = [(torch.tensor([[0.1, 0.2, 0.6, 0.9]]), torch.tensor([[0.0, 1.0]]))]
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(60):
        scores, boxes = head(maps)
        loss = total_loss(detection_loss(scores, boxes, grid_of(SHAPES)[0], truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores, boxes = head(maps)
    cell, label = divmod(int(scores[0].argmax()), 2)
    assert label == 1
    assert overlaps(boxes[0, cell], truth[0][0][0])[0] > 0.7


def test_one_graph_of_two_files(encoded: bytes, head: DetectionHead) -> None:
    part = attach(encoded, detection_emitter(head, SHAPES))
    both = Encoder(encoded + part, threads=1)
    alone = Encoder(encoded, threads=1)
    features, (scores, boxes) = both.both(pixels(), ["scores", "boxes"])
    assert np.array_equal(features, alone(pixels()))
    maps = Encoder(encoded + attach(encoded, name_maps), threads=1).raw(pixels(), MAPS)
    with torch.inference_mode():
        expected = head([torch.from_numpy(each) for each in maps])
        rounded = import_detection_head(encoded + part, DetectionHead(CHANNELS, 3, (8, 8, 16)))
        expected = rounded([torch.from_numpy(each) for each in maps])
    assert scores == pytest.approx(expected[0].sigmoid().numpy(), abs=1e-4)
    assert boxes == pytest.approx(expected[1].numpy(), abs=1e-4)


def test_what_the_whole_picture_says_is_a_factor(encoded: bytes, head: DetectionHead) -> None:
    torch.manual_seed(2)
    evidence = Evidence(CHANNELS[-1], 3)
    torch.nn.init.normal_(evidence.linear.weight, std=0.3)
    evidence.spread.copy_(torch.rand(CHANNELS[-1]) + 0.5)
    evidence.usual.copy_(torch.tensor([0.9, 0.4, 1.0]))
    evidence.power.copy_(torch.tensor([0.5, 0.25, 0.0]))
    part = attach(encoded, detection_emitter(head, SHAPES, evidence=evidence))
    plain = attach(encoded, detection_emitter(head, SHAPES))
    features, (scores, boxes) = Encoder(encoded + part, threads=1).both(pixels(), ["scores", "boxes"])
    before, same = Encoder(encoded + plain, threads=1).raw(pixels(), ["scores", "boxes"])
    rounded = import_evidence(encoded + part)
    assert rounded is not None
    planes = torch.from_numpy(features).transpose(1, 2).reshape(3, CHANNELS[-1], *SHAPES[-1])
    with torch.inference_mode():
        expected = rounded(torch.from_numpy(before), planes).numpy()
    assert scores == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(boxes, same)
    assert np.array_equal(scores[..., 2], before[..., 2])
    assert np.abs(scores[..., 0] - before[..., 0]).max() > 0.1
    assert scores.max() <= 1
    assert rounded.linear.weight.detach().numpy() == pytest.approx(evidence.linear.weight.detach().numpy(), abs=0.02)
    for name in ("spread", "usual", "power"):
        assert torch.equal(getattr(rounded, name), getattr(evidence, name)), name
    assert import_evidence(encoded + plain) is None


def test_the_head_comes_off(encoded: bytes, head: DetectionHead) -> None:
    part = attach(encoded, detection_emitter(head, SHAPES))
    assert without_heads(encoded) == encoded
    off = without_heads(encoded + part)
    assert len(off) < len(encoded) + 100
    assert np.array_equal(Encoder(off, threads=1)(pixels()), Encoder(encoded, threads=1)(pixels()))
    for name, value in import_trunk(encoded + part).state_dict().items():
        assert torch.equal(value, import_trunk(encoded).state_dict()[name]), name


def test_in_eight_bits(encoded: bytes, head: DetectionHead) -> None:
    watching = attach(encoded, detection_emitter(head, SHAPES, watch=True))
    names = watched_names(watching)
    values = Encoder(encoded + watching, threads=1).raw(pixels(16), names)
    ranges = {name: (float(each.min()), float(each.max())) for name, each in zip(names, values, strict=True)}
    whole = Encoder(encoded + attach(encoded, detection_emitter(head, SHAPES), ranges=ranges), threads=1)
    real = Encoder(encoded + attach(encoded, detection_emitter(head, SHAPES)), threads=1)
    scores, boxes = whole.raw(pixels(16), ["scores", "boxes"])
    expected = real.raw(pixels(16), ["scores", "boxes"])
    assert np.abs(scores - expected[0]).mean() < 0.02
    assert np.abs(boxes - expected[1]).mean() < 0.05
    assert not np.array_equal(scores, expected[0])
    found = import_detection_head(encoded + attach(encoded, detection_emitter(head, SHAPES), ranges=ranges), head)
    assert found is head


def test_on_a_trunk_in_floating_point(tmp_path: Path, head: DetectionHead) -> None:
    torch.manual_seed(0)
    trunk = Trunk((8, 16, 16, 24), (1, 1, 1, 1)).eval().fold()
    encoded = export_trunk(trunk, quantize=False)
    assert ranges_of(encoded) is None
    got = Encoder(encoded + attach(encoded, name_maps), threads=1).raw(pixels(), MAPS)
    with torch.inference_mode():
        expected = stage_maps(trunk, torch.from_numpy(pixels()).permute(0, 3, 1, 2))
    for each, map_ in zip(got, expected, strict=True):
        assert each == pytest.approx(map_.numpy(), abs=1e-4)

"""Frames: readers, the chain of labels, the network and its twin, the bundle, the commands."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import recur
from recur.bundle import write_bundle
from recur.bundle.frames import frame_shapes
from recur.cli import main
from recur.data.frames import read_features, read_frames, read_labelled_frames
from recur.engine import tagging
from recur.errors import InputError, RecurError
from recur.metrics.frames import edit_score, frame_scores
from recur.predict import frames as labelling
from recur.predict.frames import FrameLabeller

CLASSES = ["a", "b", "c"]


def write_model(path: Path, *, cell: str = "lstm", seed: int = 0, **changes: Any) -> Path:
    """A bundle with random weights that reads 5 features."""
    random = np.random.default_rng(seed)
    sizes: dict[str, Any] = {"cell": cell, "hidden": 4, "reduced": 6, "features": 5, "bidirectional": True}
    weights = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in frame_shapes(**sizes, classes=3).items()
    }
    weights["head.weight"] *= 6
    weights["head.bias"] *= 0
    weights["crf.transitions"] *= 0.1
    weights["crf.start"] *= 0
    meta = {
        "task": "frames",
        "name": "tiny",
        "classes": CLASSES,
        **sizes,
        "head": "crf",
        "smooth": 0.5,
        "encoder": None,
    }
    return write_bundle(
        path, {**meta, **changes}, weights, tokenizer=b"{}", encoder=None, card="# tiny\n", quantize=False
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("frames") / "tiny")


def write_video(path: Path, times: list[int], *, size: int = 32) -> Path:
    """A video with frames at these milliseconds."""
    av = pytest.importorskip("av")
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), number * 10 % 255, np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ------------------------------------------------------------------------------------------------------------- readers


def test_a_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 100, 150, 400, 1000]
    found = list(read_frames(write_video(tmp_path / "v.mkv", times), size=16))
    assert [frame.seconds for frame in found] == [at / 1000 for at in times]
    assert [frame.number for frame in found] == [0, 1, 2, 3, 4]
    assert found[0].pixels.shape == (16, 16, 3)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "text.mp4").write_text("These are words.\n" * 50)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_sound(tmp_path / "sound.mp4")
    write_empty(tmp_path / "no.avi")
    for name, what in (
        ("text.mp4", "no video"), ("list.mp4", "no video"), ("empty.mp4", "an empty file"), ("none.mp4", "not exist"),
        ("sound.mp4", "holds no pictures"), ("no.avi", "without a frame"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: .*{what}"):
            list(read_frames(tmp_path / name, size=8))


def write_empty(path: Path) -> None:
    """A film that says it has pictures, and has none."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()


def write_sound(path: Path) -> None:
    """A film without pictures."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_cut_off_video_gives_its_frames_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", [100 * number for number in range(60)], size=64).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    found = []
    with pytest.raises(InputError, match=r"cut off|broken"):
        found.extend(frame.number for frame in _each(read_frames(tmp_path / "cut.mkv", size=8), found))
    assert 5 < len(found) < 60


def _each(frames: Any, found: list[int]) -> Any:
    for frame in frames:
        found.append(frame.number)
    return ()


def write_drive(path: Path, angles: list[float]) -> Path:
    with tarfile.open(path, "w:gz") as archive:

        def put(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        lines = []
        for number, angle in enumerate(angles):
            picture = io.BytesIO()
            Image.new("RGB", (20, 10), (number * 20, 0, 0)).save(picture, "JPEG")
            put(f"tub/images/{number}.jpg", picture.getvalue())
            lines.append(json.dumps({"_index": number, "cam/image_array": f"{number}.jpg", "user/angle": angle}))
        put("tub/._catalog_0.catalog", b"\0\1")
        put("tub/catalog_0.catalog", "\n".join(reversed(lines)).encode())
    return path


def test_a_drive_is_labelled_by_its_steering_angle(tmp_path: Path) -> None:
    (each,), classes = read_labelled_frames(write_drive(tmp_path / "d.tar.gz", [-0.5, -0.1, 0.0, 0.1, 0.2]), size=8)
    assert [classes[label] for label in each.labels] == ["left", "straight", "straight", "straight", "right"]
    assert each.values.shape == (5, 8, 8, 3)
    whole = (tmp_path / "d.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="broken archive"):
        read_labelled_frames(tmp_path / "cut.tar.gz", size=8)


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture in this folder"):
        list(read_frames(tmp_path, size=8))
    for number in (10, 2, 1):
        Image.new("RGB", (9, 9), (number * 20, 0, 0)).save(tmp_path / f"f{number}.png")
    found = list(read_frames(tmp_path, size=4, fps=2))
    assert [int(frame.pixels[0, 0, 0]) for frame in found] == [20, 40, 200]
    assert [frame.seconds for frame in found] == [0.0, 0.5, 1.0]
    (tmp_path / "labels.csv").write_text("file,label\nf1.png,x\nf2.png,y\n")
    with pytest.raises(InputError, match="3 frames and 2 labels"):
        read_labelled_frames(tmp_path, size=4)
    for rows, what in (
        (b"f1.png,x\nf2.png,\xff\n", "no table that can be read"),
        (b"f1.png,x\nf2.png\n", "row 2: has no file or no label"),
        (b"f1.png,x\nf1.png,y\n", "row 2: another label for 'f1.png'"),
    ):
        (tmp_path / "labels.csv").write_bytes(b"file,label\n" + rows)
        with pytest.raises(InputError, match=what):
            read_labelled_frames(tmp_path, size=4)


def test_labels_that_do_not_match_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, **{"s1/v/scores": np.zeros((4, 5)), "s1/v/labels": np.zeros(3, int)})
    with pytest.raises(InputError, match=r"\[3\] labels for 4 frames"):
        read_features(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no NumPy archive"):
        read_features(path)


# ----------------------------------------------------------------------------------------------------- chain of labels


def test_the_chain_equals_brute_force() -> None:
    random = np.random.default_rng(1)
    emissions, transitions, start = (random.standard_normal(shape) for shape in ((5, 3), (3, 3), (3,)))
    weights = {}
    for path in itertools.product(range(3), repeat=5):
        steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
        weights[path] = start[path[0]] + sum(emissions[t, label] for t, label in enumerate(path)) + steps
    assert tuple(tagging.viterbi(emissions, transitions, start)) == max(weights, key=lambda path: weights[path])
    total = sum(np.exp(list(weights.values())))
    found = tagging.marginals(emissions, transitions, start)
    for t, label in itertools.product(range(5), range(3)):
        share = sum(np.exp(weight) for path, weight in weights.items() if path[t] == label) / total
        assert found[t, label] == pytest.approx(share, abs=1e-12)


def test_loss_of_the_chain_equals_brute_force_and_its_gradient_is_right() -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.frames import crf_nats

    torch.manual_seed(0)
    emissions, transitions, start = (torch.randn(s, dtype=torch.float64) for s in ((2, 4, 3), (3, 3), (3,)))
    labels, lengths = torch.tensor([[0, 2, 1, 1], [1, 0, 0, 0]]), torch.tensor([4, 2])
    found = crf_nats(emissions, labels, lengths, transitions, start)
    for row, length in enumerate(lengths.tolist()):

        def weight(path: Any, row: int = row) -> Any:
            steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
            return start[path[0]] + sum(emissions[row, t, label] for t, label in enumerate(path)) + steps

        every = torch.stack([weight(path) for path in itertools.product(range(3), repeat=length)])
        assert float(found[row]) == pytest.approx(
            float(torch.logsumexp(every, 0) - weight(labels[row, :length].tolist())), abs=1e-12
        )
    inputs = [each.requires_grad_() for each in (emissions, transitions, start)]
    assert torch.autograd.gradcheck(lambda e, t, s: crf_nats(e, labels, lengths, t, s), inputs)


@pytest.mark.parametrize("cell", ["lstm", "gru", "none"])
def test_the_network_equals_its_twin(cell: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.frames import FrameNetwork

    torch.manual_seed(2)
    network = FrameNetwork(features=5, classes=3, cell=cell, reduced=6, hidden=4, crf=True).eval()
    network.mean.normal_()
    network.scale.uniform_(0.5, 2)
    path = write_model(tmp_path / "m", cell=cell)
    bundle = recur.bundle.read_bundle(path)
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    write_bundle(tmp_path / "n", bundle.meta, weights, tokenizer=b"{}", encoder=None, card="", quantize=False)
    x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    padded = torch.zeros(2, 9, 5)
    padded[0], padded[1, :4] = torch.from_numpy(x), torch.from_numpy(x[:4])
    with torch.no_grad():
        expected = network(padded, torch.tensor([9, 4])).numpy()
    labeller = recur.load(tmp_path / "n")
    np.testing.assert_allclose(labeller.emissions(x), expected[0], atol=1e-5)
    np.testing.assert_allclose(labeller.emissions(x[:4]), expected[1, :4], atol=1e-5)


# -------------------------------------------------------------------------------------------------- labels, in pieces


def test_one_direction_in_pieces_carries_its_state(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeller = recur.load(model)
    assert isinstance(labeller, FrameLabeller)
    x = np.random.default_rng(5).standard_normal((90, 5)).astype(np.float32)
    whole = labeller(x)
    monkeypatch.setattr(labelling, "CHUNK", 16)
    monkeypatch.setattr(labelling, "AHEAD", 32)
    pieces = labeller(x)
    assert [each.frame for each in pieces] == list(range(90))
    assert np.mean([a.label == b.label for a, b in zip(whole, pieces, strict=True)]) > 0.97
    assert len({each.label for each in whole}) > 1
    assert len({each.label for each in labeller(x, smooth=500)}) == 1


def test_memory_does_not_grow_with_the_video(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CHUNK", 16), ("AHEAD", 4)):
        monkeypatch.setattr(labelling, name, value)
    labeller = recur.load(model)
    rows = ((labelling.Frame(number, None, np.zeros(0)), np.full(5, number % 7, np.float32)) for number in range(4000))

    def peak(frames: int) -> int:
        tracemalloc.start()
        assert sum(1 for _ in labeller._labels(itertools.islice(rows, frames), None, None)) == frames
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(40)
    assert peak(2000) < 1.5 * peak(200)


def test_bundles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for changes in ({"classes": ["a"]}, {"head": "x"}, {"smooth": -1}, {"hidden": 5}, {"cell": "rnn"}, {"encoder": {}}):
        with pytest.raises(RecurError, match=r"bundle\.json|weights"):
            write_model(tmp_path / "bad", **changes)


def test_scores_of_segments() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    assert edit_score(truth, truth) == 1
    found = np.array([0] * 6 + [1] * 14)
    scores = frame_scores([(found, truth)])
    assert scores["accuracy"] == pytest.approx(0.8)
    assert (scores["edit"], scores["f1_50"]) == (1, 1)
    flicker = np.array([0, 1] * 10)
    assert frame_scores([(flicker, truth)])["f1_50"] == 0
    assert edit_score(flicker, truth) == pytest.approx(0.1)


# -------------------------------------------------------------------------------------------------------- command line


def test_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(5).standard_normal((30, 5))
    np.savez(tmp_path / "f.npz", **{"s1/v/scores": x})
    np.savez(tmp_path / "narrow.npz", **{"s1/v/scores": x[:, :2]})
    files = ["--csv", str(tmp_path / "o.csv")]
    status = main(
        ["frames", "--model", str(model), "--json", *files, str(tmp_path / "narrow.npz"), str(tmp_path / "f.npz")]
    )
    told = capsys.readouterr()
    assert status == 1
    assert "expected [frames, 5]" in told.err
    lines = [json.loads(line) for line in told.out.splitlines()]
    assert list(lines[0]) == ["path", "frame", "seconds", "label", "probability"]
    assert len(lines) == 30
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 31
    srt = ["--srt", str(tmp_path / "o.srt"), "--fps", "10"]
    assert main(["frames", "--model", str(model), *srt, str(tmp_path / "f.npz")]) == 0
    segments = capsys.readouterr().out.splitlines()
    entries = (tmp_path / "o.srt").read_text().strip().split("\n\n")
    assert len(entries) == len(segments) > 1
    assert entries[0].startswith("1\n00:00:00,000 --> ")


def test_training_from_features_to_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    random = np.random.default_rng(0)
    arrays = {}
    for number in range(6):
        labels = np.repeat(random.permutation(3), 8)
        arrays[f"split{number % 2}/v{number}/scores"] = np.eye(3)[labels] + 0.3 * random.standard_normal((24, 3))
        arrays[f"split{number % 2}/v{number}/labels"] = labels
    np.savez(tmp_path / "d.npz", **arrays)
    data = ["--data", str(tmp_path / "d.npz")]
    run = ["train", "frames", *data, "--fold", "split1", "--epochs", "40", "--head", "crf", "--hidden", "8"]
    assert main([*run, "--out", str(tmp_path / "whole")]) == 0
    assert main([*run, "--out", str(tmp_path / "parts"), "--seconds", "0.05"]) == 0
    assert main([*run, "--out", str(tmp_path / "parts"), "--resume"]) == 0
    one, two = (recur.load(tmp_path / name).bundle.weights for name in ("whole", "parts"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    capsys.readouterr()
    assert (
        main(["evaluate", "frames", *data, "--json", "--model", str(tmp_path / "whole"), str(tmp_path / "parts")]) == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["whole", "parts", "mean"]
    assert rows[0]["accuracy"] > 0.85
    assert main([*run, "--fold", "no", "--out", str(tmp_path / "x")]) == 2
    assert main([*run, "--mirror", "--out", str(tmp_path / "x")]) == 2
    assert "--mirror for features" in capsys.readouterr().err
    arrays["split1/v1/labels"][0] = 3
    np.savez(tmp_path / "d.npz", **arrays)
    assert main(["evaluate", "frames", *data, "--model", str(tmp_path / "whole")]) == 2
    told = capsys.readouterr().err
    assert "classes ['0', '1', '2', '3']" in told
    assert "whole knows ['0', '1', '2']" in told
    assert main([*run, "--epochs", "1", "--out", str(tmp_path / "strange")]) == 0
    assert "no frame that is learned from is '3'; some held out are" in capsys.readouterr().err


def test_mirrored_frames_have_the_labels_of_the_other_side(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from recur.train.frames import mirrored

    (drive,), classes = read_labelled_frames(write_drive(tmp_path / "d.tar.gz", [-0.5, 0.0, 0.2]), size=8)
    drive.values[:, :, 0] = 255
    (found,) = mirrored([drive], classes, ["left:right"])
    assert [classes[label] for label in found.labels] == ["right", "straight", "left"]
    assert (found.values[:, :, -1] == 255).all()
    assert np.array_equal(found.values[:, :, ::-1], drive.values)
    (same,) = mirrored([drive], classes, [])
    assert np.array_equal(same.labels, drive.labels)
    for pair in ("left", "left:up", "left:right:straight"):
        with pytest.raises(RecurError, match=f"--mirror {pair}; expected A:B"):
            mirrored([drive], classes, [pair])


# ------------------------------------------------------------------------------------------------------- explanations


def write_switch(path: Path) -> Path:
    """A bundle without recurrence: feature 0 says a, feature 1 says b; labels like to stay."""
    weights = {
        "reduce.weight": np.eye(5, dtype=np.float32)[:3] * 2,
        "reduce.bias": np.zeros(3, np.float32),
        "head.weight": np.eye(3, dtype=np.float32) * 4,
        "head.bias": np.zeros(3, np.float32),
        "crf.transitions": np.zeros((3, 3), np.float32),
        "crf.start": np.zeros(3, np.float32),
    }
    sizes = {"cell": "none", "hidden": 4, "reduced": 3, "features": 5, "bidirectional": False}
    meta = {"task": "frames", "name": "switch", "classes": CLASSES, **sizes, "head": "crf", "smooth": 3.0}
    return write_bundle(
        path, {**meta, "encoder": None}, weights, tokenizer=b"{}", encoder=None, card="", quantize=False
    )


def test_the_frame_that_changed_the_mind_is_named(tmp_path: Path) -> None:
    from recur.explain import film

    labeller = recur.load(write_switch(tmp_path / "m"))
    assert isinstance(labeller, FrameLabeller)
    x = np.zeros((40, 5), np.float32)
    x[:20, 0], x[24, 1], x[30:, 1] = 1, 5, 0.2
    data = film.told(labeller, x, "v", range(40), [None] * 40)
    assert [(change["from"], change["to"]) for change in data["changes"]] == [("a", "b")]
    change = data["changes"][0]
    assert change["named"][0]["at"] == 24
    assert change["named"][0]["without"] < change["probability"] - 0.05
    if importlib.util.find_spec("matplotlib"):
        (axis,) = film.FilmExplanation(data).figure().axes
        assert [text.get_text() for text in axis.get_legend().get_texts()] == CLASSES
        assert axis.lines[0].get_xdata()[0] == change["at"]
    told = film.faithfulness(labeller, [x], count=5)
    assert told["frames"] == 5
    assert told["changes"] == 1
    assert told["fall_without_named"] > told["fall_without_others"]


def test_explain_command(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recur.explain import film

    np.savez(tmp_path / "f.npz", **{"s1/v<b>/scores": np.random.default_rng(5).standard_normal((30, 5))})
    page = tmp_path / "page.html"
    run = ["explain", "frames", "--model", str(model), "--fps", "10", str(tmp_path / "f.npz")]
    assert main(run) == 2
    capsys.readouterr()
    assert main([*run, "--json", "--out", str(page)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data["labels"]) == len(data["probabilities"]) == 30
    assert len(data["changes"]) == np.count_nonzero(np.diff(data["labels"])) > 0
    text = page.read_text()
    assert "default-src 'none'" in text
    assert "v<b>" not in text
    assert text.count("<td>frame") == 2 * (1 + len(data["changes"])) + 2 * sum(len(c["named"]) for c in data["changes"])
    page.unlink()
    monkeypatch.setattr(film, "MAX_FRAMES", 29)
    assert main([*run, "--out", str(page)]) == 1
    assert "more than 29 frames" in capsys.readouterr().err
    assert not page.exists()


def test_the_page_of_pictures_holds_thumbnails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recur.explain import film
    from recur.explain.film_page import render_film_page

    labeller = recur.load(model)
    assert isinstance(labeller, FrameLabeller)
    for number in range(5):
        Image.new("RGB", (9, 9), (number * 20, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "f5.png").write_bytes(b"no picture")
    monkeypatch.setattr(labeller, "size", 8)
    monkeypatch.setattr(labeller, "see", lambda pixels: np.zeros((len(pixels), 5), np.float32))
    first, problem = film.explain_film(labeller, tmp_path)
    assert isinstance(first, film.FilmExplanation)
    assert isinstance(problem, InputError)
    assert first.data["frames"] == [0, 1, 2, 3, 4]
    assert render_film_page([first]).count("data:image/jpeg") == 5
    assert 'sandbox="allow-scripts"' in first._repr_html_()

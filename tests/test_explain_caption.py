"""The inside of a caption is what the captioner computed, told again: words, search, states, other sentences."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import write_tiny_bundle

import recur
from recur.cli import main
from recur.data.images import Square, read_square
from recur.engine import native
from recur.engine.decoder import CaptionDecoder
from recur.engine.hypotheses import Growth
from recur.engine.search import beam_search
from recur.errors import InputError, RecurError
from recur.explain.explanation import explain, explain_beginning
from recur.explain.faithful import Tally, another_box, faithfulness, hide
from recur.explain.inside import read_sentence, sentence_tokens, word_scores
from recur.predict.caption import Captioner
from recur.predict.voice import END_WORD


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    loaded: Captioner = recur.load(tiny_bundle, threads=1)
    return loaded


@pytest.fixture
def slow(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Captioner:
    """The same captioner without the compiled core."""
    monkeypatch.setattr("recur.predict.voice.core.chosen", lambda isa: (None, ""))
    loaded: Captioner = recur.load(tiny_bundle, threads=1)
    assert isinstance(loaded.voice("en").decoder, CaptionDecoder)
    return loaded


def square_of(captioner: Captioner, path: Path) -> Square:
    found = read_square(str(path), size=captioner.size)
    assert isinstance(found, Square)
    return found


def unpacked(packed: dict[str, Any], shape: list[int]) -> Any:
    return np.frombuffer(base64.b64decode(packed["int8"]), np.int8).reshape(shape) * packed["scale"]


def test_words_are_those_of_the_caption(captioner: Captioner, photos: list[Path]) -> None:
    for photo in photos[:3]:
        told = explain(captioner, photo).data
        for sentence in told["sentences"]:
            (caption,) = captioner([photo], lang=sentence["language"], n_best=5)
            assert sentence["caption"] == caption.caption
            assert sentence["log_prob"] == pytest.approx(caption.log_prob, abs=1e-3)
            assert sentence["n_best"] == [[text, round(score, 4)] for text, score in caption.n_best]
            for mine, theirs in zip(sentence["words"], caption.words, strict=True):
                assert mine["word"] == theirs.word
                assert mine["probability"] == pytest.approx(np.exp(theirs.log_prob), abs=2e-4)
                assert mine["region"] == list(theirs.region or ())
                assert [each["word"] for each in mine["runners_up"]] == [other for other, _ in theirs.alternatives]
            assert sentence["end"]["word"] == END_WORD
        json.dumps(told, allow_nan=False)


def test_the_tree_holds_the_search(captioner: Captioner, photos: list[Path]) -> None:
    for photo in photos:
        told = explain(captioner, photo, languages=["en"], n_best=3).data["sentences"][0]
        tree, beam = told["tree"], told["beam"]
        chosen = [branch for branch in tree if branch["chosen"]]
        assert [branch["word"] for branch in chosen] == [*(word["word"] for word in told["words"]), END_WORD]
        assert chosen[-1]["log_prob"] == pytest.approx(told["log_prob"], abs=2e-3)
        ended = [branch for branch in tree if branch["fate"] == "ended"]
        assert max(ended, key=lambda branch: branch["score"]) is chosen[-1]
        depth: list[int] = []
        for number, branch in enumerate(tree):
            assert branch["parent"] < number
            depth.append(0 if branch["parent"] < 0 else depth[branch["parent"]] + 1)
            if branch["parent"] >= 0:
                assert tree[branch["parent"]]["fate"] == "kept"
                assert branch["log_prob"] <= tree[branch["parent"]]["log_prob"] + 1e-3
        for step in range(max(depth) + 1):
            here = [branch for branch, at in zip(tree, depth, strict=True) if at == step]
            kept = [branch["log_prob"] for branch in here if branch["fate"] != "beaten"]
            assert len(kept) <= beam
            beaten = [branch["log_prob"] for branch in here if branch["fate"] == "beaten"]
            assert not (kept and beaten) or max(beaten) <= min(kept) + 1e-3


def test_a_growth_is_of_one_item(captioner: Captioner, slow: Captioner, photos: list[Path]) -> None:
    voice = slow.voice("en")
    features = slow.encode([square_of(slow, photo) for photo in photos[:2]])
    assert isinstance(voice.decoder, CaptionDecoder)
    step, first = voice.decoder.start(features)
    with pytest.raises(ValueError, match="a growth of 2 items"):
        beam_search(step, first, end=voice.decoder.end, growth=Growth(), **voice.limits)


def test_states_and_gates_are_those_of_the_cell(tmp_path: Path, photos: list[Path]) -> None:
    exact = recur.load(write_tiny_bundle(tmp_path / "b", quantize=False), threads=1)
    told = explain(exact, photos[0], languages=["en"]).data["sentences"][0]
    states = told["states"]
    layers, steps, units = shape = states["shape"]
    assert (layers, steps, units) == (2, len(told["words"]) + 2, 8)
    h, c = unpacked(states["hidden"], shape), unpacked(states["cells"], shape)
    i, f, g, o = (unpacked(states["gates"][name], shape) for name in "ifgo")
    before = np.concatenate([np.zeros((layers, 1, units)), c[:, :-1]], axis=1)
    rounding = states["cells"]["scale"] + (np.abs(c).max() + 3) / 254  # half a scale each of c, c before, f, i and g
    assert np.abs(f * before + i * g - c).max() < rounding
    assert np.abs(o * np.tanh(c) - h).max() < rounding
    shares = {(each["layer"], each["gate"]): each for each in states["saturated"]}
    assert set(shares) == {(layer, gate) for layer in (1, 2) for gate in "ifo"}
    assert shares[1, "f"]["open"] == pytest.approx((f[0] > 0.9).mean(), abs=0.05)


@pytest.mark.parametrize("sizes", [{}, {"cell": "gru"}, {"cell": "rnn", "layers": 1, "attention": 0}])
def test_the_core_and_the_reference_tell_the_same(
    tmp_path: Path, photos: list[Path], sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_bundle(tmp_path / "b", quantize=False, **sizes)
    fast = recur.load(path, threads=1)
    if native.where().isa is None:
        pytest.skip("no compiled core")
    monkeypatch.setattr("recur.predict.voice.core.chosen", lambda isa: (None, ""))
    slow = recur.load(path, threads=1)
    square = square_of(fast, photos[0])
    features = fast.encode([square])
    monkeypatch.undo()
    voice = fast.voice("en")
    monkeypatch.setattr("recur.predict.voice.core.chosen", lambda isa: (None, ""))
    tokens = sentence_tokens(voice, ["a", "dog", "runs"])
    sizes = {"cell": fast.bundle.meta["cell"], "layers": fast.bundle.meta["layers"]}
    both = [
        read_sentence(each.bundle.weights, voice=each.voice("en"), features=features, tokens=tokens, **sizes)
        for each in (fast, slow)
    ]
    for name in ("log_probs", "attention", "hidden", "cells", "gates"):
        one, other = (getattr(each, name) for each in both)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert np.abs(one - other).max() < 1e-4, name
    mine, theirs = (explain(each, photos[0], languages=["en"]).data["sentences"][0] for each in (fast, slow))
    assert [branch["word"] for branch in mine["tree"]] == [branch["word"] for branch in theirs["tree"]]
    assert [each["caption"] for each in mine["continuations"]] == [each["caption"] for each in theirs["continuations"]]


def test_another_word_leads_to_the_sentence_that_would_have_followed(captioner: Captioner, photos: list[Path]) -> None:
    square = square_of(captioner, photos[1])
    features = captioner.encode([square])
    told = explain(captioner, photos[1], languages=["en"]).data["sentences"][0]
    assert len(told["continuations"]) >= len(told["words"])
    for each in told["continuations"]:
        before = [word["word"] for word in told["words"][: each["place"]]]
        live = explain_beginning(captioner, square, features, "en", [*before, each["word"]])
        assert live["caption"] == each["caption"]
        assert live["log_prob"] == pytest.approx(each["log_prob"], abs=2e-3)
        rest = live["words"][each["place"] + 1 :] if each["word"] != END_WORD else []
        assert [word["word"] for word in rest] == [word["word"] for word in each["words"]]
        for mine, theirs in zip(each["words"], rest, strict=True):
            assert mine["probability"] == pytest.approx(theirs["probability"], abs=2e-4)
            assert mine["region"] == theirs["region"]


def test_a_beginning_that_makes_no_sense_is_refused(captioner: Captioner, photos: list[Path]) -> None:
    square = square_of(captioner, photos[0])
    features = captioner.encode([square])
    for beginning, said in ((["zebra"], "zebra"), ([END_WORD, "a"], "beginning of 2 words"), (["a"] * 9, "of 9 words")):
        with pytest.raises(RecurError, match=said):
            explain_beginning(captioner, square, features, "en", beginning)
    ended = explain_beginning(captioner, square, features, "en", ["a", "dog", END_WORD])
    assert ended["caption"] == "a dog"


def test_objects_are_told_and_pictures_that_cannot_be_read_are_errors(
    captioner: Captioner, photos: list[Path], tmp_path: Path
) -> None:
    dog = SimpleNamespace(label="dog", score=0.9, box=(1, 2, 30, 40))
    told = explain(captioner, photos[0], objects=[dog], detail=False)
    assert told.data["objects"] == [{"label": "dog", "score": 0.9, "box": [1.0, 2.0, 30.0, 40.0]}]
    assert "states" not in told.data["sentences"][0]
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(InputError, match="text"):
        explain(captioner, tmp_path / "a.jpg")


def test_a_figure_for_a_paper(captioner: Captioner, photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = explain(captioner, photos[0], detail=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure = told.figure("zh")
        figure.savefig(tmp_path / "a.png", dpi=20)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    words = next(each["words"] for each in told.data["sentences"] if each["language"] == "zh")
    assert [title.split()[0] for title in titles] == [word["word"] for word in words]
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(RecurError, match="no sentence in 'fr'"):
        told.figure("fr")


def test_the_command_writes_the_page_and_prints_the_same(
    tiny_bundle: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    call = ["explain", "caption", str(photos[0]), str(tmp_path / "missing.jpg"), "--model", str(tiny_bundle)]
    assert main([*call, "--out", str(page), "--json"]) == 1
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    data = json.loads(line)
    assert data["picture"]["name"] == str(photos[0])
    assert {"words", "end", "tree", "states", "continuations"} <= set(data["sentences"][0])
    assert "missing.jpg: no such file" in printed.err
    assert data["sentences"][0]["caption"] in page.read_text(encoding="utf-8")
    assert main(call) == 2
    assert "--out" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- faithfulness


def test_hiding_and_other_boxes() -> None:
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[:16, :16] = 90
    hidden = hide(pixels, (0, 0, 1, 1), 3, 3)
    assert (hidden[:16, :16] == 10).all()
    assert (hidden[16:] == 0).all()
    assert (pixels[:16, :16] == 90).all()
    random = np.random.default_rng(0)
    assert another_box((0, 0, 3, 3), 3, 3, random) is None
    drawn = {another_box((0, 0, 2, 2), 4, 4, random) for _ in range(200)}
    assert drawn == {(x, y, x + 2, y + 2) for x in range(3) for y in range(3) if max(x, 2 - 2 * y, y) >= 1} - {
        (0, 0, 2, 2)
    }


def test_word_scores_are_those_of_the_caption(captioner: Captioner, slow: Captioner, photos: list[Path]) -> None:
    features = captioner.encode([square_of(captioner, photo) for photo in photos[:2]])
    (caption,) = captioner([photos[0]])
    for each in (captioner, slow):
        voice = each.voice("en")
        scores = word_scores(voice, features, sentence_tokens(voice, [word.word for word in caption.words]))
        assert scores.shape == (2, len(caption.words))
        assert np.abs(scores[0] - [word.log_prob for word in caption.words]).max() < 0.05


def test_a_tally_tells_shares_and_means() -> None:
    tally = Tally()
    for own, other in ((1.0, 0.25), (0.0, 0.5), (0.5, 0.0), (0.1, 0.1)):
        tally.add(own, other)
    assert tally.told() == pytest.approx({"words": 4, "own_costs_more": 0.5, "cost_own": 0.4, "cost_other": 0.2125})


def test_faithfulness_counts_words(captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recur.predict.regions.REGION_THRESHOLD", 0.95)  # a network of chance looks everywhere
    squares = [square_of(captioner, photo) for photo in photos[:3]]
    told = faithfulness(captioner, squares, "en")
    assert told["pictures"] == 3
    assert told["all"]["words"] >= told["content"]["words"] > 0
    assert told["all"]["words"] >= told["felt"]["words"]
    assert 0 <= told["all"]["own_costs_more"] <= 1
    assert told == faithfulness(captioner, squares, "en")

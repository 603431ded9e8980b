"""Questions about stories, from bAbI files to a bundle, to answers, evidence, the page and the command line."""

from __future__ import annotations

import io
import json
import signal
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import recur
from recur.bundle import read_bundle, write_bundle
from recur.bundle.answer import story_shapes
from recur.cli import main
from recur.data.stories import Story, read_stories, sentences_of, words_of
from recur.data.text import Vocabulary
from recur.errors import InputError, RecurError
from recur.explain.evidence import faithfulness
from recur.explain.figure import draw_story
from recur.metrics.answers import story_scores
from recur.predict.answer import Reader

PEOPLE, PLACES = ("mary", "john", "él", "小明"), ("park", "kitchen", "office", "garden")
QUESTION = "Where is Mary?"


def write_tasks(folder: Path) -> Path:
    """A made-up task in the format of bAbI: who went where last."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 500), ("valid", 30), ("test", 30)):
        lines = []
        for _ in range(count):
            where: dict[str, tuple[str, int]] = {}
            for number in range(1, 5):
                who, place = PEOPLE[int(random.integers(2))], PLACES[int(random.integers(4))]
                where[who] = place, number
                lines.append(f"{number} {who.title()} went to the {place}.")
            who = list(where)[int(random.integers(len(where)))]
            lines.append(f"5 Where is {who.title()}? \t{where[who][0]}\t{where[who][1]}")
        (folder / f"qa1_{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("stories") / "tasks")


def write_reader(path: Path, **changes: Any) -> Path:
    """A bundle with random weights that reads 6 sentences of 8 words."""
    random = np.random.default_rng(3)
    words = [*PEOPLE, *PLACES, "where", "is", "went", "to", "the"]
    vocabulary = Vocabulary(words, ("en",), {"en": range(4, 4 + len(words))})
    shapes = story_shapes(vocabulary=len(vocabulary), answers=4, places=8, hidden=6, layers=2)
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["embedding.weight"][0] = 0
    meta = {"task": "answer", "name": path.name, "kind": "story", "answers": list(PLACES)}
    meta |= {"hidden": 6, "layers": 2, "places": 8, "sentences": 6}
    return write_bundle(path, meta | changes, weights, tokenizer=vocabulary, encoder=None, card="", quantize="float32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reader(tmp_path_factory.mktemp("random") / "random")


# ---------------------------------------------------------------------------------------------------------------- data


def test_a_passage_is_cut_into_sentences_in_any_script() -> None:
    text = "Mary went home. Where?\n小明去了公园。他饿了！\n\n ... \nÉl está aquí"
    assert sentences_of(text) == ("Mary went home.", "Where?", "小明去了公园。", "他饿了！", "Él está aquí")
    assert words_of("Él's GONE, 小明!") == ("él's", "gone", "小明")


def test_a_task_is_read_with_what_answers_follow_from(tasks: Path) -> None:
    stories, problems = read_stories(tasks, "train")
    assert len(stories) == 500
    assert not problems
    for story in stories:
        assert story.task == "qa1"
        assert len(story.sentences) == 4
        (place,) = story.support
        assert story.answer in words_of(story.sentences[place])
        assert words_of(story.question)[2] in words_of(story.sentences[place])


def test_an_archive_gives_what_the_folder_does(tasks: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.xz", "w:xz") as archive:
        archive.add(tasks, "babi")
    assert read_stories(tmp_path / "all.tar.xz", "test") == read_stories(tasks, "test")


def test_broken_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "qa2_test.txt"
    file.write_text(
        "1 Mary went home.\nno number\n2 \n3 Where?\t\t1\n4 Where is Mary?\thome\t1 9\n"
        "1 John sat.\n2 ?\tx\n3 Who?\tjohn\n",
        encoding="utf-8",
    )
    stories, problems = read_stories(file, "test")
    assert [(each.answer, each.support, each.sentences) for each in stories] == [
        ("home", (0,), ("Mary went home.",)),
        ("john", (), ("John sat.",)),
    ]
    assert [line.split(": ")[1] for line in problems] == ["line 2", "line 3", "line 4", "line 7"]


@pytest.mark.parametrize("content", [b"", b"\xfd7zXZ\x00broken", b"\xff\xfe\xff"])
def test_what_holds_no_question_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.tar.xz", "qa1_test.txt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecurError, match=name):
            read_stories(tmp_path / name, "test")
    with pytest.raises(RecurError, match="cannot be read"):
        read_stories(tmp_path / "missing", "test")


# -------------------------------------------------------------------------------------------------------------- network


def test_the_runtime_computes_what_the_network_does() -> None:
    torch = pytest.importorskip("torch")
    from recur.engine.story import StoryNetwork as Twin
    from recur.nn.answer import StoryNetwork

    torch.manual_seed(0)
    network = StoryNetwork(vocabulary=9, answers=4, places=5, hidden=7, layers=3).eval()
    sentences = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0], [6, 7, 8, 1]])
    story = torch.tensor([[0, 1], [2, 0], [1, 0]])
    live = torch.tensor([[True, True], [True, False], [True, False]])
    question = torch.tensor([[3, 4], [5, 0]])
    with torch.no_grad():
        scores, pointed = network(sentences, story, live, question)
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    twin = Twin(weights, 3).read(sentences.numpy(), story.numpy(), live.numpy(), question.numpy())
    np.testing.assert_allclose(twin.answers, torch.softmax(scores, 1).numpy(), atol=1e-5)
    np.testing.assert_allclose(twin.support, (torch.sigmoid(pointed) * live).numpy(), atol=1e-5)
    assert (twin.gates[:, 1:, 1] == 0).all()


def test_the_gradient_of_the_recurrence_is_right() -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.answer import keep

    torch.manual_seed(0)
    z, c = (torch.rand(5, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(keep, (z, c))


# -------------------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_the_same_in_every_batch(model: Path) -> None:
    reader = recur.load(str(model))
    stories = [
        (("Mary went to the park.", "John went to the office."), QUESTION),
        (tuple(f"Mary went to the {place}." for place in PLACES), "Where is 小明?"),
        (("Él went.",), "Where is John?"),
    ]
    together = reader.answer(stories)
    for item, found in zip(stories, together, strict=True):
        (alone,) = reader.answer([item])
        assert alone.answer == found.answer
        assert alone.confidence == pytest.approx(found.confidence, abs=1e-5)
        assert len(found.evidence) == len(item[0])
        assert 0 < found.confidence <= 1
        assert found.confidence >= found.others[0][1]


def test_unknown_words_are_told_and_long_passages_read_from_the_end(model: Path) -> None:
    reader = recur.load(str(model))
    last = "John went to the office. " * 6
    passage = (f"Mary went to the {PLACES[place % 4]}." for place in range(20_000))
    found = reader((*passage, last), "Where is zebra 北京?")
    assert found.unknown == ("zebra", "北京")
    assert found.evidence == reader(last, "Where is zebra 北京?").evidence
    assert f"<b>{found.answer}</b>" in found._repr_html_()
    assert len(found.evidence) == 6
    # A line of 10 MB, and one of a single character.
    found = reader("x" * (10 << 20) + " " + last, QUESTION)
    assert [len(each.sentence) > 10 << 20 for each in found.evidence] == [True] + [False] * 5
    assert reader("x", "x").unknown == ("x",)


def test_a_figure_of_what_an_answer_rests_on(model: Path) -> None:
    pytest.importorskip("matplotlib")
    found = recur.load(str(model))("Mary went to the park. John went to the office.", QUESTION)
    (axis,) = draw_story(found).axes
    rows = [[each.support, *each.gates] for each in found.evidence]
    np.testing.assert_allclose(axis.images[0].get_array(), rows)
    assert [label.get_text() for label in axis.get_yticklabels()] == [each.sentence for each in found.evidence]


def test_what_has_no_word_is_refused(model: Path) -> None:
    reader = recur.load(str(model))
    with pytest.raises(InputError, match="passage: no word"):
        reader(" ... \n", QUESTION)
    with pytest.raises(InputError, match="question 2: no word"):
        reader("Mary sat.", [QUESTION, "??"])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": "x"}, "kind"),
        ({"answers": ["a", "a"]}, "answers"),
        ({"layers": 3}, "weights.safetensors"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    with pytest.raises(RecurError, match=what):
        write_reader(tmp_path / "bad", **changes)


def test_scores_count_whole_answers() -> None:
    stories = [Story(task, ("a",), "q?", answer, ()) for task, answer in (("one", "n,w"), ("one", "n,s"), ("two", "x"))]
    scores = story_scores(stories, ["n,w", "s,n", "x"])
    assert scores["tasks"]["one"] == {"questions": 2, "accuracy": 0.5}
    assert (scores["mean"], scores["solved"], scores["untrained"]) == (0.75, 1, [])
    scores = story_scores(stories, ["n,w", "s,n", "x"], ["one", "three"])
    assert (scores["mean"], scores["solved"], scores["untrained"]) == (0.5, 0, ["two"])


# -------------------------------------------------------------------------------------------------------- command line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_questions_are_answered_in_their_order(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    passage, questions = tmp_path / "passage.txt", tmp_path / "questions.txt"
    passage.write_text("Mary went to the park.\n小明 went to the office。", encoding="utf-8")
    questions.write_bytes(b"Where is Mary?\n\n\xff\xfe\nWhere is John?\n")
    status, out, err = run(capsys, "answer", "--model", model, "--passage", passage, "--questions", questions, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [row["question"] for row in rows] == ["Where is Mary?", "Where is John?"]
    assert len(err.splitlines()) == 2
    assert "question 2: no word in it" in err
    assert set(rows[0]) >= {"question", "answer", "start", "end", "confidence", "model"}
    stream = SimpleNamespace(buffer=io.BytesIO(passage.read_bytes()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stream)
    status, out, _ = run(capsys, "answer", "--model", model, "Where is Mary?")
    assert status == 0
    assert out.startswith(rows[0]["answer"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--passage", "missing.txt", "Who?"], "missing.txt"),
        (["--passage", "empty.txt", "Who?"], "no word in it"),
        (["--passage", "bad.txt", "Who?"], "UTF-8"),
        (["--passage", "empty.txt"], "give some"),
    ],
)
def test_bad_calls_end_with_one_line(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    Path("bad.txt").write_bytes(b"\xff\xfe\xfa\n")
    status, out, err = run(capsys, "answer", "--model", model, *arguments)
    assert status == 2
    assert not out
    assert what in err
    assert len(err.splitlines()) == 1


def test_the_page_is_complete_and_escapes_what_it_shows(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passage = tmp_path / "passage.txt"
    passage.write_text("<b>Mary</b> went to the park.", encoding="utf-8")
    page = tmp_path / "page.html"
    status, _, err = run(
        capsys, "explain", "answer", "--model", model, "--passage", passage, "--out", page, QUESTION, "??"
    )
    text = page.read_text(encoding="utf-8")
    assert status == 1
    assert "question 2" in err
    assert "&lt;b&gt;Mary" in text
    assert "<b>Mary" not in text
    assert "http:" not in text
    assert "https:" not in text


# ------------------------------------------------------------------------------------------------------------- training


def train(tasks: Path, out: Path, *more: str) -> int:
    sizes = ("--hidden", "16", "--layers", "2", "--epochs", "14", "--batch", "16")
    return main(["train", "answer", "--data", str(tasks), "--out", str(out), *sizes, "--seed", "3", *more])


def test_training_learns_is_stopped_and_goes_on_to_the_same_weights(
    tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from recur.train import answer as training

    assert train(tasks, tmp_path / "whole") == 0
    epoch = training._epoch

    def killed(run: Any, number: int, *rest: Any) -> float | None:
        if number == 5:
            signal.raise_signal(signal.SIGTERM)
        return epoch(run, number, *rest)

    monkeypatch.setattr(training, "_epoch", killed)
    assert train(tasks, tmp_path / "parts") == 0
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(training, "_epoch", epoch)
    assert train(tasks, tmp_path / "parts", "--resume") == 0
    whole, parts = read_bundle(tmp_path / "whole"), read_bundle(tmp_path / "parts")
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(value, parts.weights[name])

    capsys.readouterr()
    status, out, _ = run(
        capsys,
        *("evaluate", "answer", "--model", tmp_path / "whole", "--data", tasks, "--split", "test"),
        *("--faithful", "30", "--json"),
    )
    row = json.loads(out)
    assert status == 0
    assert row["tasks"]["qa1"]["accuracy"] == row["mean"] >= 0.7
    assert row["faithful"]["fall_without_named"] > row["faithful"]["fall_without_other"]
    stories, _ = read_stories(tasks, "test")
    reader = recur.load(str(tmp_path / "whole"))
    assert isinstance(reader, Reader)
    assert faithfulness(reader, stories[:1], of_each=1)["questions"] == 1
    assert "| qa1 | 30 |" in (tmp_path / "whole" / "CARD.md").read_text(encoding="utf-8")


def test_training_without_held_out_questions_is_refused(tasks: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "qa1_train.txt").write_bytes((tasks / "qa1_train.txt").read_bytes())
    assert train(folder, tmp_path / "out") == 2
    assert train(folder / "qa1_train.txt", tmp_path / "out") == 2

"""Translation, from sentence pairs to a bundle, to words and their alignment, and the command line."""

from __future__ import annotations

import gzip
import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import recur
from recur.bundle import read_bundle, write_bundle
from recur.bundle.translation import translation_shapes
from recur.cli import main
from recur.data.lines import Line
from recur.data.pairs import hold_out, read_pairs
from recur.data.subwords import END, UNK, Subwords, clean, learn_pieces, split_words
from recur.engine.hypotheses import log_softmax
from recur.engine.reference import caption_logits, scan
from recur.errors import InputError, RecurError
from recur.metrics.translation import bleu, chrf
from recur.predict.translation import Translator

NOUNS = {"dog": "Hund", "cat": "Kater", "man": "Mann", "boy": "Junge"}
VERBS = {"runs": "rennt", "sleeps": "schläft", "sings": "singt"}
PLACES = {"here": "hier", "there": "dort", "outside": "draußen"}


def sentences() -> tuple[list[str], list[str]]:
    """Every sentence that the little grammar has, in English and in German."""
    english, german = [], []
    for noun, hauptwort in NOUNS.items():
        for verb, tunwort in VERBS.items():
            for place, ort in PLACES.items():
                english.append(f"A {noun} {verb} {place}.")
                german.append(f"Ein {hauptwort} {tunwort} {ort}.")
    return english, german


def write_pairs(folder: Path, count: int = 36) -> tuple[Path, Path]:
    english, german = (side[:count] for side in sentences())
    paths = folder / "train.en", folder / "train.de.gz"
    paths[0].write_text("\n".join(english) + "\n", encoding="utf-8")
    paths[1].write_bytes(gzip.compress(("\n".join(german) + "\n").encode()))
    return paths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, English and German both ways. Not to be changed."""
    return write_translation_bundle(tmp_path_factory.mktemp("translation") / "tiny")


def write_translation_bundle(path: Path) -> Path:
    """The same at `path`."""
    english, german = sentences()
    random = np.random.default_rng(5)
    subwords = Subwords(learn_pieces([*english, *german], 70, least=1), ("en", "de"))
    sizes: dict[str, Any] = {
        "cell": "lstm", "hidden": 6, "encoder_hidden": 4, "layers": 2, "embedding": 5, "attention": 3,
    }  # fmt: skip
    shapes = translation_shapes(**sizes, vocabulary=len(subwords))
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    meta = {
        "task": "translate",
        "name": "tiny",
        "languages": ["en", "de"],
        "directions": [["en", "de"], ["de", "en"]],
        "vocabulary_size": len(subwords),
        "decode": {"beam": 3, "length_penalty": 0.5},
        **sizes,
    }
    return write_bundle(
        path, meta, weights, tokenizer=subwords.to_bytes(), encoder=None, card="# tiny\n", quantize=False
    )


# ------------------------------------------------------------------------------------------------------------- pieces


def test_words_put_together_are_the_text_again() -> None:
    for text in ("A man's hat, 3.5 €!", "你好，世界。", "snake_case  and\ttabs", "ß ▁ x"):
        plain = clean(text)
        assert "".join(split_words(plain)).replace("▁", " ").strip() == plain
    assert split_words("") == []
    assert split_words("ein Mann.") == ["▁ein", "▁Mann", "."]


def test_pieces_are_learned_from_pairs_that_stand_together_often() -> None:
    pieces = learn_pieces(["low low low lower lowest", "new newest"], 20, least=1)
    assert "▁low" in pieces
    assert len(pieces) == len(set(pieces)) <= 20
    subwords = Subwords(pieces, ("en",))
    assert [subwords.tokens[number] for number in subwords.encode("low")] == ["▁low"]
    assert subwords.decode(subwords.encode("lower new")) == "lower new"
    assert learn_pieces(["low low low lower lowest", "new newest"], 20, least=1) == pieces


def test_unknown_letters_are_copied_and_known_ones_spell_any_word() -> None:
    # Chinese words are not told apart by spaces: its pieces are characters.
    assert learn_pieces(["我们 我们 我们", "low low"], 30, least=1) == [
        "▁",
        "们",
        "我",
        "l",
        "o",
        "w",
        "lo",
        "low",
        "▁low",
    ]
    subwords = Subwords(learn_pieces(["abc cab bca"], 12, least=1), ("en",))
    assert UNK not in subwords.encode("bacca")
    assert subwords.decode(subwords.encode("bacca")) == "bacca"
    numbers = subwords.encode("abc 猫 cab")
    assert numbers.count(UNK) == 1
    assert subwords.decode(numbers, ["▁猫"]) == "abc 猫 cab"
    assert subwords.decode(numbers) == "abc cab"


def test_subwords_on_disk() -> None:
    subwords = Subwords(["▁a", "b", "▁"], ("en", "de"), {"en": [5, 6], "de": [7]})
    again = Subwords.from_bytes(subwords.to_bytes())
    assert again.tokens == subwords.tokens
    assert again.allowed("en").tolist() == [END, UNK, 5, 6]
    assert again.to_bytes() == subwords.to_bytes()
    for data in (b"", b"[]", b'{"format": 1}', subwords.to_bytes().replace(b'"b"', b'"\xe2\x96\x81"'), b"\xff"):
        with pytest.raises(RecurError):
            Subwords.from_bytes(data)
    with pytest.raises(RecurError, match="numbers that do not exist"):
        Subwords(["a"], ("en",), {"en": [9]})


# -------------------------------------------------------------------------------------------------------------- pairs


def test_every_format_gives_the_same_pairs(tmp_path: Path) -> None:
    first, second = write_pairs(tmp_path)
    expected = read_pairs([first, second], "en", "de")
    assert len(expected) == 36
    assert read_pairs([tmp_path / "train"], "en", "de") == expected
    rows = list(zip(expected.source, expected.target, strict=True))
    (tmp_path / "a.tsv").write_text("".join(f"{a}\t{b}\tnote\n" for a, b in rows), encoding="utf-8")
    (tmp_path / "b.csv").write_text("de,en\n" + "".join(f'"{b}","{a}"\n' for a, b in rows), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"en": a, "de": b}) + "\n" for a, b in rows), encoding="utf-8")
    for name in ("a.tsv", "b.csv", "c.jsonl"):
        assert read_pairs([tmp_path / name], "en", "de") == expected, name
    train, dev = hold_out(expected)
    assert len(train) + len(dev) == 36


def test_files_with_different_numbers_of_lines_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("one\ntwo\nthree\n", encoding="utf-8")
    second.write_text("eins\nzwei\n", encoding="utf-8")
    with pytest.raises(RecurError, match=r"a has 3 lines, .*b has 2; expected as many"):
        read_pairs([first, second], "en", "de")
    second.write_bytes(b"eins\n\n\xff\n")
    found = read_pairs([first, second], "en", "de")
    assert found.source == ["one"]
    assert len(found.problems) == 2
    with pytest.raises(RecurError, match="no such file"):
        read_pairs([tmp_path / "c"], "en", "de")
    with pytest.raises(RecurError, match="expected a table"):
        read_pairs([first], "en", "de")


# ------------------------------------------------------------------------------------------------------------- scores


def test_scores_equal_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    references = [
        "A man in a red hat, 3.5 m tall, isn't here - he's gone.",
        "Zwei Hunde rennen über 1,000 Wiesen & Felder!",
        "你好，世界。今天天气很好。",
        "x",
    ]
    candidates = [
        "a man with red hat, 3.5 m tall, is here - gone.",
        "Zwei Hunde laufen über Wiesen",
        "你好世界。天气好。",
        "",
    ]
    for some in (slice(0, 4), slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)):
        ours, truth = candidates[some], references[some]
        expected = sacrebleu.corpus_bleu(ours, [truth], lowercase=True).score
        assert bleu(ours, truth) == pytest.approx(expected, abs=1e-9)
        expected = sacrebleu.corpus_bleu(ours, [truth], lowercase=True, tokenize="char").score
        assert bleu(ours, truth, cut="char") == pytest.approx(expected, abs=1e-9)
        assert chrf(ours, truth) == pytest.approx(sacrebleu.corpus_chrf(ours, [truth]).score, abs=1e-9)


def test_scores_of_known_cases() -> None:
    assert bleu(["the cat sat on the mat"], ["The cat sat on the mat"]) == pytest.approx(100)
    assert chrf(["ab"], ["ab"]) == pytest.approx(100)
    # Unigrams 4/5, bigrams 3/4, trigrams 2/3, one 4-gram of 2; as long as the reference.
    assert bleu(["a b c d x"], ["a b c d e"]) == pytest.approx(100 * (0.8 * 0.75 * 2 / 3 * 0.5) ** 0.25)
    with pytest.raises(ValueError, match="1 candidates, 2 references"):
        bleu(["a"], ["a", "b"])


# -------------------------------------------------------------------------------------------------------- translation


def test_log_prob_equals_plain_loops(model: Path) -> None:
    bundle, translator = read_bundle(model), recur.load(model)
    subwords = translator.subwords
    text = "A dog sings here."
    ids = np.array([subwords.encode(text)])
    stack = {name.removeprefix("encoder."): value for name, value in bundle.weights.items() if "encoder." in name}
    features, _ = scan("lstm", bundle.weights["embedding.weight"][ids], stack, bidirectional=True)
    part = next(translator._cut(clean(text)))
    (best,) = translator.search([part], "de", 3, 0.5)
    tokens = np.array([[subwords.language_id("de"), *best.tokens.tolist()]])
    logits, attention = caption_logits(features, tokens, bundle.weights, cell="lstm", layers=2, attention=True)
    words = subwords.allowed("de")
    words = words[words != UNK]
    chances = log_softmax(logits[0][:, words].astype(np.float64))
    total = sum(chances[step, np.searchsorted(words, word)] for step, word in enumerate([*best.tokens.tolist(), END]))
    assert best.log_prob == pytest.approx(total, abs=1e-3)
    assert attention is not None
    assert best.attention == pytest.approx(attention[0, : len(best.tokens)], abs=1e-5)


def test_batches_and_order_change_nothing(model: Path) -> None:
    translator = recur.load(model)
    texts = sentences()[0][:9]
    together = translator(texts, source="en", target="de")
    assert [translator(text, source="en", target="de")[0] for text in texts] == together
    assert [result.source for result in together] == texts
    assert {result.languages for result in together} == {("en", "de")}
    for result in together:
        assert all(0 < share <= 1.0001 for _, _, share in result.alignment)
        assert {other for _, other, _ in result.alignment} <= {*result.source.rstrip(".").split(), "."}
        assert "".join(word for word, _, _ in result.alignment) == result.translation.replace(" ", "")


def test_texts_of_several_sentences_are_cut(model: Path) -> None:
    translator = recur.load(model)
    text = "A dog runs here. A cat sleeps there. " * 10
    (whole,) = translator(text)
    parts = list(translator._cut(clean(text)))
    assert len(parts) == 20
    first, second = translator(["A dog runs here.", "A cat sleeps there."])
    assert whole.translation == " ".join([first.translation, second.translation] * 10)
    assert whole.log_prob == pytest.approx(10 * (first.log_prob + second.log_prob), abs=1e-3)
    assert len(list(translator._cut("dog " * 3000))) > 50


def test_what_cannot_be_spelled_is_copied(model: Path) -> None:
    translator = recur.load(model)
    (result,) = translator("👍 🎉")
    assert result.translation == "👍 🎉"
    (mixed,) = translator("A 猫 runs here.")
    assert "<unk>" not in mixed.translation
    # Where UNK is written, it becomes the strange word that is looked at.
    part = next(translator._cut("A 猫 runs здесь."))
    assert part.strange
    looks = np.zeros((2, len(part.ids)))
    unknown = [place for place, number in enumerate(part.ids) if number == UNK]
    looks[0, unknown[1]], looks[1, unknown[0]] = 1.0, 1.0
    best = SimpleNamespace(tokens=np.array([UNK, UNK]), attention=looks, log_prob=-1.0)
    assert translator._told(part, best, ended=True).text == "здесь 猫"


def test_what_has_no_full_stop_is_read_with_one(model: Path) -> None:
    translator = recur.load(model)
    for text in ("A dog sings here", "dog"):
        without, with_mark = translator([text, f"{text}."], source="en", target="de")
        assert without.log_prob == with_mark.log_prob
        assert with_mark.translation in {without.translation, *(without.translation + mark for mark in ".!?")}
        assert without.parts[0].source == tuple(text.split())
        assert all(sum(row) == pytest.approx(1) for row in without.parts[0].weights)
    # The mark of the translation goes, unless it is all there is; that of a question stays.
    part = next(translator._cut("A dog"))
    numbers = translator.subwords.encode("Ein Hund.")
    best = SimpleNamespace(
        tokens=np.array(numbers), attention=np.full((len(numbers), len(part.ids) + 1), 0.1), log_prob=-1.0
    )
    assert translator._told(part, best, ended=False).text == "Ein Hund"
    assert translator._told(part, best, ended=True).text == "Ein Hund."
    best = SimpleNamespace(tokens=np.array(numbers[-1:]), attention=np.full((1, len(part.ids) + 1), 0.1), log_prob=-1.0)
    assert translator._told(part, best, ended=False).text == "."


def test_texts_that_fail_keep_their_place(model: Path) -> None:
    error = InputError("x", "broken")
    texts = ["A dog.", "", Line("f: line 3", " \t "), error, "x"]
    results = list(recur.load(model).stream(texts, batch=2))
    assert [isinstance(result, InputError) for result in results] == [False, True, True, True, False]
    assert str(results[1]) == "text 2: empty; give some words"
    with pytest.raises(RecurError, match="translates en to de, de to en"):
        recur.load(model)("a", source="fr")


def test_a_slow_pipe_is_not_waited_for(model: Path) -> None:
    seen = threading.Event()

    def slow() -> Iterator[str]:
        yield from ("good", "bad", "the film")
        assert seen.wait(30), "results of three texts were kept back until there were more"
        yield "fine"

    results = recur.load(model).stream(slow())
    assert all(next(results) is not None for _ in range(3))
    seen.set()
    assert len(list(results)) == 1


def test_a_bundle_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    bundle = read_bundle(model)
    for changes, message in (
        ({"directions": [["en", "fr"]]}, "directions"),
        ({"hidden": -1}, "hidden -1"),
        ({"decode": {"beam": 0, "length_penalty": 0}}, "beam of 0"),
        ({"decode": {"beam": 1, "length_penalty": -1}}, "length penalty of -1"),
        ({"encoder_hidden": 7}, "of shape"),
        ({"vocabulary_size": 12}, "bundle.json says 12"),
        ({"cell": "x"}, "cell 'x'"),
    ):
        with pytest.raises(RecurError, match=message):
            write_bundle(
                tmp_path / "b",
                {**bundle.meta, **changes},
                bundle.weights,
                tokenizer=bundle.tokenizer,
                encoder=None,
                card="",
            )
    with pytest.raises(RecurError, match="expected one for 'translate'"):
        Translator(SimpleNamespace(task="caption", path="x"))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- command line


def test_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["translate", "--model", str(model), "--from", "en", "--to", "de"]
    assert main([*options, "--json", "A dog runs.", "A cat"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["source"] for row in rows] == ["A dog runs.", "A cat"]
    assert list(rows[0]) == ["source", "translation", "log_prob", "alignment", "from", "to", "model"]
    assert main([*options, "--align", "A dog runs."]) == 0
    assert capsys.readouterr().out.splitlines()[0] == rows[0]["translation"]
    table = tmp_path / "t.jsonl"
    table.write_text('{"en": "A cat"}\n{"fr": "x"}\n', encoding="utf-8")
    assert main([*options, "--file", str(table), "--column", "en"]) == 1
    captured = capsys.readouterr()
    assert captured.out.strip() == rows[1]["translation"]
    assert "row 2: no 'en'" in captured.err
    assert main(["translate", "--model", str(model), "--from", "fr", "x"]) == 2
    assert "en to de" in capsys.readouterr().err
    assert main(["translate", "--from", "xx", "--to", "yy", "x"]) == 2
    assert "xx to yy: no embedded model" in capsys.readouterr().err


def test_bad_lines_are_named_and_the_others_go_on(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"A dog\n\nx\n\xff\n" + "mixed 很好 текст 👍 עברית\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))
    assert main(["translate", "--model", str(model), "--json"]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["source"] for line in captured.out.splitlines()] == [
        "A dog", "x", "mixed 很好 текст 👍 עברית",
    ]  # fmt: skip
    assert captured.err.splitlines() == [
        "standard input: line 2: empty; give some words",
        "standard input: line 4: no UTF-8 (byte 0xff at 0); convert it",
    ]


def test_a_long_line_is_translated_in_parts(model: Path) -> None:
    # 10 MB take minutes of arithmetic; that the parts are made one by one is what keeps the memory flat.
    translator = recur.load(model)
    parts = translator._parts(["A dog runs here. " * 600_000])
    text, part, last = next(parts)
    assert len(text) > 10_000_000
    assert len(part.ids) < 30
    assert not last


def test_evaluate(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write_pairs(tmp_path)
    options = ["evaluate", "translate", "--model", str(model), "--from", "en", "--to", "de", "--json", "--limit", "7"]
    assert main([*options, "--data", str(first), str(second)]) == 0
    row = json.loads(capsys.readouterr().out)
    english, german = sentences()
    found = [each.translation for each in recur.load(model)(english[:7], source="en", target="de")]
    assert row["pairs"] == 7
    assert row["bleu"] == pytest.approx(bleu(found, german[:7]), abs=0.01)
    assert row["chrf"] == pytest.approx(chrf(found, german[:7]), abs=0.01)


# ----------------------------------------------------------------------------------------------------------- training


def test_training_learns_resumes_and_writes_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from recur.train import translation as training
    from recur.train.checkpoint import load_checkpoint

    write_pairs(tmp_path, 18)
    options = ["--data", str(tmp_path / "train"), "--dev", str(tmp_path / "train"), "--from", "en", "--to", "de"]
    options += ["--pieces", "90", "--embedding", "24", "--hidden", "48", "--encoder", "24"]
    options += ["--epochs", "16", "--dropout", "0"]
    monkeypatch.setattr(training, "RATE", 0.02)
    monkeypatch.setattr(training, "STEP_PIECES", 40)
    monkeypatch.setattr(training, "AVERAGE", 0.9)
    monkeypatch.setattr(training, "ATTENTION", 16)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", "translate", *options, "--out", str(whole)]) == 0
    meta = read_bundle(whole).meta
    assert meta["results"]["dev"]["en-de"]["bleu"] > 15  # of a network that has not learned: below 1
    translator = recur.load(whole)
    (result,) = translator("A dog sleeps outside.", source="en", target="de")
    assert result.translation.startswith("Ein ")
    assert result.alignment[0][0] == "Ein"

    # Stopped in the third epoch and taken up again, it ends with the same weights.
    epoch = training._epoch

    def stopped(run: Any, number: int, optimizer: Any, stop: Any) -> float | None:
        if number == 2:
            stop.request("the test")
        return epoch(run, number, optimizer, stop)

    monkeypatch.setattr(training, "_epoch", stopped)
    assert main(["train", "translate", *options, "--out", str(parts)]) == 0
    assert not parts.exists()
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(training, "_epoch", epoch)
    assert main(["train", "translate", *options, "--out", str(parts), "--resume"]) == 0
    first, second = read_bundle(whole), read_bundle(parts)
    for name, value in first.weights.items():
        assert np.array_equal(value, second.weights[name]), name
    watched = [load_checkpoint(tmp_path / f"{out}.work" / "checkpoint").extra["watched"] for out in ("whole", "parts")]
    assert watched[0] == watched[1]
    assert [each["epoch"] for each in watched[0]] == list(range(1, 17))
    assert all(min(each["gradients"]) > 0 and "forwards.weight_hh_l0" in each["ratios"] for each in watched[0])
    page = (tmp_path / "whole.work" / "training.html").read_text("utf-8")
    assert page.count('<img src="data:image/png;base64,') == 3
    assert '<th scope="col">BLEU en-de</th>' in page
    # Nobody looks: the same weights again.
    unseen = tmp_path / "unseen"
    monkeypatch.setattr(training, "pairs_to_follow", lambda *given: None)
    monkeypatch.setattr(training, "weights_of", lambda network: None)
    assert main(["train", "translate", *options, "--out", str(unseen)]) == 0
    assert (tmp_path / "unseen.work" / "training.html").read_text("utf-8").count("<img") == 1
    for name, value in read_bundle(unseen).weights.items():
        assert np.array_equal(value, first.weights[name]), name
    assert main(["train", "translate", *options, "--seed", "2", "--out", str(parts), "--resume"]) == 2
    assert "seed was 1, now 2" in capsys.readouterr().err


def test_both_directions_learn_from_the_same_pairs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from recur.train.translation import encode, epoch_batches, make_subwords, train_translation

    pairs = read_pairs(write_pairs(tmp_path), "en", "de")
    subwords = make_subwords([pairs], "en", "de", 80)
    there = encode(pairs, subwords, ("en", "de"), turned=False)
    back = encode(pairs, subwords, ("de", "en"), turned=True)
    assert there.source == back.target
    assert subwords.decode(back.source[3]) == pairs.target[3]
    assert set(subwords.encode("Hund")) <= set(subwords.allowed("de").tolist())
    run = SimpleNamespace(train=[there, back], seed=1)
    batches = list(epoch_batches(run, 0))  # type: ignore[arg-type]
    assert batches == list(epoch_batches(run, 0))  # type: ignore[arg-type]
    assert batches != list(epoch_batches(run, 1))  # type: ignore[arg-type]
    assert sorted(row for number, rows in batches for row in rows if number) == list(range(len(back)))
    options: dict[str, Any] = {"pieces": 70, "embedding": 4, "hidden": 4, "encoder": 4, "epochs": 1, "both": True}
    train_translation(
        data=[tmp_path / "train"], dev=[tmp_path / "train"], out=tmp_path / "b", source="en", target="de", **options
    )
    assert {*read_bundle(tmp_path / "b").meta["results"]["dev"]} == {"en-de", "de-en"}


def test_pairs_of_another_kind_are_read_less_and_less(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recur.train.translation import encode, epoch_batches, make_subwords, pair_loss

    pairs = read_pairs(write_pairs(tmp_path), "en", "de")
    subwords = make_subwords([pairs], "en", "de", 80)
    corpora = [encode(pairs, subwords, ("en", "de"), turned=False, repeat=2)]
    corpora.append(encode(pairs, subwords, ("en", "de"), turned=False, passing=True))
    assert [len(each) for each in corpora] == [72, 36]
    run = SimpleNamespace(train=corpora, seed=1, epochs=6)
    read = [
        [sum(len(rows) for number, rows in epoch_batches(run, epoch) if number == which) for epoch in range(6)]  # type: ignore[arg-type]
        for which in range(2)
    ]
    assert read == [[72] * 6, [36, 24, 12, 0, 0, 0]]

    # What a step does not see is PAD, on both sides, but never the language.
    seen = []

    def network(source: Any, lengths: Any, tokens: Any, sizes: Any, words: Any, *among: Any) -> Any:
        seen.append((source, tokens))
        raise StopIteration

    torch.manual_seed(0)
    for share in (0.0, 0.5):
        with pytest.raises(StopIteration):
            pair_loss(network, subwords, corpora[0], [0, 2], share)  # type: ignore[arg-type]
    (source, tokens), (fewer, less) = seen
    assert (source != 0).all()
    for before, after in ((source, fewer), (tokens[:, 1:], less[:, 1:])):
        assert 0.2 < (after == 0).float().mean() < 0.8
        assert (after == before)[after != 0].all()
    assert (less[:, 0] == subwords.language_id("de")).all()


def test_a_translator_learns_from_further_tables(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    write_pairs(tmp_path)
    table = tmp_path / "more.tsv"
    table.write_text("en\tde\nthe house\tdas Haus\n\tleer\n", encoding="utf-8")
    options = ["--data", str(tmp_path / "train"), "--also", str(table), "--from", "en", "--to", "de", "--pieces", "70"]
    options += ["--repeat", "2", "--word-dropout", "0.1", "--embedding", "4", "--hidden", "4", "--encoder", "4"]
    assert main(["train", "translate", *options, "--epochs", "2", "--out", str(tmp_path / "b")]) == 0
    training = read_bundle(tmp_path / "b").meta["training"]
    assert training["pairs"] + training["held_out"] == 36 + 1
    assert (training["repeat"], training["word_dropout"]) == (2, 0.1)


def test_pairs_of_the_most_common_lengths_are_followed(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.translation import TranslationNetwork
    from recur.train.translation import make_subwords
    from recur.train.watch_translation import gradients_to_source, pairs_to_follow

    subwords = make_subwords([read_pairs(write_pairs(tmp_path), "en", "de")], "en", "de", 80)
    allowed = subwords.allowed("de").tolist()
    pieces = [number for number in allowed if number >= subwords.first]
    sources = [[pieces[0]] * 3, [pieces[1]] * 2, [pieces[1]] * 2, *([piece] * 3 for piece in pieces[:10])]
    targets = [[pieces[2]], [pieces[1]] * 4, [pieces[1]] * 4, *([piece] * 2 for piece in pieces[:10])]
    followed = pairs_to_follow(sources, targets, subwords, "de")
    assert followed is not None
    assert followed.rows.tolist() == list(range(3, 11))
    assert followed.tokens[1].tolist() == [subwords.language_id("de"), pieces[1], pieces[1]]
    assert allowed[followed.end] == END
    torch.manual_seed(0)
    network = TranslationNetwork(vocabulary=len(subwords), embedding=5, hidden=6, encoder=4, attention=3)
    first = gradients_to_source(network, sources, followed)
    assert network.training
    assert len(first) == 3
    assert first == gradients_to_source(network, sources, followed), "no dropout"
    assert all(value.grad is None for value in network.parameters())
    assert pairs_to_follow([], [], subwords, "de") is None


def test_network_equals_engine() -> None:
    torch = pytest.importorskip("torch")
    from recur.nn.translation import TranslationNetwork

    torch.manual_seed(0)
    network = TranslationNetwork(vocabulary=13, embedding=5, hidden=6, encoder=4, attention=3).eval()
    source, lengths = torch.randint(3, 13, (3, 7)), torch.tensor([7, 2, 5])
    tokens, sizes = torch.randint(3, 13, (3, 6)), torch.tensor([3, 6, 1])
    packing, scores = network(source, lengths, tokens, sizes, torch.arange(13))
    weights = {name: value.numpy() for name, value in network.engine_weights().items()}
    stack = {name.removeprefix("encoder."): value for name, value in weights.items() if "encoder." in name}
    for row in range(3):
        ids = source[row : row + 1, : lengths[row]].numpy()
        features, _ = scan("lstm", weights["embedding.weight"][ids], stack, bidirectional=True)
        given = tokens[row : row + 1, : sizes[row]].numpy()
        logits, _ = caption_logits(features, given, weights, cell="lstm", layers=2, attention=True)
        here = packing.row == row
        got = scores[here][torch.argsort(packing.step[here])].detach().numpy()
        assert got == pytest.approx(logits[0], abs=1e-4)

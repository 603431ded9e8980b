"""The captioner on a tiny bundle with random weights."""

from __future__ import annotations

import html
import json
import math
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import CHANNELS, CHINESE, ENGLISH, SIZE, write_tiny_bundle
from PIL import Image

import recur
from recur.bundle import BundleError, read_bundle, update_bundle
from recur.data.images import read_picture, to_square
from recur.data.text import detokenize
from recur.engine.reference import caption_logits
from recur.engine.search import search_features
from recur.errors import InputError, RecurError
from recur.predict.caption import Caption, Captioner
from recur.predict.regions import attended_regions
from recur.predict.voice import calibrated


@pytest.fixture(autouse=True, scope="module")
def _exact() -> Iterator[None]:
    """Tiny bundles are stored in 8 bits and would be computed in them; these tests want more places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECUR_PRECISION", "float32")
        yield


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    return recur.load(tiny_bundle, threads=1)


def close(one: Caption, other: Caption) -> None:
    """Equal but for the last digits."""
    assert one.caption == other.caption
    assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert [word.region for word in one.words] == [word.region for word in other.words]


def test_a_caption_is_what_the_reference_scores(captioner: Captioner, photos: list[Path]) -> None:
    (caption,) = captioner([photos[0]])
    bundle = captioner.bundle
    vocabulary = bundle.vocabulary()
    pixels = to_square(read_picture(photos[0], target=SIZE), SIZE)
    features = captioner.encoder(pixels[None]).astype(np.float64)
    ids = vocabulary.encode([word.word for word in caption.words])
    weights = {name: value.astype(np.float64) for name, value in bundle.weights.items()}
    tokens = np.array([[vocabulary.language_id("en"), *ids]])
    logits, alpha = caption_logits(features, tokens, weights, cell="lstm", layers=2, attention=True)
    logits[:, :, ~vocabulary.allowed("en")] = -np.inf
    log_probs = logits[0] - np.log(np.exp(logits[0]).sum(axis=1, keepdims=True))
    chosen = log_probs[np.arange(len(ids) + 1), [*ids, 1]]
    assert caption.log_prob == pytest.approx(float(chosen.sum()), abs=1e-4)
    assert alpha is not None
    for place, word in enumerate(caption.words):
        assert word.log_prob == pytest.approx(float(chosen[place]), abs=1e-4)
        others = [int(other) for other in np.argsort(-log_probs[place]) if other != ids[place]][:5]
        names = ["<end>" if other == 1 else vocabulary.tokens[other] for other in others]
        assert [other for other, _ in word.alternatives] == names
        np.testing.assert_allclose([p for _, p in word.alternatives], np.exp(log_probs[place, others]), atol=1e-5)
        assert word.attention is not None
        assert word.attention.shape == (3, 3)
        # Where it looked: against what it looks at for every word, weighed by how much it read there.
        usual = [np.mean([alpha[0, each, r] for each in range(len(caption.words))]) for r in range(9)]
        shares = [alpha[0, place, r] / usual[r] * math.hypot(*features[0, r]) for r in range(9)]
        np.testing.assert_allclose(word.attention.reshape(-1), np.array(shares) / sum(shares), atol=1e-5)
        assert [word.region] == attended_regions(word.attention[None], 100, 80)
    assert caption.caption == detokenize([word.word for word in caption.words], "en")
    assert (caption.width, caption.height, caption.model, caption.language) == (100, 80, "tiny", "en")
    assert caption.path == str(photos[0])


def test_words_come_from_the_language(captioner: Captioner, photos: list[Path]) -> None:
    english = captioner(photos, lang="en")
    chinese = captioner(photos, lang="zh")
    assert {word.word for each in english for word in each.words} <= set(ENGLISH)
    assert {word.word for each in chinese for word in each.words} <= {*CHINESE, "3"}
    assert all(1 <= len(each.words) <= 6 for each in english)
    assert all(1 <= len(each.words) <= 8 for each in chinese)
    assert captioner(photos)[0].language == "en"
    assert len({each.caption for each in english}) > 1


def test_a_batch_gives_what_single_pictures_give(captioner: Captioner, photos: list[Path]) -> None:
    together = captioner(photos, batch=16)
    for batch in (1, 2, 3):
        for one, other in zip(captioner(photos, batch=batch), together, strict=True):
            close(one, other)
    for photo, other in zip(photos, together, strict=True):
        close(captioner(photo)[0], other)


def test_paths_bytes_pictures_and_arrays(captioner: Captioner, photos: list[Path]) -> None:
    with Image.open(photos[1]) as picture:
        picture.load()
    array = np.asarray(picture)
    sources: list[Any] = [photos[1], str(photos[1]), photos[1].read_bytes(), picture, array]
    found = captioner(sources)
    assert [each.path for each in found] == [str(photos[1]), str(photos[1]), None, None, None]
    for each in found[1:]:
        close(each, found[0])
    for source in sources:
        close(captioner(source)[0], found[0])
    assert captioner([]) == []
    close(captioner(each for each in [array])[0], found[0])
    close(captioner(np.stack([array, array]))[1], found[0])


def test_beam_and_n_best(captioner: Captioner, photos: list[Path]) -> None:
    (plain,) = captioner(photos[:1])
    (many,) = captioner(photos[:1], n_best=5)
    assert len(plain.n_best) == 1
    assert plain.n_best[0] == (plain.caption, plain.log_prob)
    assert len(many.n_best) == 5
    assert many.n_best[0][0] == many.caption
    assert len({caption for caption, _ in many.n_best}) == 5
    (greedy,) = captioner(photos[:1], beam=1)
    (wide,) = captioner(photos[:1], beam=60)
    count = len(wide.words) + 1, len(greedy.words) + 1
    assert wide.log_prob / count[0] ** 0.5 >= greedy.log_prob / count[1] ** 0.5


def test_streams_go_on_past_what_cannot_be_read(captioner: Captioner, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("not a picture")
    missing = tmp_path / "missing.jpg"
    paths = [broken, photos[0], missing, *photos[1:], broken]
    results = list(captioner.stream(iter(paths), batch=3))
    assert [isinstance(each, InputError) for each in results] == [True, False, True, *[False] * 6, True]
    captions = [each for each in results if isinstance(each, Caption)]
    assert [each.path for each in captions] == [str(path) for path in photos]
    for one, other in zip(captions, captioner(photos), strict=True):
        close(one, other)
    assert str(results[2]).startswith(f"{missing}: ")
    assert list(captioner.stream([])) == []
    assert len(list(captioner.stream([broken, broken]))) == 2


def test_a_call_raises_what_cannot_be_read(captioner: Captioner, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.jpg"):
        captioner([photos[0], tmp_path / "missing.jpg"])
    with pytest.raises(InputError, match="pixels"):
        captioner([photos[0]], max_pixels=100)


def test_streams_read_only_a_little_ahead(captioner: Captioner, photos: list[Path]) -> None:
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield photos[taken % len(photos)]

    stream = captioner.stream(endless(), batch=2)
    for number in range(1, 12):
        next(stream)
        assert taken <= number + 2 + 2 * 2 + 2


def test_a_live_source_is_answered_picture_by_picture(captioner: Captioner, photos: list[Path]) -> None:
    given: queue.Queue[Path | None] = queue.Queue()
    stream = captioner.stream(iter(given.get, None))
    for photo in [*photos, Path("missing.jpg"), photos[0]]:
        given.put(photo)  # and nothing more before the answer is there
        answer = next(stream)
        assert answer.path == str(photo)
    given.put(None)
    assert list(stream) == []


def test_memory_stays_flat_over_failures(captioner: Captioner, photos: list[Path], tmp_path: Path) -> None:
    taken = 0

    def failures() -> Iterator[Path]:
        nonlocal taken
        yield photos[0]
        yield photos[1]
        while True:
            taken += 1
            yield tmp_path / "missing.jpg"

    stream = captioner.stream(failures(), batch=4)
    assert [isinstance(next(stream), Caption) for _ in range(2)] == [True, True]
    for number in range(1, 100):
        assert isinstance(next(stream), InputError)
        assert taken <= number + 3 * 2 * 4


def test_groups_grow_and_failures_at_the_front_go_on_at_once(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    see = captioner._see
    monkeypatch.setattr(captioner, "_see", lambda group, settings: sizes.append(len(group)) or see(group, settings))
    monkeypatch.setattr("recur.predict.pictures.IDLE_SECONDS", 10.0)
    missing = Path("missing.jpg")
    results = list(captioner.stream([missing, *photos, *photos[:3], missing, missing, *photos], batch=6))
    assert len(results) == 20
    assert sizes == [1, 1, 4, 8, 6]
    sizes.clear()
    captioner(photos * 2, batch=6)
    assert sizes == [6, 6, 2]


def test_the_next_group_is_encoded_while_one_is_searched(
    captioner: Captioner, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    second = threading.Event()
    see = captioner._see

    def note(group: Any, settings: Any) -> Any:
        seen.append(len(group))
        if len(seen) == 2:
            second.set()
        return see(group, settings)

    monkeypatch.setattr(captioner, "_see", note)
    stream = captioner.stream(photos, batch=2)
    next(stream)
    assert second.wait(10), "nothing is encoded before it is asked for"
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recur-")]


def test_a_source_that_fails_is_heard_after_what_it_gave(captioner: Captioner, photos: list[Path]) -> None:
    def broken() -> Iterator[Path]:
        yield from photos[:2]
        raise LookupError("the list broke")

    stream = captioner.stream(broken())
    assert [next(stream).path for _ in range(2)] == [str(path) for path in photos[:2]]
    with pytest.raises(LookupError, match="the list broke"):
        next(stream)


def test_words_only_when_wanted(captioner: Captioner, photos: list[Path]) -> None:
    for one, other in zip(captioner.stream(photos, words=False, n_best=2), captioner(photos, n_best=2), strict=True):
        assert not isinstance(one, InputError)
        assert one.words == ()
        assert one.caption == other.caption
        assert one.n_best[1][0] == other.n_best[1][0]
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
    (pair,) = captioner.stream_languages(photos[:1], words=False)
    assert not isinstance(pair, InputError)
    assert [each.words for each in pair] == [(), ()]


def test_several_languages_at_once(captioner: Captioner, photos: list[Path]) -> None:
    pairs = list(captioner.stream_languages(photos[:3], batch=2))
    for pair, english, chinese in zip(
        pairs, captioner(photos[:3], lang="en"), captioner(photos[:3], lang="zh"), strict=True
    ):
        assert not isinstance(pair, InputError)
        assert [each.language for each in pair] == ["en", "zh"]
        close(pair[0], english)
        close(pair[1], chinese)
    only = next(iter(captioner.stream_languages(photos[:1], ("zh",))))
    assert not isinstance(only, InputError)
    assert [each.language for each in only] == ["zh"]


def test_json_as_promised(captioner: Captioner, photos: list[Path]) -> None:
    (caption,) = captioner(photos[:1], n_best=2)
    line = json.loads(json.dumps(caption.to_json(), allow_nan=False))
    assert list(line) == ["path", "caption", "language", "confidence", "log_prob", "words", "n_best", "model"]
    assert line["caption"] == caption.caption
    assert 0 <= line["confidence"] <= 1
    assert list(line["words"][0]) == ["word", "log_prob", "alternatives", "region"]
    assert len(line["words"][0]["alternatives"]) == 5
    assert line["words"][0]["region"] == list(caption.words[0].region or ())
    assert line["n_best"][1] == [caption.n_best[1][0], round(caption.n_best[1][1], 4)]


def test_another_length_penalty_for_a_search(tmp_path: Path, captioner: Captioner, photos: list[Path]) -> None:
    features = captioner.encoder(np.stack([to_square(read_picture(path, target=SIZE), SIZE) for path in photos]))
    decode = {**captioner.bundle.meta["decode"], "length_penalty": 2.0}
    written = recur.load(write_tiny_bundle(tmp_path / "b", decode=decode), threads=1)
    for one, other in zip(captioner.search(features, length_penalty=2.0), written.search(features), strict=True):
        assert one[0].tokens.tolist() == other[0].tokens.tolist()
        assert one[0].score == pytest.approx(other[0].score, abs=1e-5)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(RecurError, match="length_penalty"):
            captioner.search(features, length_penalty=wrong)


def test_features_can_be_searched_alone(captioner: Captioner, photos: list[Path]) -> None:
    captions = captioner(photos, n_best=2)
    pixels = np.stack([to_square(read_picture(path, target=SIZE), SIZE) for path in photos])
    vocabulary = captioner.bundle.vocabulary()
    for found, caption in zip(captioner.search(captioner.encoder(pixels), n_best=2), captions, strict=True):
        assert len(found) == 2
        assert vocabulary.decode(found[0].tokens) == [word.word for word in caption.words]
        assert caption.confidence == pytest.approx(
            calibrated(captioner.bundle.meta["calibration"]["en"], search_features(found)), abs=1e-4
        )


def test_sentences_that_say_a_thing_twice_come_last(tmp_path: Path, captioner: Captioner, photos: list[Path]) -> None:
    features = captioner.encoder(np.stack([to_square(read_picture(path, target=SIZE), SIZE) for path in photos]))
    decode = {**captioner.bundle.meta["decode"], "min_length": 3, "max_length": 3, "no_repeat_ngram": 0}
    free = recur.load(write_tiny_bundle(tmp_path / "free", decode=decode), threads=1)
    picky = recur.load(write_tiny_bundle(tmp_path / "picky", decode={**decode, "may_repeat": {"en": ["a"]}}), threads=1)
    words = free.bundle.vocabulary()

    def twice(tokens: Any) -> bool:
        kept = [word for word in words.decode(tokens) if word != "a"]
        return len({*kept}) < len(kept)

    mixed = 0
    for n_best in (1, 3, 8):
        asked = free.search(features, beam=8, n_best=8), picky.search(features, beam=8, n_best=n_best)
        for every, chosen in zip(*asked, strict=True):
            expected = sorted((each.tokens.tolist() for each in every), key=twice)[:n_best]
            assert [each.tokens.tolist() for each in chosen] == expected
            mixed += twice(every[0].tokens) and not twice(expected[0])
    assert mixed, "no picture whose best sentence says a thing twice: this test shows nothing"
    assert not picky.voice("zh").repeats([1, 1]), "a language without a list repeats as it likes"


# ---------------------------------------------------------------------------------------------------------- confidence


def test_unsure_captions_are_kept_back(captioner: Captioner, photos: list[Path]) -> None:
    all_of_them = captioner(photos)
    levels = sorted(each.confidence or 0 for each in all_of_them)
    kept = captioner(photos, min_confidence=levels[3])
    for one, other in zip(kept, all_of_them, strict=True):
        assert other.confidence is not None
        if abs(other.confidence - levels[3]) < 1e-6:
            continue
        if other.confidence > levels[3]:
            close(one, other)
        else:
            assert (one.caption, one.words, one.n_best) == (None, (), ())
            assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
            assert one.to_json()["caption"] is None
    assert all(each.caption is not None for each in captioner(photos, min_confidence=0.0))


def test_greedy_search_has_a_runner_up_for_its_confidence(captioner: Captioner, photos: list[Path]) -> None:
    features = captioner.encoder(np.stack([to_square(read_picture(path, target=SIZE), SIZE) for path in photos]))
    greedy, wider = captioner.search(features, beam=1), captioner.search(features, beam=2, n_best=2)
    for caption, (best,), pair in zip(captioner(photos, beam=1), greedy, wider, strict=True):
        assert caption.log_prob == pytest.approx(best.log_prob, abs=1e-4)
        other = next(each for each in pair if each.tokens.tolist() != best.tokens.tolist())
        expected = calibrated(captioner.bundle.meta["calibration"]["en"], search_features([best, other]))
        assert caption.confidence == pytest.approx(expected, abs=1e-4)


def test_without_calibration_there_is_no_confidence(captioner: Captioner, photos: list[Path]) -> None:
    assert captioner(photos[:1], lang="zh")[0].confidence is None
    with pytest.raises(RecurError, match="no calibrated confidence in zh"):
        captioner(photos[:1], lang="zh", min_confidence=0.5)


def test_calibration_is_a_logistic_function() -> None:
    calibration = {"features": ["length", "margin"], "weights": [0.5, -2.0], "bias": 0.25}
    expected = 1 / (1 + math.exp(-(0.25 + 0.5 * 3 - 2 * 0.7)))
    assert calibrated(calibration, {"length": 3, "margin": 0.7, "other": 9}) == pytest.approx(expected)
    assert calibrated({**calibration, "bias": 1e6}, {"length": 0, "margin": 0}) == 1.0
    assert calibrated({**calibration, "bias": -1e6}, {"length": 0, "margin": 0}) == 0.0


# ------------------------------------------------------------------------------------------------------------- regions


def test_the_region_is_the_box_around_the_strong_cells_that_touch() -> None:
    grid = np.zeros((4, 5))
    grid[1, 2], grid[1, 3], grid[2, 3] = 0.3, 0.15, 0.2
    grid[3, 4] = 0.25  # touches only by a corner
    grid[0, 2] = 0.1499  # too weak
    first = grid.copy()
    grid[2, 4] = 0.2  # now the corner is reached through this one
    found = attended_regions(np.stack([first, grid, np.full((4, 5), 0.05)]), 500, 200)
    assert found == [(200, 50, 400, 150), (200, 50, 500, 200), (0, 0, 500, 200)]
    corner = np.zeros((1, 7, 7))
    corner[0, 0, 0] = 1
    assert attended_regions(corner, 333, 500) == [(0, 0, 48, 71)]


@pytest.mark.parametrize("changes", [{"attention": 0}, {"attention": 0, "cell": "rnn", "layers": 1}])
def test_without_attention_words_have_no_region(tmp_path: Path, photos: list[Path], changes: dict[str, Any]) -> None:
    captioner = recur.load(write_tiny_bundle(tmp_path / "b", **changes), threads=1)
    (caption,) = captioner(photos[:1])
    assert caption.words
    assert all(word.region is None and word.attention is None for word in caption.words)
    assert json.dumps(caption.to_json())


def test_a_vector_encoder_looks_at_the_whole_picture(tmp_path: Path, photos: list[Path]) -> None:
    captioner = recur.load(write_tiny_bundle(tmp_path / "b.zip", grid=False), threads=1)
    (caption,) = captioner(photos[:1])
    assert {word.region for word in caption.words} == {(0, 0, 100, 80)}


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lang": "fr"}, "language 'fr' is not in model 'tiny'; expected one of en, zh"),
        ({"beam": 0}, "beam 0"),
        ({"n_best": 0}, "n_best 0"),
        ({"batch": 0}, "batch 0"),
        ({"beam": 10**6}, "beam 1000000"),
        ({"min_confidence": 1.5}, "min_confidence 1.5"),
    ],
)
def test_senseless_options_are_refused_at_the_call(
    captioner: Captioner, photos: list[Path], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecurError, match=said):
        captioner(photos, **options)
    with pytest.raises(RecurError, match=said):
        captioner.stream(photos, **options)


def test_no_language_is_refused(captioner: Captioner, photos: list[Path]) -> None:
    with pytest.raises(RecurError, match="no language"):
        captioner.stream_languages(photos, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"decode": {"beam": 0}},
        {"decode": {"beam": "five"}},
        {"decode": {"max_length": 10**9}},
        {"decode": {"max_length": {"en": None}}},
        {"decode": {"length_penalty": -1}},
        {"decode": {"min_length": 30}},
        {"decode": {"no_repeat_ngram": -2}},
        {"decode": {"may_repeat": ["a"]}},
        {"decode": {"may_repeat": {"en": 3}}},
        {"calibration": {"en": {"features": ["charm"], "weights": [1.0], "bias": 0.0}}},
        {"calibration": {"en": {"features": ["length"], "weights": [], "bias": 0.0}}},
        {"calibration": {"en": {"features": ["length"], "weights": [1.0]}}},
        {"calibration": {"en": {"features": ["length"], "weights": [1e308], "bias": 0.0}}},
        {"calibration": {"en": {"features": ["length"], "weights": [1.0], "bias": 10**400}}},
        {"calibration": {"en": 7}},
        {"decode": {"length_penalty": 10**400}},
        {"calibration": []},
    ],
)
def test_senseless_settings_in_a_bundle_are_refused(tmp_path: Path, photos: list[Path], changes: Any) -> None:
    path = write_tiny_bundle(tmp_path / "b", **changes)
    with pytest.raises(BundleError, match="make no sense"):
        recur.load(path, threads=1)(photos[:1])


def test_settings_may_differ_between_languages(tmp_path: Path, photos: list[Path]) -> None:
    path = write_tiny_bundle(
        tmp_path / "b", decode={"beam": 2, "max_length": {"en": 2, "zh": 4}, "min_length": {"zh": 4}}
    )
    captioner = recur.load(path, threads=1)
    assert all(len(each.words) <= 2 for each in captioner(photos, lang="en"))
    assert all(len(each.words) == 4 for each in captioner(photos, lang="zh"))
    update_bundle(path, {"decode": {"max_length": 5, "min_length": 2, "no_end_after": {"en": ["a", "the", "unknown"]}}})
    endings = {each.words[-1].word for each in recur.load(path, threads=1)(photos) if len(each.words) < 5}
    assert not endings & {"a", "the"}


def test_the_encoder_must_fit_the_weights(tmp_path: Path, photos: list[Path]) -> None:
    path = write_tiny_bundle(tmp_path / "b")
    meta = read_bundle(path).meta
    update_bundle(path, {"encoder": {**meta["encoder"], "output": "nothing"}})
    with pytest.raises(RecurError, match="outputs features; expected one named 'nothing'"):
        recur.load(path, threads=1)
    assert meta["encoder"]["channels"] == CHANNELS


def test_a_caption_shows_itself_in_a_notebook(captioner: Captioner, photos: list[Path]) -> None:
    (caption,) = captioner(photos[:1])
    shown = caption._repr_html_()
    assert [word.word for word in caption.words] == [
        html.unescape(each) for each in re.findall(r"<span title=[^>]*>(.*?)</span>", shown)
    ]
    assert f"confidence {caption.confidence:.2f}" in shown
    nasty = replace(caption, caption="<b>&", words=())
    assert "&lt;b&gt;&amp;" in nasty._repr_html_()
    assert "not sure" in replace(caption, caption=None)._repr_html_()

"""Captions through the compiled core: the same as through NumPy, in 8 bits nearly so, and without it with a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recur
from recur.data.text import END
from recur.engine import native
from recur.engine.decoder import CaptionDecoder
from recur.engine.search import beam_search, search_features
from recur.errors import RecurError
from recur.predict.caption import Captioner

needs_core = pytest.mark.skipif(not native.where().core, reason=f"no compiled core: {native.where().reason}")


def numpy_search(captioner: Captioner, language: str, features: Any, beam: int, n_best: int) -> Any:
    voice, bundle = captioner.voice(language), captioner.bundle
    cell: Any = bundle.meta["cell"]
    decoder = CaptionDecoder(
        bundle.weights, cell=cell, layers=int(bundle.meta["layers"]), ids=voice.ids, language=voice.start, end=END
    )
    step, first = decoder.start(features)
    return beam_search(step, first, end=decoder.end, beam=beam, n_best=n_best, **voice.limits)


def features_like(captioner: Captioner, pictures: int) -> Any:
    """Features as a rectified encoder gives them: many zeros."""
    shape = (pictures, 49, captioner.bundle.meta["encoder"]["channels"])
    return np.maximum(np.random.default_rng(0).standard_normal(shape), 0).astype(np.float32)


@needs_core
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_core_writes_what_numpy_writes(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECUR_PRECISION", "float32")
    captioner = recur.load("captioner")
    voice = replace(captioner.voice(language), consensus=None, may_repeat=None)  # the search itself
    assert isinstance(voice.decoder, native.Decoder)
    features = features_like(captioner, 5)
    mine, theirs = voice.search(features, 5, 3), numpy_search(captioner, language, features, 5, 3)
    for found, expected in zip(mine, theirs, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.tokens, other.tokens)
            np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
            np.testing.assert_allclose(one.alternative_probs, other.alternative_probs, atol=1e-4)
            np.testing.assert_allclose(one.attention, other.attention, atol=1e-4)
        told = search_features(found)
        for name, value in search_features(expected).items():
            assert told[name] == pytest.approx(value, abs=1e-3), name


@needs_core
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_rounded_scores_stay_close(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECUR_PRECISION", precision)
    captioner = recur.load("captioner")
    features = features_like(captioner, 8)
    mine = captioner.voice("en").search(features, 5, 1)
    theirs = numpy_search(captioner, "en", features, 5, 1)
    for (one,), (other,) in zip(mine, theirs, strict=True):
        # Where rounding leads to another sentence, it is one that is about as probable.
        assert one.score == pytest.approx(other.score, abs=0.1)


@needs_core
def test_languages_share_one_network_and_precision_follows_the_bundle(tiny_bundle: Path) -> None:
    captioner = recur.load(tiny_bundle)
    english, chinese = captioner.voice("en").decoder, captioner.voice("zh").decoder
    assert isinstance(english, native.Decoder)
    assert isinstance(chinese, native.Decoder)
    assert english._network is chinese._network
    assert english.precision == "int8"


@needs_core
def test_a_precision_that_is_none_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECUR_PRECISION", "int4")
    with pytest.raises(RecurError, match="RECUR_PRECISION 'int4'; expected one of float32, bfloat16, int8"):
        recur.load(tiny_bundle).voice("en")


@pytest.mark.parametrize("core", ["off", "nothing.so"])
def test_without_the_core_numpy_runs_and_one_warning_says_why(core: str, tiny_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import numpy as np, recur\n"
        "from recur.engine import native\n"
        f"captioner = recur.load({str(tiny_bundle)!r})\n"
        "for language in ('en', 'zh'):\n"
        "    print(type(captioner.voice(language).decoder).__name__)\n"
        "stack = native.Stack({'weight_ih_l0': np.ones((2, 3)), 'weight_hh_l0': np.ones((2, 2)),\n"
        "                      'bias_ih_l0': np.ones(2), 'bias_hh_l0': np.ones(2)}, cell='rnn')\n"
        "print(stack.isa, stack.scan(np.ones((1, 4, 3))).outputs.shape, native.where().core)\n"
    )
    build = core if core == "off" else str(tmp_path / core)
    environment = {**os.environ, "RECUR_CORE": build, "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment.pop("RECUR_ISA", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["CaptionDecoder", "CaptionDecoder", "reference (1, 4, 2) False"]
    warnings = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    assert len(warnings) == (core != "off")
    assert core == "off" or "the compiled core cannot be loaded" in warnings[0]

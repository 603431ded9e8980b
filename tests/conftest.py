"""Fixtures that several test files share."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tiny networks gain nothing from a second thread, and on a busy machine each waits for the other at every step.
# Read when PyTorch is imported, so it stands before everything that may do so; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from helpers import write_tiny_bundle
from hypothesis import settings

# How long an example takes is the machine's affair; speed is measured by `recur bench`, never by a test.
settings.register_profile("recur", settings(), deadline=None)
settings.load_profile("recur")


def pytest_configure() -> None:
    """Where several processes share the tests (`pytest -n`), each keeps to a processor of its own with all it starts.

    The compilers, browsers and clusters of one would otherwise take the time of the tests of the other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        places = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {places[int(worker.removeprefix("gw")) % len(places)]})


BLANK = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAUfkl0wAAAABJRU5ErkJggg==")


@pytest.fixture(scope="module")
def undrawn() -> Iterator[Callable[[Any], bytes]]:
    """Figures of a training are made but not drawn, which takes longer than to train a tiny network; yields what draws.

    Each kind of figure is drawn in test_train_plot.py, and those of whole trainings in one test of each task.
    """
    pytest.importorskip("matplotlib")
    from recur.train import plot

    with pytest.MonkeyPatch.context() as patch:
        real = plot._png
        patch.setattr(plot, "_png", lambda figure: BLANK)
        yield real


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny captioner with random weights, in English and Chinese. Not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven pictures of different content and size, as files. Not to be changed."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(1)
    paths = []
    for number in range(7):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3)).astype(np.uint8))
        paths.append(folder / f"photo {number}.png")
        coarse.resize((100 + 10 * number, 80), Image.Resampling.BICUBIC).save(paths[-1])
    return paths

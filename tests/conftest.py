"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

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

"""What the commands of all training runs share: their options, and the import of PyTorch when one starts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from recur.cli.options import positive, whole
from recur.errors import RecurError

OF_EACH = "of each process, when there are several"
# What `pip install "recur[train]"` adds; the lack of any other module is a fault of the program.
TRAIN_PACKAGES = frozenset({"torch", "onnx", "onnxscript", "matplotlib", "transformers"})


def add_run(parser: Any, out: str) -> None:
    """The options of every training run."""
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=out)
    parser.add_argument("--seconds", type=positive, metavar="N", help="stop cleanly after so many seconds")
    parser.add_argument("--seed", type=whole(0), metavar="N", help="the same seed and data give the same weights")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of an earlier run")


def run_training(module: str, name: str, options: dict[str, Any]) -> None:
    """Call `recur.train.MODULE.NAME(**options)`. Errors: RecurError when a package of the extra `train` is missing."""
    try:
        function = getattr(importlib.import_module(f"recur.train.{module}"), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TRAIN_PACKAGES:
            raise
        raise RecurError(f'training needs {package}, which is not installed; pip install "recur[train]"') from None
    function(**options)

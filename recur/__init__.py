"""recur: recurrent networks that caption photographs on a plain CPU, with models that come with the package.

>>> import recur
>>> captioner = recur.load("captioner")
>>> captioner(["photo.jpg"])[0].caption  # doctest: +SKIP
'a dog runs through the grass'
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recur.errors import RecurError

if TYPE_CHECKING:
    from recur.predict.caption import Caption

__version__ = "0.1.0"
__all__ = ["Caption", "RecurError", "__version__", "load"]


def load(name_or_path: str | Path, *, threads: int | None = None) -> Any:
    """The predictor of a model: the name of an embedded one, or the path of a bundle (folder or .zip).

    What it is depends on the task (`recur.predict.caption.Captioner` for captions); call it with inputs.
    `threads` for the picture encoder; all processors when None. Errors: RecurError when there is no such model, or its
    bundle is refused.
    """
    from recur.bundle import read_bundle
    from recur.hub import resolve
    from recur.predict import PREDICTORS, predictor

    bundle = read_bundle(resolve(name_or_path))
    if bundle.task not in PREDICTORS:
        raise RecurError(
            f"{bundle.path}: a model for {bundle.task!r}; expected one for {', '.join(PREDICTORS)}; upgrade recur"
        )
    return predictor(bundle.task)(bundle, threads=threads)


def __getattr__(name: str) -> object:
    # NumPy takes longer to import than everything here: `recur --version` should not wait for it.
    if name == "Caption":
        from recur.predict.caption import Caption

        return Caption
    raise AttributeError(f"module 'recur' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

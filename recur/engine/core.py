"""Finding the compiled core: whether it is there, why not, and on which instruction set it runs.

The rule: the core is used wherever it can be loaded. Where it cannot (it was installed without a compiler, or for
another machine), or where `RECUR_CORE=off` is in the environment, the NumPy code runs, with one warning unless it was
asked for. `RECUR_CORE` may also name the file of another build, such as one with sanitizers. `RECUR_ISA` names the
instruction set for callers who do not.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Final

from recur.engine.vision import processors

REFERENCE: Final = "reference"  # the plain loops, in the place of an instruction set


@dataclass(frozen=True, slots=True)
class Where:
    """What runs here. `reason` says why the core does not, and is None when it does.

    `isa` is the instruction set used by default, `isas` are all that this machine has, slowest first.
    """

    core: bool
    reason: str | None
    isa: str
    isas: tuple[str, ...]
    threads: int
    compiler: str | None


@cache
def _load() -> tuple[ModuleType | None, str | None]:
    build = os.environ.get("RECUR_CORE", "")
    if build == "off":
        return None, "RECUR_CORE is off"
    try:
        if not build:
            from recur.engine import _recurrent

            return _recurrent, None
        spec = importlib.util.spec_from_file_location("recur.engine._recurrent", build)
        if spec is None or spec.loader is None:
            return None, f"RECUR_CORE is {build}, which is no extension module"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return None, f"the compiled core cannot be loaded ({error})"
    return module, None


@cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"{reason}; running on NumPy, about ten times slower; install recur where there is a C++ compiler",
        RuntimeWarning,
        stacklevel=4,
    )


def loaded() -> ModuleType | None:
    """The core, or None: then the first call says why, once, unless it was asked for."""
    module, reason = _load()
    if reason is not None and os.environ.get("RECUR_CORE") != "off":
        _warn(reason)
    return module


def where() -> Where:
    """Whether the core is there, the instruction set it runs on, and how many threads large work is spread over."""
    module, reason = _load()
    if module is None:
        return Where(False, reason, REFERENCE, (REFERENCE,), 1, None)
    isas = (REFERENCE, *module.isas())
    return Where(True, None, os.environ.get("RECUR_ISA") or isas[-1], isas, processors(), module.compiler)


def chosen(isa: str | None) -> tuple[ModuleType | None, str]:
    """The core and the instruction set to run on; None and "reference" for the plain loops.

    Errors: ValueError for an instruction set that is not here.
    """
    name = isa or os.environ.get("RECUR_ISA") or None
    if name == REFERENCE:
        return None, REFERENCE
    module = loaded()
    if module is None:
        if name is not None:
            raise ValueError(f"isa {name!r}, but {_load()[1]}; expected 'reference'; leave it out")
        return None, REFERENCE
    names = module.isas()
    if name is not None and name not in names:
        expected = ", ".join([REFERENCE, *names])
        raise ValueError(f"isa {name!r}; expected one of {expected}; choose one that this machine has")
    return module, name or names[-1]

"""Errors that a user can act on."""

from __future__ import annotations


class RecurError(Exception):
    """Something the user can mend. The message says what was found, what was expected and what to do."""


class InputError(RecurError):
    """One input failed; the others go on. `str()` is `PATH: what is wrong; what to do`."""

    def __init__(self, path: object, what: str, fix: str = "") -> None:
        self.path, self.what, self.fix = str(path), what, fix
        super().__init__(f"{path}: {what}" + (f"; {fix}" if fix else ""))

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        # Exceptions are made again from their message alone, unless they say how: this one comes from other processes.
        return InputError, (self.path, self.what, self.fix)

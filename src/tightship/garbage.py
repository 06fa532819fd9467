"""What dying objects complain of while the garbage collector runs.

Sockets, files, loops, transports and many a library's clients say so in a `ResourceWarning` when
they die open. It is heard here whatever the filters say.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, NamedTuple

from .ledger import LEDGER

__all__ = ["Garbage", "Hearing", "sort_out"]


class Garbage(NamedTuple):
    """Something that only the collector closed."""

    type_name: str
    module: str
    text: str
    source: int
    """``id`` the object had, for the ledger's graveyard."""
    birth: Any
    program: str = ""
    """What a child process runs, if the object says so."""


class Hearing:
    """Hears all warnings from its making until `end`.

    What `warnings.catch_warnings(record=True)` does, without its price: it would make every
    module forget which warnings it showed already.
    """

    def __init__(self) -> None:
        self._log: list[Any] = []
        self._hook, self._filters = sys.unraisablehook, warnings.filters
        self._show = warnings.showwarning
        self._show_impl = warnings._showwarnmsg_impl  # type: ignore[attr-defined]
        warnings.showwarning = warnings._showwarning_orig  # type: ignore[attr-defined]
        warnings._showwarnmsg_impl = self._log.append  # type: ignore[attr-defined]
        warnings.filters = [_ALWAYS, *self._filters]
        sys.unraisablehook = self._unraisable

    def end(self) -> list[Any]:
        """Listen no more; return the messages."""
        sys.unraisablehook = self._hook
        warnings.filters = self._filters
        warnings._showwarnmsg_impl = self._show_impl  # type: ignore[attr-defined]
        warnings.showwarning = self._show
        return self._log

    def _unraisable(self, unraisable: Any) -> None:
        # Warnings that are errors pass unheard: they become findings. So does what else a
        # finalizer has to say of an object that is one already: it would be heard, and fail
        # somebody, in the next test's set-up.
        if isinstance(unraisable.exc_value, Warning):
            return
        tb = unraisable.exc_traceback
        dying = None if tb is None else tb.tb_frame.f_locals.get("self")
        if dying is None or not any(message.source is dying for message in self._log):
            self._hook(unraisable)


def sort_out(log: list[Any]) -> tuple[list[Garbage], list[Any]]:
    """Return what was left open, and the messages about anything else."""
    garbage: list[Garbage] = []
    others = []
    for message in log:
        if issubclass(message.category, ResourceWarning):
            source = message.source
            garbage.append(
                Garbage(
                    type(source).__name__ if source is not None else "",
                    type(source).__module__ if source is not None else "",
                    str(message.message),
                    id(source),
                    LEDGER.of_dying(source) if source is not None else None,
                    _program(source),
                )
            )
            source = None
        else:
            others.append(message)
    return garbage, others


def _program(source: Any) -> str:
    """Return the program of a `subprocess.Popen`."""
    args = getattr(source, "args", None)
    if isinstance(args, (list, tuple)) and args:
        args = args[0]
    return os.path.basename(args) if isinstance(args, str) else ""


_ALWAYS = ("always", None, ResourceWarning, None, 0)

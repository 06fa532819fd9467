"""Nothing hangs: limits of time that explain themselves when they are passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import timeout
    from .deadline import Deadline
    from .error import TightshipTimeout

__all__ = ["Deadline", "TightshipTimeout", "timeout"]

_HOME = {"timeout": "api", "Deadline": "deadline", "TightshipTimeout": "error"}


def __getattr__(name: str) -> Any:
    # The plugin arms deadlines in every session; all else is loaded by those who use it.
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'tightship.deadlines' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"tightship.deadlines.{home}"), name)

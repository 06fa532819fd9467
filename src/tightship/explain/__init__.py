"""Evidence for a person: where a task is stuck, what an fd is, who holds an object.

Loaded module by module when there is something to explain: a clean suite pays for none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import await_chain, fds, processes, stacks

__all__ = ["await_chain", "fds", "processes", "stacks"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

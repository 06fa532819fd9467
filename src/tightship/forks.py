"""Forks of this process, told by Python itself.

Replacing `os.fork` would make our line the one that a warning about it names (Python 3.12 and
later warn of forks in programs with threads), and would miss `os.forkpty`. Python calls us
instead: in the child, where a watch goes on with all its hooks and must neither report nor undo
anything, and in the parent, where a child was born.
"""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["DEPTH", "IN_PARENT"]

#: Called in the parent, on the line that forked, once the child runs.
IN_PARENT: list[Callable[[], None]] = []

#: One number: how many forks lie between this process and the one that imported us. Cheaper
#: than `os.getpid`, which is a system call: this is asked for every test.
DEPTH = [0]


def _in_child() -> None:
    DEPTH[0] += 1


def _in_parent() -> None:
    for callback in IN_PARENT:
        callback()


if hasattr(os, "register_at_fork"):  # not on Windows, where nobody forks
    os.register_at_fork(after_in_child=_in_child, after_in_parent=_in_parent)

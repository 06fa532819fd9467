"""Whether this is still the process that a watch was installed in.

A forked child runs on with our hooks, and must neither report nor undo anything. Asking
`os.getpid` for every test would cost a system call; Python tells of its own forks for nothing.
"""

from __future__ import annotations

import os

__all__ = ["depth"]

_depth = 0


def depth() -> int:
    """Return how many forks lie between this process and the one that imported us."""
    return _depth


def _forked() -> None:
    global _depth
    _depth += 1


if hasattr(os, "register_at_fork"):  # not on Windows, where nobody forks
    os.register_at_fork(after_in_child=_forked)

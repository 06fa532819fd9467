"""Blocks of code that have to leave nothing behind: `no_leaks`, inside tests and outside.

The first open block installs a `Watch` (or borrows the one that the pytest plugin installed)
and the last one undoes it; what a block made is told apart by its owner, which the running
code carries in its context, and what has no owner by a comparison with what was there before.
"""

from __future__ import annotations

from .api import no_leaks
from .error import LeakError

__all__ = ["LeakError", "no_leaks"]

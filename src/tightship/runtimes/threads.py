"""Handing the owner on to threads and executor jobs, which do not inherit contexts."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ..ledger import LEDGER
from ..ownership import CURRENT, current

if TYPE_CHECKING:
    from ..births import Patcher

__all__ = ["install"]


def install(patch: Patcher) -> None:
    """Make new threads and executor jobs run as the owner that started them."""
    import threading

    # `start` notes who starts the thread; `_bootstrap_inner` is the first thing that runs in
    # it, below any `run` that a subclass may have.
    def starting(thread: Any) -> None:
        LEDGER.note(thread, skip=2)

    patch.before_method(threading.Thread, "start", starting)
    if hasattr(threading.Thread, "_bootstrap_inner"):

        def running(thread: Any) -> None:
            birth = LEDGER.of(thread)
            if birth is not None:
                CURRENT.set(birth.owner)

        patch.before_method(threading.Thread, "_bootstrap_inner", running)

    def on_executor(module: Any) -> None:
        item = module._WorkItem
        init, run = item.__init__, item.run

        @functools.wraps(init)
        def __init__(self: Any, /, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **kwargs)
            self._tightship_owner = current()

        @functools.wraps(run)
        def run_owned(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            owner = getattr(self, "_tightship_owner", None)
            if owner is None:
                return run(self, *args, **kwargs)
            token = CURRENT.set(owner)
            try:
                return run(self, *args, **kwargs)
            finally:
                CURRENT.reset(token)

        patch.set(item, "__init__", __init__)
        patch.set(item, "run", run_owned)

    patch.when_imported("concurrent.futures.thread", on_executor)

"""anyio's pytest plugin keeps one task alive through many fixtures and tests.

That task's context is copied once, so the owner inside it would be whoever came first. Its
runner hands each coroutine to the task through one method; wrapped there, every coroutine
starts by becoming its own owner. On trio it also gets a cancel scope of its own, without which
its time could be limited only by ending the runner of all the tests after it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..ownership import CURRENT, current

if TYPE_CHECKING:
    from ..births import Patcher

__all__ = ["install"]


def install(patch: Patcher) -> None:
    """Wrap the runners of both of anyio's backends when they are imported."""
    patch.when_imported("anyio._backends._asyncio", lambda m: _wrap(patch, m))
    patch.when_imported("anyio._backends._trio", lambda m: _wrap(patch, m))


def _wrap(patch: Patcher, module: Any) -> None:
    runner = getattr(module, "TestRunner", None)
    call = getattr(runner, "_call_in_runner_task", None)
    if runner is None or call is None:
        return

    trio = getattr(module, "trio", None)

    @functools.wraps(call)
    def _call_in_runner_task(self: Any, func: Callable[..., Any], /, *a: Any, **k: Any) -> Any:
        owner = current()
        if owner is None or not patch.active:
            return call(self, func, *a, **k)

        # What a step of a generator opens stays open when the step is over, and scopes must
        # close in the order they opened.
        step = getattr(func, "__name__", "") == "asend"

        @functools.wraps(func)
        async def owned(*args: Any, **kwargs: Any) -> Any:
            token = CURRENT.set(owner)
            try:
                if trio is None or step:
                    return await func(*args, **kwargs)
                with trio.CancelScope() as scope:
                    self._tightship_scope = trio.lowlevel.current_trio_token(), scope
                    return await func(*args, **kwargs)
                raise TimeoutError("cancelled by Tightship: its time was up")
            finally:
                CURRENT.reset(token)
                if trio is not None and not step:
                    self._tightship_scope = None, None

        return call(self, owned, *a, **k)

    patch.set(runner, "_call_in_runner_task", _call_in_runner_task)

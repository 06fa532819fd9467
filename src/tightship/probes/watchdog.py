"""The watchdog thread of `faulthandler.dump_traceback_later`.

pytest's setting ``faulthandler_timeout`` starts one for each test, from C and without a name of
its own, so it looks like a thread that the test left behind. What it is can be seen only while
it is being started.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import threading
from typing import Any

__all__ = ["TIDS", "install"]

#: The thread's number, as long as it is armed: one at most.
TIDS: set[int] = set()


def install(patch: Any) -> None:
    """Watch it being armed and disarmed. With several watches, the innermost one notes it."""
    later, cancel = faulthandler.dump_traceback_later, faulthandler.cancel_dump_traceback_later

    @functools.wraps(later)
    def dump_traceback_later(*args: Any, **kwargs: Any) -> Any:
        if not patch.active:
            return later(*args, **kwargs)
        before = _tids() - TIDS  # the old one ends, and its number may be used again
        result = later(*args, **kwargs)
        born = _tids() - before
        if len(born) > 1:  # another thread started one meanwhile: Python's have objects
            born -= {t.native_id for t in threading.enumerate() if t.native_id}
        TIDS.clear()
        if len(born) == 1:
            TIDS.update(born)
        return result

    @functools.wraps(cancel)
    def cancel_dump_traceback_later() -> Any:
        result = cancel()
        TIDS.clear()
        return result

    patch.set(faulthandler, "dump_traceback_later", dump_traceback_later)
    patch.set(faulthandler, "cancel_dump_traceback_later", cancel_dump_traceback_later)


def _tids() -> set[int]:
    try:
        return set(map(int, os.listdir("/proc/self/task")))
    except OSError:
        return set()

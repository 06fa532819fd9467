"""What happens from the moment when time is up, one rung after the other.

1. A picture is taken, of what everything is waiting for.
2. The operation's own task is cancelled inside its loop; once more if it carries on; then the
   loop is stopped.
3. If the loop does not answer, or the task resists, an exception is raised in the thread.
4. If that changes nothing either, `Deadline.on_last` is called, which may end the process.

All of it runs in the sentry's thread. Each rung makes sure, in the thread where it acts, that
the operation isn't over by then.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..model import Site
from ..origin import layer
from ..runtimes import cancels, interrupt
from ..runtimes.interrupt import Sent
from ..runtimes.running import Running, running
from ..runtimes.sentry import SENTRY

if TYPE_CHECKING:
    from .deadline import Deadline

__all__ = ["Grace", "Ladder"]


#: Tasks that nothing ends.
_ABANDONED: list[Any] = []


class Grace:
    """Seconds that each rung is given before the next one."""

    answer = 0.5
    """For the loop to answer at all."""
    cancel = 1.0
    """For a cancelled task to end, each of `rounds` times."""
    rounds = 2
    interrupt = 3.0
    """For exceptions raised in the thread to end the operation."""
    again = 0.25
    """Between two such exceptions."""


class Ladder:
    """What was seen and done for one operation whose time was up.

    Args:
        deadline: whose.
        run: which of its operations.
    """

    def __init__(self, deadline: Deadline, run: int) -> None:
        self.deadline = deadline
        self.run = run
        self.what = deadline.what
        self.budget = deadline.budget
        self.forecast = deadline.forecast
        self.started = deadline.started
        self.at = SENTRY.now()
        """When time was up."""
        self.end = 0.0
        """When the operation was over."""
        self.picture: Any = None
        self.runtime = ""
        """Of the loop that ran: ``asyncio``, ``trio``; empty if none did."""
        self.answered = 0.0
        """When the loop took the cancellation up; 0 if it never did."""
        self.cancels = 0
        """How often the task was cancelled."""
        self.interrupts = 0
        """How often we tried to raise an exception in the thread."""
        self.raised = False
        """Whether one was raised: signals can be blocked, or be taken by the test."""
        self.blocked: list[Site] = []
        """Where the thread stood before that, innermost first."""
        self.swallowed: Site | None = None
        """Where the cancellation was swallowed, if that is known."""
        self.unanswered = False
        """Whether an exception was raised because the loop did not answer."""
        self.stopped = False
        """Whether the loop was stopped, since the task resisted."""
        self.resisted = ""
        """What the task waited for after it had swallowed the cancellation."""
        self.waiting: tuple[list[Site], str] = ([], "")
        """Where the task stood when time was up, innermost first, and what it waited for."""
        self.busy = 0.0
        """How much of the time the thread had something to do while it did not answer: 0 to 1."""
        self.had_task = False
        """Whether a task was found, which may be gone by now."""
        self._loop: Any = None
        self._task: weakref.ref[Any] | None = None
        self._runner: weakref.ref[Any] | None = None
        self._before: Any = None
        self._asking: Running | None = None
        self._worked = (0.0, 0.0)
        self._cancelled_at = 0.0
        self._sent = self._taken = 0  # what the loop was asked to call, and what it has called
        self._raising = 0.0
        self._stopped = False

    @property
    def task(self) -> Any:
        """The operation's own task, if there is one and it still exists."""
        return self._task() if self._task is not None else None

    @property
    def elapsed(self) -> float:
        """Seconds from the beginning to the end, or to now."""
        return (self.end or SENTRY.now()) - self.started

    @property
    def current(self) -> bool:
        """True while the operation goes on."""
        return self.deadline.run == self.run

    @property
    def acted(self) -> bool:
        """True if anything reached the operation: else its own outcome counts."""
        return self.cancels > 0 or self.raised

    def give_up(self) -> None:
        """Let nothing happen any more. Called in the operation's thread, when it is over."""
        self._stopped = True
        if self.interrupts:
            interrupt.give_up(self._wanting, self.deadline.thread)

    # -- rungs ------------------------------------------------------------------------------

    def begin(self) -> float | None:
        """Take the picture and cancel. Returns when to look again."""
        deadline = self.deadline
        found = self._find()
        self._look(found)
        if deadline.on_expired is not None:
            self._safely(deadline.on_expired)
        self._worked = _at_work(deadline.thread), SENTRY.now()
        if deadline.cancel is not None:
            self._cancelled_at = SENTRY.now()
            self._safely(lambda _: deadline.cancel())
            self.cancels += 1
        elif found is not None:
            self.runtime = found.runtime
            if found.runtime == "trio":
                self._asking = found
            elif found.task is not None:
                from ..explain.stacks import thread_stack

                self._loop, self._task = found.loop, weakref.ref(found.task)
                self.had_task = True
                self._runner = weakref.ref(found.runner) if found.runner is not None else None
                sites, what = _waiting(found.task)
                if _of_runtime(found.task, sites):
                    # asyncio.run(asyncio.sleep(9)): who wrote that stands in the thread's stack.
                    sites = [*thread_stack(deadline.thread), *sites]
                self.waiting = sites, what
                self._mark(found.task)
                if not self._send(self._cancel):
                    self._loop = None
        return SENTRY.now() + 0.02

    def climb(self) -> float | None:
        """Look whether the last rung helped, or take the next. Returns when to look again."""
        now = SENTRY.now()
        if not self.current:
            return None
        if not self.deadline.running:
            # Between two parts of the operation: the next part finds out by itself.
            return now + 0.1
        if self._raising:
            return self._raise_again(now)
        if self._asking is not None:
            return self._ask_trio(self._asking, now)
        if not self.deadline.whole:
            return self._climb_beside(now)
        if self._loop is None:
            return self._raise_first(now)
        task = self.task
        if task is None or task.done():
            # What runs now comes after it, and is mostly near its end.
            since = max(self.at, self._cancelled_at)
            return now + 0.02 if now - since < Grace.answer else self._raise_first(now)
        if not self.answered:
            return now + 0.02 if now - self.at < Grace.answer else self._raise_first(now)
        if now - self._cancelled_at < Grace.cancel:
            return now + 0.05
        self._ask_swallower()
        if self._taken < self._sent:  # it did answer, but something blocks the loop now
            return self._raise_first(now)
        if self.cancels < Grace.rounds and self._send(self._cancel):
            self._cancelled_at = now
            return now + 0.05
        if not self.stopped and self._send(self._stop):
            self.stopped = True
            self._cancelled_at = now
            return now + 0.05
        return self._raise_first(now)

    def _climb_beside(self, now: float) -> float:
        """Go on cancelling: the thread does other things too, and is not ours to interrupt,
        unless it is the operation itself that holds it."""
        if self._loop is None or self.task is None:
            return now + Grace.cancel
        if self._taken < self._sent:
            since = self._cancelled_at or self.at
            if now - since >= Grace.answer and self._holds_thread():
                return self._raise_first(now)
            return now + 0.05
        if now - self._cancelled_at >= Grace.cancel:
            self._ask_swallower()
            self._send(self._cancel)
            self._cancelled_at = now
        return now + 0.05

    def _holds_thread(self) -> bool:
        """Tell whether the loop is running the operation's own task at this moment."""
        from asyncio import current_task

        task = self.task
        return (
            task is not None
            and self.deadline.thread == threading.main_thread().ident
            and current_task(self._loop) is task
        )

    def _find(self) -> Running | None:
        deadline = self.deadline
        try:
            if deadline.find is not None:
                return deadline.find()
            return running(deadline.thread, deadline.loops())
        except Exception as exc:
            SENTRY.on_fault(deadline.name, exc)
            return None

    def _look(self, found: Running | None) -> None:
        from ..explain import picture

        try:
            loops = list(self.deadline.loops())
            if found is not None and found.runtime == "asyncio" and found.loop not in loops:
                loops.insert(0, found.loop)
            self.picture = picture.take(
                loops,
                thread=self.deadline.thread,
                own_threads={SENTRY.ident},
                cancelled_by=cancels.who,
            )
        except Exception as exc:  # the picture must not cost us the ladder
            SENTRY.on_fault(self.deadline.name, exc)

    def _safely(self, call: Any) -> None:
        try:
            call(self)
        except Exception as exc:
            SENTRY.on_fault(self.deadline.name, exc)

    # -- the task ---------------------------------------------------------------------------

    def _mark(self, task: Any) -> None:
        from ..explain.swallow import mark

        self._before = mark(task)

    def _ask_swallower(self) -> None:
        from ..explain.await_chain import format_waiting

        task = self.task
        if task is not None and not task.done():
            self._ask_where(task)
            self.resisted = format_waiting(task)
            self._mark(task)

    def _send(self, call: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(call)
        except Exception:  # closed meanwhile, or none that we know
            return False
        self._sent += 1
        return True

    def _cancel(self) -> None:
        """Cancel the task, in its loop's thread."""
        self._taken += 1
        now = SENTRY.now()
        self.answered = self.answered or now
        self._cancelled_at = now
        task = self.task
        if self._stopped or not self.deadline.running or task is None or task.done():
            return
        self.cancels += 1
        if self.cancels == 1:
            task.add_done_callback(self._ended)
        cancels.note(task, "its deadline")
        try:
            task.cancel(f"tightship: {self.what} took longer than {self.budget.seconds:g} s")
        except RecursionError:  # tasks that wait for each other pass it on for ever
            self.resisted = "a ring of tasks, which asyncio cannot cancel"

    def _stop(self) -> None:
        """Stop the loop, in its thread: whoever runs it is told that the task never ended.

        Nothing is raised in the task. Code that catches all would go on with that too, and
        perhaps without ever coming back to its loop.
        """
        self._taken += 1
        self._cancelled_at = SENTRY.now()
        if not self._stopped and self.deadline.running:
            self._abandon()
            self._loop.stop()

    def _abandon(self) -> None:
        """Let nobody wait for what resists: a loop that is closed would do so for ever."""
        from asyncio import tasks

        for task in [self.task, *self._passed_on(self._before)]:
            if task is not None and not task.done():
                tasks._unregister_task(task)
                # Kept for good: its coroutine would have to be closed, and resists that too.
                _ABANDONED.append(task)
        self._replace_runner()

    def _replace_runner(self) -> None:
        """Let anyio's runner make another task for what comes next: this one is gone."""
        runner = self._runner() if self._runner is not None else None
        if runner is not None:
            runner._runner_task = None

    def _passed_on(self, mark: Any) -> Iterator[Any]:
        """Yield the tasks that a cancellation of the operation's task is passed on to."""
        for ref, inner in getattr(mark, "passed_on", ()):
            yield ref()
            yield from self._passed_on(inner)

    def _ended(self, task: Any) -> None:
        """See, in the loop's thread, whether a task that was cancelled ended in another way."""
        self._replace_runner()
        if not task.cancelled():
            self._ask_where(task)

    def ask_where(self) -> None:
        """See where a task that goes on has swallowed its cancellation; may be asked in it."""
        task = self.task
        if not self.cancels:
            return
        if task is not None and not task.done():
            self._ask_where(task)
        elif self._runner is not None and not self.swallowed:
            # anyio's task went on after the test, and was cancelled when its loop closed.
            self._ask_where(None)

    def _ask_where(self, task: Any) -> None:
        from ..explain.swallow import swallower

        if self._before is not None:
            self.swallowed = swallower(self._before, task) or self.swallowed

    def uncancel(self) -> None:
        """Take our cancellations back from a task that goes on: anyio's runner of all tests."""
        task = self.task
        if task is not None and not task.done():
            for _ in range(min(self.cancels, task.cancelling())):
                task.uncancel()

    # -- the thread ---------------------------------------------------------------------------

    def _wanting(self) -> bool:
        """Tell, in the thread, whether it is still to be interrupted."""
        if self._stopped or not self.current or not self.deadline.running:
            return False
        if not (self.deadline.whole or self._holds_thread()):
            return False
        self.raised = True
        return True

    def _raise_first(self, now: float) -> float:
        self._stand()
        self.unanswered = not self.answered
        self._raising = now
        self._raise()
        return now + Grace.again

    def _raise_again(self, now: float) -> float | None:
        if now - self._raising < Grace.interrupt:
            self._raise()
            return now + Grace.again
        if self.deadline.on_last is not None:
            self._safely(self.deadline.on_last)
        return None

    def _raise(self) -> None:
        self.interrupts += 1
        sent = interrupt.raise_in(
            self.deadline.thread, self._wanting, as_if_typed=self.runtime == "trio"
        )
        if sent is Sent.ASYNC:
            self.raised = True

    def _stand(self) -> None:
        """Note where the thread stands, and whether it works or waits there."""
        from ..explain.stacks import thread_stack

        self.blocked = thread_stack(self.deadline.thread)
        used, since = self._worked
        now = SENTRY.now()
        if now > since:
            self.busy = (_at_work(self.deadline.thread) - used) / (now - since)

    def _ask_trio(self, found: Running, now: float) -> float:
        """Cancel where there is a scope; else let trio raise where it knows that this is safe."""
        self._stand()
        self._raising = now
        if found.cancel is None:
            self._raise()
        else:
            self.cancels += 1
            self._safely(lambda _: found.cancel())
        return now + Grace.again


def _waiting(task: Any) -> tuple[list[Site], str]:
    """Return where a task stands and what it waits for; through the tasks it waits for, too."""
    from ..explain.await_chain import waiting

    stack: list[Site] = []
    words: list[str] = []
    seen: set[int] = set()
    while task is not None and id(task) not in seen and len(seen) < 5:
        seen.add(id(task))
        sites, what = waiting(task)
        stack[:0] = sites
        words.append(what)
        task = getattr(task, "_fut_waiter", None) if what.startswith("task '") else None
        if not hasattr(task, "get_coro"):
            break
    return stack, ", and that for ".join(words)


def _of_runtime(task: Any, sites: list[Site]) -> bool:
    """Tell whether all that a task runs is a coroutine of the standard library or a framework."""
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None or layer(code.co_filename) < 2:
        return False
    return not sites or (len(sites) == 1 and sites[0].function == code.co_qualname)


def _at_work(ident: int) -> float:
    """Return the seconds that a thread has had something to do: it ran, or waited its turn.

    The latter makes a difference where machines are full.
    """
    native = getattr(threading._active.get(ident), "native_id", None)  # type: ignore[attr-defined]
    try:
        with open(f"/proc/self/task/{native}/schedstat", "rb") as file:
            ran, waited = file.read().split()[:2]
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):  # not Linux, or without these figures
        pass
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(ident))
    except (AttributeError, OSError):  # no such clock on this system; no such thread
        return 0.0

"""Calls that hold an event loop: found by asking the loop for a sign of life, from outside.

The question is a callback that the loop runs in its next turn. While the answer is missing the
loop's thread is looked at, so that the stack is of the call itself and not of what came later.
A loop that only waits is not asked: it is seen standing in its selector.

A call is accused only of the time that it can be shown to have taken: what the machine or the
interpreter took from the loop's thread, or from the thread that asks, is taken off.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from .explain import blocking as words
from .explain.frames import OWN
from .explain.stacks import format_stack
from .model import Certainty, Finding, Owner, Verdict
from .origin import describe
from .ownership import of_context
from .probes.fdtable import keep, release
from .reporters.blocking import KIND
from .runtimes.loops import context_of, task_at_work
from .runtimes.sentry import SENTRY

if sys.platform.startswith("linux"):
    import resource
else:  # untried: what a thread did cannot be asked there
    resource = None

__all__ = ["KIND", "Blocking", "Level", "Rule"]


Level = str
"""``off``, ``note``, ``fail`` or ``collect``."""

Rule = tuple[Level, float]
"""What becomes of a call, and from how many seconds on."""

#: Stacks kept of one call.
_STACKS = 40


class Question:
    """One question to a loop, and what was seen until it was answered."""

    __slots__ = (
        "_answered",
        "alone",
        "cpu",
        "held",
        "late",
        "level",
        "limit",
        "loop",
        "owner",
        "sent",
        "stacks",
        "starved",
        "steps",
        "task",
        "thread",
        "told",
        "void",
    )

    def __init__(
        self,
        answered: Callable[[Question], None],
        owner: Owner,
        rule: Rule,
        loop: int,
        thread: int,
    ) -> None:
        self._answered = answered
        self.owner = owner
        self.level, self.limit = rule
        self.loop = loop
        """Its id: a question must not keep a loop."""
        self.thread = thread
        self.sent = 0.0
        self.late = 0.0
        self.cpu = self.starved = 0.0
        self.held: Held | None = None
        self.told = 0.0
        """Seconds that were told of so far."""
        self.stacks: list[words.Stack] = []
        self.task: weakref.ref[Any] | None = None
        self.steps = False
        """Whether several tasks were seen at work: no single call held the loop."""
        self.alone = False
        """Whether the call kept the interpreter to itself."""
        self.void = False
        """Whether the answer says nothing: the loop stopped, or a debugger held it."""

    def __call__(self) -> None:
        """Answer, in the loop's thread."""
        self._answered(self)


class Blocking:
    """Asks the loops of a test, and tells of calls that held them.

    Args:
        rule: returns what becomes of the calls of an owner.
        tell: takes functions that return findings, to be called when the test ends; in any thread.
        lateness: returns the seconds, in all, that the thread which asks came too late.
        on_fault: called with (part, exception) if this fails.
    """

    def __init__(
        self,
        rule: Callable[[Owner], Rule],
        tell: Callable[[list[Callable[[], Finding]]], None],
        lateness: Callable[[], float],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self.rule = rule
        self._tell = tell
        self._lateness = lateness
        self._on_fault = on_fault
        self._open: dict[int, Question] = {}
        self._deaf: Any = weakref.WeakSet()
        """Loops that refused a question."""
        self._found: dict[tuple[Any, ...], Held] = {}
        self._times = _Times()
        self._before: _Reading | None = None
        self._now: _Reading | None = None

    def close(self) -> None:
        """Ask no more, and let go of everything."""
        self.forget()
        self._times.close()

    def forget(self) -> None:
        """Let go of what belongs to a test that is over."""
        for question in self._open.values():
            question.void = True
        self._open.clear()
        self._found = {}
        self._before = self._now = None

    # -- asking, in the sentry's thread ----------------------------------------------------

    def works(self, owner: Owner, loop: Any, frame: FrameType | None, thread: int) -> None:
        """Ask a loop that runs something, or look at what it runs while it does not answer."""
        now = SENTRY.now()
        key = id(loop)
        question = self._open.get(key)
        if question is not None:
            if now - question.sent >= question.limit / 2:
                self._sample(question, loop, frame)
            return
        rule = self.rule(owner)
        if rule[0] == "off" or loop in self._deaf:
            return
        question = Question(self._answered, owner, rule, key, thread)
        question.late = self._lateness()
        question.cpu, question.starved = self._times.of(thread)
        question.sent = now
        before = self._before
        if before is not None and self._shut_out(before, question):
            # The call is over already: its last instruction let this thread go on.
            question.sent = now - (question.late - before.late)
            question.cpu, question.starved = before.cpu, before.starved
            question.alone = True
            self._sample(question, loop, frame)
        self._open[key] = question
        try:
            loop.call_soon_threadsafe(question)
        except Exception:  # closed meanwhile, or a stand-in that cannot do it
            self._open.pop(key, None)
            self._deaf.add(loop)

    def _shut_out(self, before: _Reading, question: Question) -> bool:
        """Tell whether the main thread worked for long and kept the interpreter to itself.

        Only code in C can. This thread then woke up again and again to ask for the interpreter:
        that tells it from a machine that did not let it run.
        """
        return (
            question.late - before.late >= question.limit
            and question.cpu - before.cpu >= question.limit
            and (_sleeps() - before.sleeps) * sys.getswitchinterval() >= question.limit / 2
        )

    def waits(self, owner: Owner, loop: Any) -> None:
        """Take note that nothing holds a loop: it will answer in a moment."""
        self._open.pop(id(loop), None)

    def others(self, running: set[int]) -> None:
        """Forget questions to loops that do not run any more, and begin a new round."""
        self._before = self._now
        cpu, starved = self._times.of(self._times.main)
        self._now = _Reading(self._lateness(), cpu, starved, _sleeps())
        for key in [k for k in self._open if k not in running]:
            self._open.pop(key).void = True

    def _sample(self, question: Question, loop: Any, frame: FrameType | None) -> None:
        if frame is None or question.void or len(question.stacks) >= _STACKS:
            return
        stack = words.inwards(frame)
        if not stack:
            return
        if words.by_debugger(stack) or stack[0][0].co_filename.startswith(OWN):
            question.void = True
            return
        task = task_at_work(loop)
        known = None if question.task is None else question.task()
        if question.stacks and task is not known:
            question.steps = True
        question.task = None if task is None else weakref.ref(task)
        question.stacks.append(stack)
        # Told while it lasts: a loop that is stopped by then never answers.
        self._judge(question)

    # -- the answer, in the loop's thread --------------------------------------------------

    def _answered(self, question: Question) -> None:
        if self._open.get(question.loop) is question:
            self._open.pop(question.loop, None)
        if question.stacks and not question.void:
            try:
                self._judge(question)
            except Exception as exc:
                self._on_fault("loop monitor", exc)

    # -- what there is to say --------------------------------------------------------------

    def _judge(self, question: Question) -> None:
        """Tell of a call that takes too long, or that it took longer than was told."""
        wall = SENTRY.now() - question.sent
        if wall < question.limit:
            return
        cpu, starved = self._times.of(question.thread)
        cpu -= question.cpu
        starved -= question.starved
        if question.held is None:
            late = self._lateness() - question.late
            # What it worked is its own; of the rest, what nobody took from it.
            if max(cpu, wall - late - starved) < question.limit:
                return
            question.held = self._line(question)
        held = question.held
        held.total += wall - question.told
        question.told = wall
        if wall > held.longest:
            held.longest, held.starved = wall, starved
            held.cpu = min(cpu, wall) if self._times.known(question.thread) else None

    def _line(self, question: Question) -> Held:
        """Return the calls of this line, with one more; they are told if this is the first."""
        pair, stack, one = words.culprit(question.stacks)
        owner, task = _whose(question)
        key = id(owner), pair[0].co_filename, words.line_of(pair), question.steps
        held = self._found.get(key)
        if held is None:
            self._found[key] = held = Held(owner, question, pair, stack, one, task)
            self._tell([held.finding])
        held.count += 1
        return held


class Held:
    """Calls of one line that held a loop during one test."""

    def __init__(
        self,
        owner: Owner,
        question: Question,
        pair: words.Pair,
        stack: words.Stack,
        one: bool,
        task: str,
    ) -> None:
        self.owner = owner
        self.pair, self.stack, self.task = pair, stack, task
        self.one = one
        """Whether it was one call of the line, and not the function itself."""
        self.steps, self.alone = question.steps, question.alone
        self.limit = question.limit
        self.fails = question.level == "fail" and not question.steps and not owner.ended
        self.count = 0
        self.longest = self.total = self.starved = 0.0
        self.cpu: float | None = None

    def finding(self) -> Finding:
        """Say so. Reads files, and so is never called in the thread that only looks."""
        from .telling import finding_of

        code, lasti = self.pair
        call = words.call_text(code, lasti) if self.one else f"{code.co_qualname}()"
        time = f"{self.longest:.2f} s"
        if self.cpu is not None:
            kept = f", {self.starved:.2f} s waiting for a processor" if self.starved > 0.01 else ""
            time += f", {self.cpu:.2f} s of it at work{kept}"
        facts = [("blocked", format_stack(words.sites(self.stack))), ("time", time)]
        if self.task:
            facts.append(("task", self.task))
        many = "up to " if self.count > 1 else ""
        return finding_of(
            self.owner,
            KIND,
            label=_label(code, self.stack),
            subject=f"a turn of many steps, {call} among them," if self.steps else call,
            certainty=Certainty.STRONG,
            verdict=Verdict.FAIL if self.fails else Verdict.NOTE,
            made=describe(code, lasti),
            facts=facts,
            fix=self._remedy(call),
            count=self.count,
            seconds=self.longest,
            tail=f"held the loop for {many}{self.longest:.2f} s in",
            extra={"total": self.total, "limit": self.limit},
        )

    def _remedy(self, call: str) -> str:
        if self.steps:
            return "do less in one turn: let them start one after the other"
        if self.alone:
            return "run it in a process pool: it lets no other thread run meanwhile"
        computing = self.cpu is not None and self.cpu >= 0.8 * (self.longest - self.starved)
        return words.remedy(call, self.stack, self.pair, computing)


def _label(code: Any, stack: words.Stack) -> str:
    """Return a name that is stable between runs: the function, or ``import``."""
    if any("importlib._bootstrap" in c.co_filename for c, _ in stack):
        return "import"
    return str(code.co_qualname)


def _whose(question: Question) -> tuple[Owner, str]:
    """Return the owner of the task that was at work, if it is there to answer for it; its name."""
    owner = question.owner
    task = None if question.task is None else question.task()
    if task is None:
        return owner, ""
    name = repr(task.get_name())
    found = of_context(context_of(task))
    if found is None or found is owner:
        return owner, name
    if found.ended or (found.parent is not None and found.parent is not owner):
        return owner, f"{name}, started by {found}"
    return found, name


class _Reading(NamedTuple):
    """What was read at one ring."""

    late: float
    cpu: float
    starved: float
    sleeps: int


def _sleeps() -> int:
    """Return how often this thread went to sleep."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class _Times:
    """What the system says of the main thread: how long it worked, and was kept waiting.

    Of other threads nothing is asked: their number may be another thread's by then.
    """

    def __init__(self) -> None:
        self.main = threading.main_thread().ident or 0
        self._fd = -1
        self._inode = 0
        pid = os.getpid()
        try:
            low = os.open(f"/proc/{pid}/task/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            self._fd = keep(low, self)
            self._inode = os.fstat(self._fd).st_ino
        except OSError:  # not Linux
            pass

    def close(self) -> None:
        if self._fd >= 0:
            release(self, self._fd, self._inode)
            self._fd = -1

    def known(self, thread: int) -> bool:
        """Tell whether `of` says more than zero of a thread."""
        return self._fd >= 0 and thread == self.main

    def of(self, thread: int) -> tuple[float, float]:
        """Return the seconds that a thread ran, and that it was ready to run but could not."""
        if not self.known(thread):
            return 0.0, 0.0
        try:
            ran, kept = os.pread(self._fd, 64, 0).split()[:2]
        except (OSError, ValueError):
            return 0.0, 0.0
        return int(ran) / 1e9, int(kept) / 1e9

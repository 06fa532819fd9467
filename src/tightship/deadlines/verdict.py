"""Why time ran out, in words: one verdict out of a few, and the lines of the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..explain.stacks import format_stack
from ..model import Certainty, Finding, Site, Verdict
from .error import TightshipTimeout
from .ladder import Grace, Ladder

__all__ = ["VERDICTS", "judge", "timeout_error"]

#: Label -> what it means. The labels are stable: reports and allow rules use them.
VERDICTS: dict[str, str] = {
    "deadlock": "nothing was left that could wake it",
    "never-finished": "it never finished",
    "children-still-run": "its body was done, but tasks that it had started still ran",
    "swallowed-cancellation": "it swallowed the cancellation and went on",
    "blocked-loop": "a synchronous call held the event loop",
    "blocked": "the thread waited and did not come back",
    "busy": "the thread worked and did not come back",
    "stuck-in-c": "code written in C did not come back, and cannot be interrupted",
    "finished-late": "it finished by itself, but late",
}

_WIDTH = 10


class _Judged(NamedTuple):
    label: str
    because: str
    """One sentence with the particulars."""
    at: list[Site]
    """The place to look at, innermost first."""
    fix: str


def judge(ladder: Ladder, *, returned: bool) -> _Judged:
    """Say why an operation's time ran out.

    Args:
        ladder: what was seen and done about it.
        returned: whether the operation returned, rather than raise.
    """
    held = ladder.elapsed
    sites, what = ladder.waiting
    if ladder.forecast:
        return _Judged(
            "deadlock",
            "every task waited for something that nothing left could bring about",
            sites,
            "see to it that whoever is to wake it still runs, or give the wait a timeout",
        )
    if ladder.unanswered:
        return _blocked(ladder, held)
    if (
        ladder.cancels
        and ladder.answered
        and (ladder.stopped or ladder.raised or ladder.cancels > 1)
    ):
        where = f"at {ladder.swallowed}" if ladder.swallowed else "at a line that isn't known"
        after = f"; then it was at {ladder.resisted}" if ladder.resisted else ""
        end = "; in the end its loop was stopped" if ladder.stopped else ""
        return _Judged(
            "swallowed-cancellation",
            f"cancelled {_times(ladder.cancels)}, swallowed {where}{after}{end}",
            [ladder.swallowed] if ladder.swallowed else sites,
            "let CancelledError through: re-raise it, or catch less than BaseException",
        )
    if ladder.cancels and returned:
        where = f" at {ladder.swallowed}" if ladder.swallowed else ""
        return _Judged(
            "swallowed-cancellation",
            f"it swallowed the cancellation{where}, and returned as if nothing had happened",
            [ladder.swallowed] if ladder.swallowed else sites,
            "let CancelledError through: re-raise it, or catch less than BaseException",
        )
    if ladder.runtime == "trio":
        return _of_trio(ladder)
    if ladder.raised or (ladder.interrupts and not ladder.end):
        return _blocked(ladder, held)
    if ladder.cancels:
        if what.startswith("a task group of"):
            return _Judged(
                "children-still-run",
                f"the body was done, and waited for {what}",
                sites,
                "end what the group started: cancel it, close its queue, set its event",
            )
        waited = f"it was waiting for {what}" if what != "running now" else "it was running"
        return _Judged(
            "never-finished",
            waited,
            sites,
            "see to it that this can end, or give the wait a timeout of its own",
        )
    return _Judged(
        "finished-late",
        f"it ended by itself after {held:.2f} s",
        sites,
        "give it more time, or find out what made it slow",
    )


#: Where trio's thread is while it waits for something to happen.
_TRIO_WAITS = ("trio/_core/_run.py", "trio/_core/_io_epoll.py", "anyio/_backends/_trio.py")


def _of_trio(ladder: Ladder) -> _Judged:
    at = ladder.blocked
    first = next((n for n, site in enumerate(at) if site.file.endswith(_TRIO_WAITS)), len(at))
    inside = any(not s.file.endswith(("threading.py", "queue.py")) for s in at[:first])
    if not ladder.end and (ladder.cancels or (ladder.raised and not inside)):
        how = "cancelled" if ladder.cancels else "interrupted as if by Ctrl-C"
        return _Judged(
            "swallowed-cancellation",
            f"{how}, and still running after {Grace.interrupt:g} s",
            at,
            "let trio.Cancelled through: never catch BaseException without raising it again",
        )
    if inside:
        return _Judged(
            "blocked-loop",
            f"trio's thread was {'working' if ladder.busy > 0.5 else 'waiting'} in "
            f"{at[0].source or at[0].function}",
            at,
            "await an asynchronous call instead, or hand it to trio.to_thread.run_sync()",
        )
    return _Judged(
        "never-finished",
        "trio's tasks were waiting",
        [],
        "see to it that this can end, or put it in trio.fail_after()",
    )


def _blocked(ladder: Ladder, held: float) -> _Judged:
    at = ladder.blocked
    line = at[0].source or at[0].function if at else ""
    if not ladder.end:
        return _Judged(
            "stuck-in-c",
            f"an exception raised in its thread changed nothing for {Grace.interrupt:g} s",
            at,
            "give the call a timeout of its own, or run it in a child process",
        )
    if ladder.runtime == "asyncio" and ladder.unanswered and ladder.had_task:
        how = "working" if ladder.busy > 0.5 else "waiting"
        return _Judged(
            "blocked-loop",
            f"the loop did not answer for {ladder.end - ladder.at:.2f} s more: "
            f"its thread was {how} in {line}",
            at,
            "await an asynchronous call instead, or hand it to asyncio.to_thread()",
        )
    if ladder.busy > 0.5:
        return _Judged(
            "busy",
            f"the thread was working all the time, at last in {line}",
            at,
            "see to it that this loop can end",
        )
    return _Judged(
        "blocked",
        f"the thread was waiting in {line}",
        at,
        "give the call a timeout of its own, or see to it that what it waits for happens",
    )


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def timeout_error(
    ladder: Ladder,
    *,
    what: str = "",
    owner: str = "",
    nodeid: str = "",
    returned: bool = False,
    hint: str = "",
    resources: Iterable[str] = (),
) -> TightshipTimeout:
    """Return the exception that tells of a deadline that was passed.

    Args:
        ladder: what was seen and done about it.
        what: the operation, if more is known than its deadline said.
        owner: the test it belongs to; empty outside of tests.
        nodeid: that test's node id.
        returned: whether the operation returned, rather than raise.
        hint: one more line, where the value came from a place that is easily overlooked.
        resources: what the operation's owner still held open, a line each.
    """
    judged = judge(ladder, returned=returned)
    what = what or ladder.what
    budget = ladder.budget
    said = f"took longer than {budget.seconds:g} s"
    if ladder.forecast:
        said = "can never finish"
    tail = f"{said}: {VERDICTS[judged.label]}"
    facts = [("because", judged.because)]
    if judged.at:
        facts.append(("at", format_stack(judged.at)))
    if ladder.forecast:
        facts.append(("forecast", f"{ladder.forecast}, after {ladder.at - ladder.started:.2f} s"))
    else:
        facts.append(("limit", f"{budget}; ended after {ladder.elapsed:.2f} s"))
    if hint:
        facts.append(("hint", hint))
    finding = Finding(
        kind="timeout",
        label=judged.label,
        subject=what,
        owner=owner,
        owner_kind="test",
        owner_scope="function",
        nodeid=nodeid,
        certainty=Certainty.PROVEN,
        verdict=Verdict.FAIL,
        made=judged.at[0] if judged.at else None,
        facts=facts,
        fix=judged.fix,
        seconds=ladder.elapsed,
        tail=tail,
        extra={
            "verdict": judged.label,
            "limit": budget.seconds,
            "budget": budget.name,
            "where": budget.where,
            "cancels": ladder.cancels,
            "interrupts": ladder.interrupts,
        },
    )
    lines = [f"{what} {tail}"]
    lines += [f"  {name:<{_WIDTH}} {text}" for name, text in (*facts, ("fix", judged.fix))]
    lines += _picture(ladder, list(resources))
    return TightshipTimeout("\n".join(lines), finding, budget, ladder.elapsed, ladder.picture)


def _picture(ladder: Ladder, resources: list[str]) -> list[str]:
    lines: list[str] = []
    if ladder.picture is not None:
        from ..explain.picture import render

        when = "at that moment" if ladder.forecast else "when time was up"
        lines += ["", f"{when}, {ladder.at - ladder.started:.2f} s after it began:"]
        lines += ["  " + line for line in render(ladder.picture)]
    if resources:
        lines += ["  still open"]
        lines += ["    " + line for line in resources[:10]]
        if len(resources) > 10:
            lines.append(f"    ... and {len(resources) - 10} more")
    return lines

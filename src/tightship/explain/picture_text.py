"""The picture at expiry as text: what tells most comes first, and it has an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..model import Site

if TYPE_CHECKING:
    from .jobs import Job
    from .loop_state import LoopState, Timer
    from .picture import Picture
    from .task_tree import Node
    from .threads import Thread

__all__ = ["render"]

#: Width of the words that start a line, and of the column of names at most.
_LABEL, _NAMES = 11, 36
#: Places of a chain or a stack in one line.
_PLACES = 5

#: Lines that belong together, and how many things they tell of.
Block = tuple[list[str], int]


def render(picture: Picture, limit_lines: int = 60, width: int = 110) -> list[str]:
    """Return the picture for people, in at most ``limit_lines`` lines of ``width`` characters.

    What does not fit is counted; `Picture.to_dict` has all of it.
    """
    short = [*_timers(picture.loops), *_jobs(picture.jobs)]
    if picture.faults:
        short += _listed("not seen", list(picture.faults), 2)
    room = max(limit_lines - len(short), 4)
    tasks = [block for loop in picture.loops for block in _loop(loop, picture, width)]
    threads = list(_threads(picture, width))
    opened = _listed("open", list(picture.resources), max(2, room // 6))
    room -= len(opened)
    for_threads = min(_height(threads), max(room // 3, room - _height(tasks)))
    lines = _shown(tasks, room - for_threads, "tasks")
    lines += _shown(threads, for_threads, "threads")
    lines += [*short, *opened]
    return [_cut(line, width) for line in lines[:limit_lines]]


def _height(blocks: Sequence[Block]) -> int:
    return sum(len(lines) for lines, _ in blocks)


def _shown(blocks: Sequence[Block], room: int, noun: str) -> list[str]:
    """Return as many blocks as there is room for."""
    if _height(blocks) <= room:
        return [line for lines, _ in blocks for line in lines]
    shown: list[str] = []
    for number, (lines, _) in enumerate(blocks):
        if len(shown) + len(lines) > room - 1:
            rest = sum(count for _, count in blocks[number:])
            return [*shown, f"  ... and {rest} more {noun if rest > 1 else noun[:-1]}"]
        shown += lines
    return shown


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


# ---- tasks ----------------------------------------------------------------------------------


def _loop(loop: LoopState, picture: Picture, width: int) -> Iterator[Block]:
    forest = loop.tasks
    if not forest.total and loop.state in ("closed", "not running") and len(picture.loops) > 1:
        return
    which = "the loop" if len(picture.loops) == 1 and loop.kind != "trio" else f"{loop.kind}'s loop"
    if loop.kind == "trio":
        which = "trio"
    if len(picture.loops) > 1:
        name = next((t.name for t in picture.threads if t.ident == loop.thread), "")
        which += f" in {name}" if name else ""
    facts = [f"{forest.total} pending", f"{which} is {loop.state}"]
    if loop.ready:
        facts.append(f"{_many(loop.ready, 'callback')} ready to run")
    if forest.unseen:
        facts.append(f"no time to look at {forest.unseen} of them")
    head = [f"tasks ({', '.join(facts)})"]
    if loop.where and not any(node.running for node in forest.trees):
        head.append("  at " + _places(loop.where, width - 5))
    yield head, 0
    entries = [entry for node in forest.trees for entry in _entries(node, 1, width)]
    column = min(_NAMES, max((len(left) for left, *_ in entries), default=0)) + 2
    for left, right, below, count in entries:
        yield (
            [f"{left:<{column}} {right}" if len(left) < column else f"{left}  {right}", *below],
            count,
        )


def _entries(node: Node, depth: int, width: int) -> Iterator[tuple[str, str, list[str], int]]:
    """Yield (name, state, further lines, number of tasks) of a tree, a parent before its own."""
    indent = "  " * depth
    name = node.name if node.count == 1 else f"{node.count} x {node.name}"
    below = []
    if node.chain and not node.runtime_only:  # what it waits for says more than asyncio's line
        below.append(f"{indent}  at " + _places(node.chain, width - len(indent) - 5))
    if node.cycle:
        below.append(f"{indent}  in a ring, each waits for the next: {' -> '.join(node.cycle)}")
    if node.cancelled_by is not None:
        below.append(f"{indent}  cancelled by {node.cancelled_by}")
    if node.made is not None and depth == 1 and not node.main:
        below.append(f"{indent}  made {node.made}")
    if node.below:
        below.append(f"{indent}  ... and {_many(node.below, 'task')} beneath")
    yield indent + name, _state(node.waits), below, node.count + node.below
    for child in node.children:
        yield from _entries(child, depth + 1, width)


def _state(waits: str) -> str:
    for known, text in (
        ("running now", "is running"),
        ("not started yet", "has not started"),
        ("nothing:", "waits for nothing:"),
    ):
        if waits.startswith(known):
            return text + waits.removeprefix(known)
    return f"waits for {waits}"


def _places(sites: Sequence[Site], width: int) -> str:
    """Return the innermost place with its source, and as many others as there is room for."""
    text = str(sites[0])
    for number, at in enumerate(sites[1:]):
        step = ("   <- " if not number else " <- ") + f"{at.file}:{at.line}"
        more = number + 2 < len(sites)
        if number + 2 > _PLACES or len(text) + len(step) + 7 * more > width:
            return text + ("   <- ..." if not number else " <- ...")
        text += step
    return text


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# ---- threads, timers, jobs, resources ---------------------------------------------------------


def _threads(picture: Picture, width: int) -> Iterator[Block]:
    shown = {loop.thread for loop in picture.loops if loop.where}
    idle = [t for t in picture.threads if t.doing == "idle"]
    others = [t for t in picture.threads if t.doing != "idle"]
    if not picture.threads:
        return
    yield ["threads"], 0
    column = min(_NAMES, max((len(_name(t)) for t in others), default=0)) + 2
    for thread in others:
        left = f"  {_name(thread):<{column}} "
        if thread.runs_loop:
            yield [left + "runs the loop"], thread.count
        elif thread.ident in shown:
            yield [left + "runs the loop, see above"], thread.count
        elif not thread.doing:
            yield [f"{left}at {_places(thread.stack, width - len(left) - 3)}"], thread.count
        else:
            verb = "is in" if thread.doing.endswith("()") else "waits for"
            verb = "runs" if thread.doing.startswith("job ") else verb
            lines = [f"{left}{verb} {thread.doing}"]
            if not thread.runtime_only:
                lines.append(f"    at {_places(thread.stack, width - 7)}")
            yield lines, thread.count
    if idle:
        yield [f"  idle: {', '.join(map(_name, idle))}"], sum(t.count for t in idle)


def _name(thread: Thread) -> str:
    return thread.name if thread.count == 1 else f"{thread.count} x {thread.name}"


def _timers(loops: Sequence[LoopState]) -> list[str]:
    lines = []
    for loop in loops:
        if loop.timers:
            told = ", ".join(_timer(timer) for timer in loop.timers[:3])
            more = ", ..." if len(loop.timers) > 3 else ""
            number = sum(timer.count for timer in loop.timers)
            lines.append(f"{'timers':<{_LABEL}}{number}: next in {told}{more}")
    return lines


def _timer(timer: Timer) -> str:
    site = "" if timer.site is None else f", {timer.site.file}:{timer.site.line}"
    times = "" if timer.count == 1 else f"{timer.count} x "
    return f"{timer.due:.1f} s ({times}{timer.name}{site})"


def _jobs(jobs: Sequence[Job]) -> list[str]:
    parts = []
    for state in ("running", "queued"):
        names = Counter(job.name for job in jobs if job.state == state)
        if names:
            told = [n if c == 1 else f"{c} x {n}" for n, c in names.most_common(4)]
            more = ", ..." if len(names) > 4 else ""
            parts.append(f"{names.total()} {state}: {', '.join(told)}{more}")
    return [f"{'jobs':<{_LABEL}}{'; '.join(parts)}"] if parts else []


def _listed(label: str, texts: Sequence[str], room: int) -> list[str]:
    if len(texts) > room:
        texts = [*texts[: room - 1], f"... and {len(texts) - room + 1} more"]
    return [f"{label if not n else '':<{_LABEL}}{text}" for n, text in enumerate(texts)]

"""Who awaits whom: the pending tasks of a loop as a forest, equal ones merged.

A task stands beneath the task that awaits it, be it directly or by way of `gather`, `wait`,
`wait_for`, `shield` or a task group. Nothing of what is returned holds a task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from ..model import Site
from ..origin import layer, site_at
from ..runtimes.loops import pending_tasks
from .await_chain import coroutine_of, look, waiters
from .frames import Spot, get, readable, site
from .waits import callbacks

__all__ = ["Forest", "Node", "Seen", "chosen_by_library", "forest", "planted", "with_names"]

#: Levels of tasks that are told one by one.
_DEEP = 30
#: Seconds beyond the limit that finding out who awaits whom may take.
_MORE = 0.15


@dataclass(frozen=True, slots=True)
class Node:
    """One task, or several that cannot be told apart."""

    name: str
    """Its own, or its coroutine's if it has none; ``worker-*`` for several."""
    count: int
    waits: str
    """What it waits for, in words."""
    chain: tuple[Site, ...]
    """Where: the project's lines, innermost first."""
    made: Site | None = None
    running: bool = False
    cancelling: int = 0
    """How often it was asked to end."""
    cancelled_by: Site | None = None
    main: bool = False
    """The loop runs until this one is done, or a test runner runs its tests in it."""
    runtime_only: bool = False
    """It is in no line of the project's or of a library's."""
    cycle: tuple[str, ...] = ()
    """Names of tasks that await each other in a ring, this one first."""
    children: tuple[Node, ...] = ()
    below: int = 0
    """Tasks beneath it that are not told one by one."""

    def size(self) -> int:
        """Return the number of tasks in this tree."""
        return self.count + self.below + sum(child.size() for child in self.children)


@dataclass(frozen=True, slots=True)
class Forest:
    """The tasks of a loop."""

    trees: tuple[Node, ...]
    total: int
    """All pending tasks."""
    unseen: int = 0
    """Those that there was no time to look at."""


@dataclass(slots=True, eq=False)
class Seen:
    """One task as it was found. Lives no longer than the call that looks."""

    name: str
    waits: str
    spots: list[Spot]
    made: Site | None = None
    cancelling: int = 0
    cancelled_by: Site | None = None
    main: bool = False
    parents: list[Seen] = field(default_factory=list)
    children: list[Seen] = field(default_factory=list)
    cycle: tuple[str, ...] = ()
    below: int = 0

    @property
    def running(self) -> bool:
        """Tell whether the task is the one that its thread is in."""
        return self.waits.startswith("running now")


def forest(
    loop: Any,
    *,
    over: Callable[[float], bool],
    cancelled_by: Callable[[Any], Site | None] | None = None,
) -> Forest:
    """Return the pending tasks of an asyncio loop. Runs nothing of the loop.

    Args:
        loop: an open loop; it may be running in another thread.
        over: tells whether the time for looking, plus some seconds, is used up.
        cancelled_by: tells who cancelled a task.
    """
    refs = pending_tasks(loop)
    known: dict[int, Seen] = {}
    tasks: list[Any] = []
    through: dict[int, int] = {}
    aliases: dict[str, str] = {}
    unseen = 0
    for number, ref in enumerate(refs):
        if number % 64 == 0 and over(0.0):
            unseen = len(refs) - number
            break
        task = ref()
        if task is None:
            continue
        seen, passed = _seen(task)
        if get(task, "cancelling", int)() and cancelled_by is not None:
            seen.cancelled_by = cancelled_by(task)
        for inner in passed:
            through[id(inner)] = id(task)
        given = _given_name(task)
        if given != seen.name:
            aliases[given] = seen.name
        known[id(task)] = seen
        tasks.append(task)
    for number, task in enumerate(tasks):
        seen = known[id(task)]
        seen.waits = with_names(seen.waits, aliases)
        if number % 64 == 0 and over(_MORE):
            break
        if id(task) in through:
            continue
        found: dict[int, Seen] = {}
        for parent in waiters(task):
            key = id(parent)
            while key in through:
                key = through[key]
            if key in known:
                found[key] = known[key]
        seen.parents = list(found.values())
    rest = [seen for key, seen in known.items() if key not in through]
    return Forest(planted(rest), len(rest) + unseen, unseen)


#: What a loop, asyncio's or uvloop's, lets the task call that it runs until the end of.
_ENDS_RUN = ("_run_until_complete_cb", "done_cb")
#: What anyio's test runner runs in a task that outlives its tests.
_RUNNER = "TestRunner._run_tests_and_fixtures"


def _seen(task: Any) -> tuple[Seen, list[object]]:
    spots, waits, through = look(task)
    cancelling = get(task, "cancelling", int)()
    coro = coroutine_of(task)
    main = any(get(c, "__name__") in _ENDS_RUN for c in callbacks(task))
    main = main or get(get(coro, "cr_code"), "co_qualname") == _RUNNER
    return (
        Seen(
            _name(task, spots),
            waits,
            spots,
            _made(coro),
            cancelling if isinstance(cancelling, int) else 0,
            main=main,
        ),
        through,
    )


def _given_name(task: Any) -> str:
    try:
        return readable(task.get_name())
    except Exception:
        return "?"


def _name(task: Any, spots: list[Spot]) -> str:
    """Return the name that a task was given, else that of the project's function it runs."""
    name = _given_name(task)
    coro = coroutine_of(task)
    code = own = get(coro, "cr_code") or get(coro, "gi_code")
    if own is not None and layer(own.co_filename) == 2:
        # A runner's coroutine; the outermost line that is not the runtime's says more.
        code = next((c for c, _ in reversed(spots) if layer(c.co_filename) < 2), own)
    unnamed = re.fullmatch(r"Task-\d+|\?|None|NoneType", name)
    if code is None or not (unnamed or chosen_by_library(task.get_name(), code)):
        return name
    text = get(coro, "__name__") if code is own else None
    return readable(text) if isinstance(text, str) else str(code.co_name)


def chosen_by_library(name: object, code: CodeType) -> bool:
    """Tell whether a name is only the function's, as anyio and trio write it."""
    return isinstance(name, str) and name.endswith(f".{code.co_qualname}")


def with_names(words: str, aliases: dict[str, str]) -> str:
    """Return words that call tasks by the names they have in the picture."""
    return re.sub(r"task '([^']+)'", lambda m: f"task '{aliases.get(m[1], m[1])}'", words)


def _made(coro: object) -> Site | None:
    """Return the line that made a coroutine, if Python was told to remember such."""
    origin: Any = get(coro, "cr_origin") or ()
    ranked = sorted(origin, key=lambda place: layer(place[0]))  # stable: the innermost first
    if not ranked or layer(ranked[0][0]) == 2:
        return None
    return site_at(*ranked[0])


# ---- from single tasks to a forest of merged ones -------------------------------------------


def planted(tasks: Iterable[Seen]) -> tuple[Node, ...]:
    """Return the trees that tasks with known `parents` make, merged and in order."""
    tasks = list(tasks)
    _rings(tasks)
    for seen in tasks:
        if seen.parents:
            seen.parents[0].children.append(seen)
    roots = _cut(tasks)
    levels = [roots]
    while levels[-1]:
        levels.append([child for seen in levels[-1] for child in seen.children])
    for row in reversed(levels[_DEEP - 1 :]):
        for seen in row:
            seen.below = sum(1 + child.below for child in seen.children)
            seen.children = []
    keys: dict[int, int] = {}
    numbers: dict[Any, int] = {}
    for row in reversed(levels[:_DEEP]):
        for seen in row:
            keys[id(seen)] = numbers.setdefault(_key(seen, keys), len(numbers))
    return _merged(roots, keys, {})


def _rings(tasks: list[Seen]) -> None:
    """Name each ring of tasks that await each other at one of its members."""
    open_, closed = 1, 2
    state: dict[int, int] = {}
    for start in tasks:
        path: list[Seen] = []
        # Not recursive: chains of tasks may be longer than Python's stack.
        todo = [(start, iter([start]))]
        while todo:
            _, parents = todo[-1]
            at = next(parents, None)
            if at is None:
                todo.pop()
                if path:
                    state[id(path.pop())] = closed
            elif id(at) not in state:
                state[id(at)] = open_
                path.append(at)
                todo.append((at, iter(at.parents)))
            elif state[id(at)] == open_:
                _name_ring(path[path.index(at) :])


def _name_ring(ring: list[Seen]) -> None:
    # Each is awaited by the next one, the last by the first.
    first = min(ring, key=lambda seen: (not seen.main, seen.name))
    if not first.cycle:
        turn = ring.index(first)
        order = [first, *reversed(ring[:turn]), *reversed(ring[turn + 1 :])]
        first.cycle = (*(seen.name for seen in order), first.name)


def _cut(tasks: list[Seen]) -> list[Seen]:
    """Return the roots, one of each ring that no root leads to among them."""
    roots = [seen for seen in tasks if not seen.parents]
    reached: set[int] = set()
    todo = list(roots)
    for seen in [None, *sorted(tasks, key=lambda s: (not s.cycle, not s.main, s.name))]:
        if seen is not None and id(seen) not in reached:
            seen.parents[0].children.remove(seen)
            seen.parents.clear()
            roots.append(seen)
            todo.append(seen)
        while todo:
            at = todo.pop()
            reached.add(id(at))
            todo.extend(child for child in at.children if id(child) not in reached)
    return roots


def _key(seen: Seen, keys: dict[int, int]) -> tuple[Any, ...]:
    # What several tasks wait for stands beneath one of them, but is not its own.
    own = {keys[id(child)] for child in seen.children if len(child.parents) == 1}
    return (
        _pattern(seen.name),
        _NUMBER.sub("#", seen.waits),
        tuple((id(code), line) for code, line in seen.spots),
        seen.cancelling,
        seen.main,
        seen.cycle,
        tuple(sorted(own)),
    )


_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _pattern(name: str) -> str:
    return re.sub(r"\d+(?=\W*$)", "*", name)


def _merged(
    siblings: list[Seen], keys: dict[int, int], sites: dict[tuple[int, int], Site]
) -> tuple[Node, ...]:
    groups: dict[int, list[Seen]] = {}
    for seen in siblings:
        groups.setdefault(keys[id(seen)], []).append(seen)
    nodes = []
    for group in groups.values():
        one = group[0]
        names = {seen.name for seen in group}
        nodes.append(
            Node(
                one.name if len(names) == 1 else _pattern(one.name),
                len(group),
                _common([seen.waits for seen in group]),
                tuple(_site(s, sites) for s in one.spots),
                one.made,
                one.running,
                one.cancelling,
                one.cancelled_by,
                one.main,
                all(layer(code.co_filename) == 2 for code, _ in one.spots),
                one.cycle,
                _merged([child for seen in group for child in seen.children], keys, sites),
                sum(seen.below for seen in group),
            )
        )
    return tuple(sorted(nodes, key=_rank))


def _site(spot: Spot, known: dict[tuple[int, int], Site]) -> Site:
    # Not by the code object itself: hashing a large function takes its time.
    key = id(spot[0]), spot[1]
    found = known.get(key)
    if found is None:
        found = known[key] = site(spot)
    return found


def _rank(node: Node) -> tuple[Any, ...]:
    first = (not node.main, not node.running, not node.cycle, not node.children)
    return node.runtime_only and not node.children, *first, node.name


def _common(texts: list[str]) -> str:
    """Return texts that differ in numbers alone as one: ranges of times, stars for others."""
    rows = [_NUMBER.findall(text) for text in texts]
    words = _NUMBER.split(texts[0])
    text = words[0]
    for number, word in zip(zip(*rows, strict=True), words[1:], strict=True):
        if len(set(number)) == 1:
            text += number[0]
        elif text.endswith("due in "):
            times = sorted(number, key=float)
            text += f"{times[0]} to {times[-1]}"
        else:
            text += "*"
        text += word
    return text

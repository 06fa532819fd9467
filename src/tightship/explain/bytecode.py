"""Which `except`, `finally` or `with` catches what is raised at an instruction.

Read from the exception tables and the instructions of CPython 3.11 to 3.13; nothing is run.
On any other bytecode (untried on 3.14) the answer may be empty, but does not raise.
"""

from __future__ import annotations

import dis
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from types import CodeType

__all__ = ["Catches", "Flow", "Handler"]


class Catches(IntEnum):
    """What becomes of an exception in a handler."""

    PASSES = 0
    """It always goes on its way: `finally`, or an `except` that raises it again."""
    MAYBE = 1
    """That is for a context manager or for an unknown name after `except` to decide."""
    ENDS = 2
    """The handler can be left without raising."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A place that exceptions of a certain instruction are sent to."""

    kind: str
    """``except``, ``finally`` or ``with``."""
    line: int
    start: int
    """Offset of the first instruction of its body."""
    catches: Catches
    block: int
    """The clauses of one `try` have the same."""
    names: tuple[str, ...] | None = None
    """Dotted names after ``except``; empty for a bare one, None if there is no such thing."""


#: Instructions that may stand between the start of an `except` clause and its comparison.
_EXPRESSION = ("LOAD_", "BUILD_", "CALL", "PRECALL", "PUSH_NULL", "KW_NAMES", "COPY", "SWAP")
_ENDINGS = ("RERAISE", "RAISE_VARARGS", "RETURN_VALUE", "RETURN_CONST")


class Flow:
    """A function's instructions, and which can follow which."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self._steps = list(dis.get_instructions(code))
        self._index = {step.offset: n for n, step in enumerate(self._steps)}
        self._jumps = {*dis.hasjrel, *dis.hasjabs}
        self._table = _exception_table(getattr(code, "co_exceptiontable", b""))

    def handlers(self, lasti: int) -> Iterator[Handler]:
        """Yield what gets an exception raised at this offset, the innermost first.

        Of one `try`, each `except` clause is a handler of its own, in their order.
        """
        seen: set[int] = set()
        target = self._target(lasti)
        while target is not None and target not in seen:
            seen.add(target)
            if self._name(target) == "PUSH_EXC_INFO":
                yield from self._clauses(target)
            # What a handler raises goes to the next one out, as do the exceptions in the
            # clean-up code that the compiler adds.
            target = self._target(target)

    def reach(self, start: int, *, inside: bool) -> set[int]:
        """Return the offsets that can be executed after ``start``.

        Args:
            start: offset of an instruction.
            inside: only as long as the exception is still being handled; otherwise
                everything, exceptions included.
        """
        found: set[int] = set()
        todo = [start]
        while todo:
            offset = todo.pop()
            if offset in found or offset not in self._index:
                continue
            found.add(offset)
            if inside and self._name(offset) == "POP_EXCEPT":
                continue
            todo.extend(self._next(offset))
            if not inside and (target := self._target(offset)) is not None:
                todo.append(target)
        return found

    def _name(self, offset: int) -> str:
        n = self._index.get(offset)
        return "" if n is None else self._steps[n].opname

    def _next(self, offset: int) -> list[int]:
        n = self._index[offset]
        step = self._steps[n]
        if step.opname in _ENDINGS:
            return []
        following = [step.argval] if step.opcode in self._jumps else []
        if not step.opname.startswith("JUMP_") and n + 1 < len(self._steps):
            following.append(self._steps[n + 1].offset)
        return following

    def _target(self, offset: int) -> int | None:
        for start, end, target in self._table:
            if start <= offset < end:
                return target
        return None

    def _clauses(self, push: int) -> Iterator[Handler]:
        n = self._index[push] + 1
        first = self._steps[n]
        if first.opname == "WITH_EXCEPT_START":
            yield Handler("with", self._line(n), first.offset, Catches.MAYBE, push)
            return
        clauses = 0
        while True:
            check, names = self._comparison(n)
            if check is None:
                break
            clauses += 1
            body, other = self._branches(check)
            ends = self._ends(body)
            if ends and self._steps[check].opname == "CHECK_EG_MATCH":
                ends = Catches.MAYBE  # what is left of the group is raised again
            yield Handler("except", self._line(check), body, ends, push, names)
            if other not in self._index:
                return
            n = self._index[other]
        last = self._steps[n]
        if last.opname == "POP_TOP":  # nothing to compare, the exception is dropped: a bare one
            yield Handler("except", self._line(n), last.offset, self._ends(last.offset), push, ())
        elif not clauses:
            line = _finally(self.code.co_filename, self._line(n))
            yield Handler("finally", line, last.offset, self._ends(last.offset), push)

    def _comparison(self, n: int) -> tuple[int | None, tuple[str, ...]]:
        """Return the index of the clause's comparison, if there is one, and the names in it."""
        names: list[str] = []
        for at in range(n, len(self._steps)):
            step = self._steps[at]
            if step.opname in ("CHECK_EXC_MATCH", "CHECK_EG_MATCH"):
                return at, tuple(names)
            if not step.opname.startswith((*_EXPRESSION, "EXTENDED_ARG", "NOP")):
                break
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and names:
                names[-1] += f".{step.argval}"
            elif step.opname.startswith("LOAD_") and isinstance(step.argval, str):
                names.append(step.argval)
        return None, ()

    def _branches(self, check: int) -> tuple[int, int]:
        """Return where it goes on after a match, and where otherwise."""
        for at in range(check + 1, min(check + 4, len(self._steps) - 1)):
            step = self._steps[at]
            if step.opcode in self._jumps:
                return self._steps[at + 1].offset, step.argval
        return self._steps[check].offset, -1

    def _ends(self, body: int) -> Catches:
        inside = self.reach(body, inside=True)
        ends = any(self._name(offset) == "POP_EXCEPT" for offset in inside)
        return Catches.ENDS if ends else Catches.PASSES

    def _line(self, n: int) -> int:
        for step in self._steps[n:]:
            if step.positions is not None and step.positions.lineno:
                return step.positions.lineno
        return self.code.co_firstlineno


def _exception_table(table: bytes) -> list[tuple[int, int, int]]:
    """Return (start, end, target) offsets.

    The format is that of CPython's ``Objects/exception_handling_notes.txt``: four numbers a
    row in units of two bytes, written in groups of six bits.
    """
    numbers: list[int] = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
    rows = zip(numbers[::4], numbers[1::4], numbers[2::4], strict=False)
    return [(start * 2, (start + size) * 2, target * 2) for start, size, target in rows]


def _finally(file: str, line: int) -> int:
    """Return the line of the word; the bytecode only knows the first line after it."""
    for above in range(line, max(0, line - 30), -1):
        text = linecache.getline(file, above).strip()
        if text.startswith("finally"):
            return above
        if text and above < line and not text.startswith("#"):
            break
    return line

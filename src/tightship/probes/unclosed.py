"""What other libraries' objects say of themselves when they die open.

aiohttp's sessions, connectors and responses tell their loop's exception handler, whether the
garbage collector or a dropped reference ended them.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from ..ledger import LEDGER
from ..model import Evidence, Key, Owner, Scene
from ..origin import Raw
from ..ownership import current
from .base import BaseProbe, digits
from .complaints import listen

__all__ = ["UNCLOSED", "UnclosedProbe", "described", "pid_of", "without_address"]


class _Unclosed(NamedTuple):
    """An object that is no more, as strings."""

    text: str
    type_name: str
    owner: Owner
    made: Raw | None


class UnclosedProbe(BaseProbe):
    """An object that died without having been closed, by its own account."""

    kind: ClassVar[str] = "unclosed"

    def __init__(self) -> None:
        self.tick = LEDGER.happened  # type: ignore[method-assign]
        self._dead: dict[Key, _Unclosed] = {}
        self._numbers = itertools.count()
        UNCLOSED.append(self)

    def install(self, patch: Any) -> None:
        """Hear what dying objects tell their loop."""
        listen(patch, self._hear)

    def close(self) -> None:
        """Listen no more."""
        if self in UNCLOSED:
            UNCLOSED.remove(self)

    def _hear(self, loop: Any, context: dict[str, Any]) -> None:
        message = str(context.get("message", ""))
        if message.startswith("Unclosed ") and context.get("exception") is None:
            # The object goes under its own name: client_session, connector, response ...
            self.note(message, next((v for k, v in context.items() if k != "message"), None))

    def note(self, message: str, obj: Any) -> None:
        """Remember one."""
        birth = LEDGER.of_dying(obj)
        owner = (birth.owner if birth is not None else None) or current()
        if owner is not None:
            LEDGER.events += 1
            self._dead["unclosed", next(self._numbers)] = _Unclosed(
                message, type(obj).__name__, owner, None if birth is None else birth.made
            )

    def told(self, text: str) -> bool:
        """Tell whether this was heard of already."""
        return any(text.startswith(d.text) for d in self._dead.values())

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all that haven't been judged."""
        return dict(self._dead)

    def forget(self, key: Key) -> None:
        """Drop one that has been judged."""
        self._dead.pop(key, None)

    def proves(self, handle: _Unclosed) -> bool:
        """It says so itself."""
        return True

    def owner(self, handle: _Unclosed) -> Owner | None:
        """Return whose it was."""
        return handle.owner

    def made(self, handle: _Unclosed) -> Raw | None:
        """Return where it was made, if that was noted."""
        return handle.made

    def label(self, handle: _Unclosed) -> str:
        """Return its type's name."""
        return handle.type_name

    def explain(self, handle: _Unclosed) -> Evidence:
        """Say what it is."""
        name = without_address(handle.text)
        return Evidence(
            f"{name} ({handle.type_name})",
            [("state", "it died without having been closed")],
            "close it where it is used last, or use it in an 'async with' block",
        )


def without_address(text: str) -> str:
    """Return a warning's text without the word it begins with, and without addresses."""
    text = re.sub(r"^unclosed\s+", "", text.strip(), flags=re.IGNORECASE)
    text = re.sub(r"<(?:[\w]+\.)*(\w+) object at 0x[0-9a-f]+>", r"\1", text)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def described(kind: str, type_name: str, text: str) -> tuple[str, str]:
    """Return the label and subject that the living object would have had."""
    if kind == "file" and (name := re.search(r" name='([^']+)'", text)):
        base = os.path.basename(name[1])
        return digits(base), f"file {base!r}"
    if kind == "socket" and (found := re.search(r"family=(\w+), type=(\w+)", text)):
        family = {"1": "unix", "2": "tcp", "10": "tcp"}.get(found[1], "socket")
        if family == "tcp" and found[2] == "2":
            family = "udp"
        ends = re.findall(r"[lr]addr=\('([^']*)', (\d+)", text)
        where = " -> ".join(f"{host}:{port}" for host, port in ends if port != "0")
        return family, f"socket {family} {where}".rstrip()
    if kind == "loop":
        label = "uvloop" if type_name == "Loop" else "asyncio"
        return label, f"event loop ({type_name.lstrip('_')})"
    text = without_address(text)
    if len(text) > 160:
        text = text[:157] + "..."
    return type_name or "object", text if kind == "unclosed" else f"{kind} {text}"


def pid_of(text: str) -> int | None:
    """Return the child process that a warning is about, if it is about one."""
    found = re.search(r"\bpid=(\d+) running|^subprocess (\d+) is still running", text)
    return int(found[1] or found[2]) if found is not None else None


#: Those that listen: the watch asks them what was told already.
UNCLOSED: list[UnclosedProbe] = []

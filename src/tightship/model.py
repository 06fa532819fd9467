"""The records that travel through Tightship: owners, sites, evidence, findings.

Everything here is plain data. A `Finding` is made of strings and numbers only, so that it
can cross process borders, be written to the journal, and keep nothing alive.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

__all__ = [
    "Certainty",
    "Evidence",
    "Finding",
    "Key",
    "Owner",
    "Probe",
    "Scene",
    "Scope",
    "Site",
    "Verdict",
]

#: Names one live resource. Never a bare ``id()``, thread ident or fd number that the
#: runtime may hand out again while we still remember it.
Key = Hashable

Scope = Literal["function", "class", "module", "package", "session", "block"]


class Certainty(enum.IntEnum):
    """How sure we are that something was left behind."""

    POSSIBLE = 1
    """Held by a module global, lazily cached, or of unknown owner."""
    STRONG = 2
    """Alive and open after its owner ended."""
    PROVEN = 3
    """Nothing can ever wake or close it: it is unreachable, yet pending or open."""

    def __str__(self) -> str:
        return self.name.lower()


class Verdict(enum.StrEnum):
    """What policy decided about a finding."""

    SLOW = "slow"
    """It went away, but only after its owner had ended."""
    NOTE = "note"
    """Worth knowing; changes no outcome."""
    ALLOWED = "allowed"
    """An allow rule, an expectation or a built-in rule covers it."""
    FAIL = "fail"
    """It fails the test."""


# Plain classes where nothing is compared or copied: a dataclass costs each start of pytest
# about a millisecond.


class Owner:
    """Whoever is running when something is made: a test, a fixture, or a block of code.

    Compared by identity: two runs of the same test (a rerun, say) are two owners.

    Args:
        name: the test's or fixture's name as its author wrote it.
        scope: how long it lives. A test has scope ``function``; `no_leaks` has ``block``.
        kind: which of the four it is.
        nodeid: the test (or, for a fixture, the place) it belongs to.
        parent: for a function-scoped fixture, its test; otherwise None.
    """

    __slots__ = (
        "__weakref__",
        "ended",
        "kind",
        "name",
        "nodeid",
        "parent",
        "reads_log",
        "scope",
    )

    def __init__(
        self,
        name: str,
        scope: Scope = "function",
        kind: Literal["test", "fixture", "block", "session"] = "test",
        nodeid: str = "",
        parent: Owner | None = None,
    ) -> None:
        self.name = name
        self.scope: Scope = scope
        self.kind = kind
        self.nodeid = nodeid
        self.parent = parent
        self.ended = False
        """True once its teardown is over: whatever it still holds has outlived it."""
        self.reads_log = False
        """True if it captures the log, and so may want the errors that it finds there."""

    def __repr__(self) -> str:
        return f"<Owner {self}>"

    @property
    def wide(self) -> bool:
        """True if this owner may outlive the test that is running."""
        return self.kind == "fixture" and self.scope != "function"

    def __str__(self) -> str:
        if self.kind == "fixture":
            return f"fixture '{self.name}' ({self.scope})"
        return self.name


class Site(NamedTuple):
    """A line of somebody's code."""

    file: str
    """Path as shown: relative to the root directory where possible."""
    line: int
    function: str = ""
    source: str = ""
    """The text of the line, stripped; empty if it cannot be read."""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}"
        return f"{text}   {self.source}" if self.source else text


class Evidence:
    """What a probe found out about one survivor, as strings. Gathered only if shown.

    Args:
        subject: what it is, for the first line: ``task 'poll_inventory'``.
        facts: (name, text) pairs, each one line of the report:
            ``("waiting", "shop/poller.py:58 ...")``.
        fix: what to write instead, in the words of the API that made it. Empty: taken from
            the table.
        made: where it was made, if the probe knows better than the ledger.
    """

    __slots__ = ("facts", "fix", "made", "subject")

    def __init__(
        self,
        subject: str,
        facts: list[tuple[str, str]] | None = None,
        fix: str = "",
        made: Site | None = None,
    ) -> None:
        self.subject = subject
        self.facts: list[tuple[str, str]] = [] if facts is None else facts
        self.fix = fix
        self.made = made

    def __repr__(self) -> str:
        return f"Evidence({self.subject!r}, {self.facts!r}, {self.fix!r}, {self.made!r})"


@dataclass(slots=True)
class Finding:
    """One thing that is wrong, ready to be shown. Strings and numbers only."""

    kind: str
    label: str
    """Stable between runs: allow rules and fingerprints use it."""
    subject: str
    owner: str
    """``test_restock`` or ``fixture 'db' (session)``."""
    owner_kind: str
    owner_scope: str
    nodeid: str
    certainty: Certainty
    verdict: Verdict = Verdict.FAIL
    made: Site | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    fix: str = ""
    parts: list[str] = field(default_factory=list)
    """Subjects of other survivors that end when this one does (a socket of a transport)."""
    count: int = 1
    """How many equal findings this one stands for."""
    seconds: float = 0.0
    """Slow closers: how long after its owner's end it was gone."""
    reason: str = ""
    """Why it isn't failing, when policy, an allow rule or a built-in rule said so."""
    fingerprint: str = ""
    tail: str = "outlived"
    """The verb between subject and owner in the headline."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values for the journal only."""

    @property
    def headline(self) -> str:
        """The first line of the report, complete on its own."""
        many = f"{self.count} x " if self.count > 1 else ""
        if self.kind == "timeout":  # the subject is its owner's
            return f"{many}{self.subject} {self.tail}"
        return f"{many}{self.subject} {self.tail} {self.owner}"

    @property
    def selector(self) -> str:
        """``kind:label``, as allow rules name it."""
        return f"{self.kind}:{self.label}"

    @property
    def allow(self) -> str:
        """What can be pasted and works: a marker for the test, an argument for a block."""
        if self.owner_kind == "block":
            return f'no_leaks(allow={_quote(self.selector)}, reason="...")'
        return f'@pytest.mark.tightship(allow={_quote(self.selector)}, reason="...")'

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values (the journal's ``finding`` object)."""
        made = self.made
        return {
            "kind": self.kind,
            "label": self.label,
            "subject": self.subject,
            "tail": self.tail,
            "owner": self.owner,
            "owner_kind": self.owner_kind,
            "owner_scope": self.owner_scope,
            "nodeid": self.nodeid,
            "certainty": str(self.certainty),
            "verdict": str(self.verdict),
            "made": None if made is None else made._asdict(),
            "facts": [list(f) for f in self.facts],
            "fix": self.fix,
            "parts": list(self.parts),
            "count": self.count,
            "seconds": self.seconds,
            "reason": self.reason,
            "fingerprint": self.fingerprint,
            "extra": self.extra,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """Read back what `to_dict` wrote. Raises KeyError or ValueError on other data."""
        values = dict(data)
        made = values.pop("made", None)
        return cls(
            **{
                **values,
                "made": Site(**made) if made else None,
                "certainty": Certainty[str(values["certainty"]).upper()],
                "verdict": Verdict(values["verdict"]),
                "facts": [(str(a), str(b)) for a, b in values.get("facts", ())],
            }
        )

    def with_(self, **changes: Any) -> Finding:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Scene:
    """What a probe may look at when it takes a snapshot.

    Args:
        objects: objects of the types the probe asked for, born in this window and still alive.
        loop: the event loop in question, for probes of scope ``loop``; open and not running,
            or running with the caller inside it.
    """

    __slots__ = ("loop", "objects")

    def __init__(
        self, objects: Mapping[type, Sequence[Any]] | None = None, loop: Any = None
    ) -> None:
        self.objects: Mapping[type, Sequence[Any]] = {} if objects is None else objects
        self.loop = loop


class Probe(Protocol):
    """Knows one kind of resource. One file under ``probes/``, one line in its register.

    Not a base class to inherit from for its own sake: `probes.base.BaseProbe` has sensible
    answers for everything optional.
    """

    kind: ClassVar[str]
    """The word used in options, allow rules and reports: ``socket``."""
    scope: ClassVar[Literal["loop", "process"]]
    """``loop``: belongs to an event loop and is judged before the loop closes.
    ``process``: judged after the owner's teardown."""
    types: ClassVar[tuple[str, ...]]
    """Types to list for this probe, as ``module:Class``; resolved when the module is there."""

    def install(self, patch: Any) -> None:
        """Wrap the places where this kind is born (`births.Patcher`), to note owner and site."""

    def tick(self) -> Hashable:
        """Return a value that differs if a new survivor is possible. O(1), below 2 us."""

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all live resources of this kind as key -> handle.

        Free of side effects: never steps a loop, never closes, never blocks. Keys are not
        recycled while remembered.
        """

    def alive(self, handle: Any) -> bool:
        """Tell whether this one is still open. Cheap; used while settling."""

    def owner(self, handle: Any) -> Owner | None:
        """Return who made it, if that is known."""

    def made(self, handle: Any) -> Any:
        """Return its raw birth site (`origin.Raw`), or None."""

    def label(self, handle: Any) -> str:
        """Return a name stable between runs: no ids, fd numbers, ports or counters."""

    def covers(self, handle: Any) -> Iterable[Key]:
        """Return keys of what ends together with this one (a transport's socket and fd)."""

    def explain(self, handle: Any) -> Evidence:
        """Describe it for a person. May be slow; must not raise and keeps nothing alive."""


class Reporter(Protocol):
    """Turns findings into text for one medium."""

    def render(self, findings: Sequence[Finding], write: Callable[[str], None]) -> None:
        """Write the findings. A pure function of its arguments."""

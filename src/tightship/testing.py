"""The conformance suite that every probe has to pass, in one call.

Another package adds a kind of resource with a class and an entry point. The class has
``kind``, ``scope``, ``snapshot``, ``label`` and ``explain``; it is easiest to derive it from
`tightship.BaseProbe` (lists things by itself) or from `tightship.ObjectProbe` (instances of a
type, which the window lists for nothing)::

    class ChannelProbe(tightship.ObjectProbe):
        kind = "channel"
        types = ("ourlib.channels:Channel",)

        def opened(self, obj):
            return not obj.closed

        def label(self, handle):
            channel = target(handle)
            return "?" if channel is None else channel.topic

    # pyproject.toml
    [project.entry-points."tightship.probes"]
    channel = "ourlib.tightship:ChannelProbe"

and its test is one line::

    def test_the_probe_for_channels_keeps_the_rules():
        check_probe(ChannelProbe, open_channel, Channel.close)
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from .births import Patcher
from .model import Evidence, Key, Owner, Scene
from .ownership import CURRENT
from .probes.fdtable import TABLE
from .window import resolve

__all__ = ["check_probe"]

_REQUIRED = ("kind", "scope", "snapshot", "label", "explain")

#: What a tick must not call: each of these takes longer the more there is.
_LISTING = {
    "listdir",
    "scandir",
    "get_objects",
    "get_referrers",
    "get_referents",
    "collect",
    "_current_frames",
    "enumerate",
    "readlink",
}


def check_probe(
    make_probe: Callable[[], Any],
    open_one: Callable[[], Any],
    close_one: Callable[[Any], object] | None,
    *,
    loop: Any = None,
    reused: bool = False,
) -> None:
    """Check that a probe keeps all promises of `tightship.Probe`. Raises AssertionError if not.

    The promises: it is quiet when nothing happens; it sees exactly one when one is opened, and
    something makes the watch look for it (its tick moves, or the window lists it); the label is
    the same for two alike; it sees the close; what is opened next is new, whatever number or
    address it gets; it keeps nothing alive; looking has no side effects; everything it tells can
    be asked of the living and of the dead; a tick lists nothing.

    Call it where Tightship itself is not watching (``@pytest.mark.tightship(enabled=False)``):
    it plants survivors and enters the probe's patches by itself.

    Args:
        make_probe: the class, or anything that returns a new probe.
        open_one: opens one resource and returns its object (or number). Called several times,
            also while another one is open; those must be alike, so that they have one label.
        close_one: closes what ``open_one`` returned, for good: a thread is joined, a process
            waited for. None for kinds that record events, which are dropped with ``forget``.
        loop: for probes of scope ``loop``, an open event loop that isn't running. ``open_one``
            and ``close_one`` may run it; the probe may not.
        reused: True if the kernel itself gives a new resource the very identity of the last
            one, so that no probe could tell them apart.
    """
    kind = getattr(make_probe, "kind", "?")
    faults: list[str] = []
    patch = Patcher(lambda part, exc: faults.append(f"{part}: {exc!r}"))
    owner = Owner("check_probe", "block", "block")
    token = CURRENT.set(owner)
    kept_table = TABLE.tick() != -1  # a closed table opens itself and says so
    check: _Check | None = None
    try:
        probe = make_probe()
        missing = [n for n in _REQUIRED if not hasattr(probe, n)]
        _expect(not missing, f"probe {probe!r} has no {', '.join(missing)}")
        kind = probe.kind
        patch.where = kind
        probe.install(patch)
        check = _Check(probe, loop, open_one, close_one, owner, reused)
        check.run()
        _expect(not faults, f"{kind}: the probe's patches failed: {'; '.join(faults)}")
    finally:
        if check is not None:
            check.clean()
            close = getattr(check.probe, "close", None)
            if close is not None:
                close()
        patch.undo()
        CURRENT.reset(token)
        if not kept_table:
            TABLE.close()


class _Check:
    """One run of the suite."""

    def __init__(
        self,
        probe: Any,
        loop: Any,
        open_one: Callable[[], Any],
        close_one: Callable[[Any], object] | None,
        owner: Owner,
        reused: bool,
    ):
        self.probe = probe
        self.loop = loop
        self.make = open_one
        self.end = close_one
        self.owner = owner
        self.reused = reused
        self.left: list[tuple[Any, Key]] = []
        self._types: dict[str, type] = {}
        gc.collect()
        resolve(probe.types, self._types)
        # By address: what is older than this check is nobody's concern here.
        self._older = {id(o) for found in self._listed().values() for o in found}

    def run(self) -> None:
        """Go through all promises, the simple ones first."""
        kind = self.probe.kind
        idle = self.quiet()
        tick = self.tick()
        first, key, handle = self.opened(idle, "one was opened")
        self.noticed(tick)
        self.living(handle)
        label = self.probe.label(handle)
        _expect(isinstance(label, str) and label, f"{kind}: the label {label!r} is no text")
        self.harmless(key, handle)

        # Two alike at the same time: their numbers differ, their labels must not.
        both = self.keys()
        second, other, twin = self.opened(both, "a second one was opened beside the first")
        _expect(
            self.probe.label(twin) == label,
            f"{kind}: the label must be stable, but it was {label!r} for one and "
            f"{self.probe.label(twin)!r} for the next: leave out ids, numbers and random names",
        )
        self.closed(second, other, twin)
        _expect(
            self.probe.alive(handle) and key in self.keys(),
            f"{kind}: closing the second one made the first one vanish",
        )
        self.closed(first, key, handle)
        died = _weak(first)
        del first, second
        gc.collect()
        _expect(
            died is None or died() is None,
            f"{kind}: the probe keeps what it saw alive: {_holders(died)}",
        )
        self.dead(handle)

        again, new, _ = self.opened(self.keys(), "one was opened again after the close")
        _expect(
            self.reused or new != key or not self.probe.alive(handle),
            f"{kind}: the key {key!r} was used twice: the watch would take a new one for an old "
            "one. Add what tells them apart, or make alive() notice",
        )
        self.closed(again, new, None)
        del again
        self.quiet()

    # -- the promises ----------------------------------------------------------------------

    def quiet(self) -> set[Key]:
        """Two looks at an idle process are the same, and so are two ticks."""
        kind = self.probe.kind
        before = self.tick()
        once, twice = self.keys(), self.keys()
        _expect(once == twice, f"{kind}: two snapshots of an idle process differ: {once ^ twice}")
        after = self.tick()
        _expect(
            before == after,
            f"{kind}: the tick of an idle process moved from {before!r} to {after!r}",
        )
        calls = self.calls()
        _expect(
            not calls,
            f"{kind}: tick() calls {', '.join(sorted(calls))}: it has to cost the same "
            "whatever there is; count, don't list",
        )
        return once

    def opened(self, before: set[Key], when: str) -> tuple[Any, Key, Any]:
        """One more is one more key; return the object, the key and the handle."""
        kind = self.probe.kind
        obj = self.make()
        now = self.snapshot()
        new = [k for k in now if k not in before]
        self.left.append((obj, new[0] if new else None))
        _expect(
            len(new) == 1,
            f"{kind}: {when}, but the snapshot has {len(new)} new entries: {new!r}",
        )
        gone = before - set(now)
        _expect(not gone, f"{kind}: {when}, and {gone!r} vanished from the snapshot")
        return obj, new[0], now[new[0]]

    def noticed(self, tick: Hashable) -> None:
        """Something has to make the watch take a closer look."""
        if self.probe.scope == "loop":
            return  # always looked at, just before the loop closes
        listing = getattr(self.probe, "opened", None)
        listed = [o for found in self.objects().values() for o in found]
        _expect(
            self.tick() != tick or (listing is not None and any(map(listing, listed))),
            f"{self.probe.kind}: nothing tells the watch to look: tick() is still {tick!r}, and "
            "the window lists no open object of the types "
            f"{', '.join(self.probe.types) or '(none)'}",
        )

    def living(self, handle: Any) -> None:
        """All questions have answers while it lives."""
        _expect(self.probe.alive(handle), f"{self.probe.kind}: alive() is false for an open one")
        owner = self.probe.owner(handle)
        _expect(
            owner is None or owner is self.owner,
            f"{self.probe.kind}: owner() names {owner}, which made none",
        )
        self.told(handle, "a living")

    def dead(self, handle: Any) -> None:
        """The dead can be asked too: what dies while it is being told of must not fault."""
        _expect(
            self.end is None or not self.probe.alive(handle),
            f"{self.probe.kind}: alive() is true although its object is gone",
        )
        self.told(handle, "a dead")

    def told(self, handle: Any, what: str) -> None:
        """Ask everything there is to ask."""
        kind = self.probe.kind
        for name in ("owner", "made", "label", "covers", "explain"):
            try:
                answer = getattr(self.probe, name)(handle)
                if name == "covers":
                    answer = list(answer)
                    for key in answer:
                        hash(key)
            except Exception as exc:
                raise AssertionError(f"{kind}: {name}() raised {exc!r} for {what} one") from exc
            if name == "label":
                _expect(isinstance(answer, str), f"{kind}: the label of {what} one is {answer!r}")
            if name == "explain":
                _evidence(kind, answer, what)

    def harmless(self, key: Key, handle: Any) -> None:
        """Looking closes nothing and runs nothing."""
        kind = self.probe.kind
        stepped: list[bool] = []
        mark = None
        if self.loop is not None:
            mark = self.loop.call_soon(stepped.append, True)
        first = set(self.keys())
        second = set(self.keys())
        self.tick()
        _expect(not stepped, f"{kind}: snapshot() let the loop run")
        if mark is not None:
            mark.cancel()
        _expect(
            first == second,
            f"{kind}: a second snapshot differs by {first ^ second}: looking has side effects",
        )
        _expect(
            key in second and self.probe.alive(handle),
            f"{kind}: looking made it vanish: a snapshot has to be free of side effects",
        )

    def closed(self, obj: Any, key: Key, handle: Any) -> None:
        """A close is seen at once."""
        kind = self.probe.kind
        self.left = [(o, k) for o, k in self.left if o is not obj or k != key]
        if self.end is None:
            self.probe.forget(key)
        else:
            self.end(obj)
            _expect(
                handle is None or not self.probe.alive(handle),
                f"{kind}: alive() is still true after the close",
            )
        del obj
        _expect(key not in self.keys(), f"{kind}: the snapshot still has {key!r} after the close")
        if handle is not None:
            self.told(handle, "a closed")

    def clean(self) -> None:
        """Close what a failed check left open."""
        for obj, key in self.left:
            try:
                if self.end is not None:
                    self.end(obj)
                else:
                    self.probe.forget(key)
            except Exception:  # the assertion that brought us here says more
                pass
        self.left.clear()

    # -- looking ---------------------------------------------------------------------------

    def tick(self) -> Hashable:
        """Read the tick; it has to be comparable."""
        value: Hashable = self.probe.tick()
        return value

    def calls(self) -> set[str]:
        """Return the listing functions that a tick calls."""
        seen: set[str] = set()

        def hear(frame: Any, event: str, arg: Any) -> None:
            name = arg.__name__ if event == "c_call" else frame.f_code.co_name
            if event in ("call", "c_call") and name in _LISTING:
                seen.add(name)

        before = sys.getprofile()
        sys.setprofile(hear)
        try:
            self.probe.tick()
        finally:
            sys.setprofile(before)
        return seen

    def snapshot(self) -> Mapping[Key, Any]:
        """Take one as the watch would."""
        found: Mapping[Key, Any] = self.probe.snapshot(Scene(self.objects(), self.loop))
        return found

    def keys(self) -> set[Key]:
        """Return the keys of a snapshot."""
        return set(self.snapshot())

    def objects(self) -> dict[type, list[Any]]:
        """Return what the window would list: objects of the wanted types born in this check."""
        return {
            kind: young
            for kind, found in self._listed().items()
            if (young := [o for o in found if id(o) not in self._older])
        }

    def _listed(self) -> dict[type, list[Any]]:
        resolve(self.probe.types, self._types)
        wanted = tuple(self._types.values())
        found: dict[type, list[Any]] = {}
        if wanted:
            for obj in gc.get_objects():
                kind = type(obj)
                if issubclass(kind, wanted):
                    base = next(t for t in kind.__mro__ if t in wanted)
                    found.setdefault(base, []).append(obj)
        return found


def _evidence(kind: str, evidence: object, what: str) -> None:
    _expect(
        isinstance(evidence, Evidence),
        f"{kind}: explain() of {what} one returned {evidence!r}, not Evidence",
    )
    assert isinstance(evidence, Evidence)
    _expect(
        isinstance(evidence.subject, str) and evidence.subject.strip(),
        f"{kind}: the evidence of {what} one has no subject",
    )
    facts: Iterable[Any] = evidence.facts
    wrong = [f for f in facts if len(f) != 2 or not all(isinstance(x, str) for x in f)]
    _expect(not wrong, f"{kind}: facts have to be pairs of text, not {wrong!r}")


def _expect(condition: object, message: str) -> None:
    # Not an assert statement: this has to hold under ``python -O`` too.
    if not condition:
        raise AssertionError(message)


def _weak(obj: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(obj)
    except TypeError:
        return None


def _holders(ref: weakref.ref[Any] | None) -> str:
    obj = ref() if ref is not None else None
    names = {type(h).__name__ for h in gc.get_referrers(obj)} - {"frame"} if obj is not None else ()
    return "held by " + (", ".join(sorted(names)) or "something the collector cannot see")

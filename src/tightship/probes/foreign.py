"""Probes of other packages: loaded through an entry point, every answer of theirs checked.

What a foreign probe says wrong is an error of that probe alone: it is switched off and named
once; nothing it returns reaches the rest of Tightship unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

from ..model import Evidence, Key, Owner, Scene, Site
from .base import BaseProbe

__all__ = ["GROUP", "ForeignProbe", "load_all"]

#: The entry point group.
GROUP = "tightship.probes"

_NEEDED = ("kind", "scope", "snapshot", "label", "explain")
_TICKS = (int, float, str, bytes, tuple, type(None))


class ForeignProbe(BaseProbe):
    """Asks another package's probe, and believes nothing.

    Args:
        probe: the probe.
        taken: kinds that exist already.

    Raises:
        TypeError: if it isn't a probe.
    """

    def __init__(self, probe: Any, taken: Collection[str]) -> None:
        missing = [n for n in _NEEDED if not hasattr(probe, n)]
        if missing:
            raise TypeError(f"it has no {', '.join(missing)}")
        kind, scope, types = probe.kind, probe.scope, getattr(probe, "types", ())
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", kind):
            raise TypeError(f"its kind has to be a word such as 'my-pool', not {kind!r}")
        if kind in taken:
            raise TypeError(f"kind {kind!r} exists already")
        if scope not in ("loop", "process"):
            raise TypeError(f"its scope has to be 'loop' or 'process', not {scope!r}")
        if not isinstance(types, tuple) or not all(isinstance(t, str) and ":" in t for t in types):
            raise TypeError(f"its types have to be a tuple of 'module:Class', not {types!r}")
        self._probe = probe
        # Facts of the class, for others; of the instance, here.
        self.kind, self.scope, self.types = kind, scope, types  # type: ignore[misc]
        if hasattr(probe, "doubt"):
            self.doubt = lambda handle: str(probe.doubt(handle) or "")  # type: ignore[method-assign]
        for name in ("opened", "proves"):
            if hasattr(probe, name):
                setattr(self, name, self._truth(getattr(probe, name)))
        forget = getattr(type(probe), "forget", None)
        if forget is not None and forget is not BaseProbe.forget:
            self.__class__ = _ForeignEvents

    def _call(self, name: str, *args: Any) -> Any:
        call = getattr(self._probe, name, None)
        if call is None:
            return getattr(super(), name)(*args)
        try:
            return call(*args)
        except SystemExit as exc:
            raise RuntimeError(f"{name}() called sys.exit") from exc

    def _truth(self, call: Any) -> Any:
        return lambda handle: bool(call(handle))

    def _wrong(self, name: str, wanted: str, value: object) -> TypeError:
        return TypeError(f"{name}() has to return {wanted}, not {type(value).__name__}")

    def install(self, patch: Any) -> None:
        """Let it patch what it needs."""
        self._call("install", patch)

    def close(self) -> None:
        """Let it release what it keeps."""
        if hasattr(self._probe, "close"):
            self._call("close")

    def tick(self) -> Hashable:
        """Return its counter."""
        value = self._call("tick")
        if not isinstance(value, _TICKS):
            raise self._wrong("tick", "a number, a string or a tuple of such", value)
        hash(value)
        return value

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return what it lists."""
        value = self._call("snapshot", scene)
        if not isinstance(value, Mapping):
            raise self._wrong("snapshot", "a mapping of key to handle", value)
        return {(self.kind, key): handle for key, handle in value.items()}

    def alive(self, handle: Any) -> bool:
        """Ask it."""
        return bool(self._call("alive", handle))

    def owner(self, handle: Any) -> Owner | None:
        """Ask it."""
        value = self._call("owner", handle)
        if value is not None and not isinstance(value, Owner):
            raise self._wrong("owner", "a tightship Owner or None", value)
        return value

    def made(self, handle: Any) -> Any:
        """Ask it; a raw site is a tuple of (code, offset) pairs."""
        value = self._call("made", handle)
        if value is not None and not (
            isinstance(value, tuple)
            and all(type(p) is tuple and len(p) == 2 and hasattr(p[0], "co_code") for p in value)
        ):
            raise self._wrong("made", "a raw birth site or None", value)
        return value

    def label(self, handle: Any) -> str:
        """Ask it."""
        value = self._call("label", handle)
        if not isinstance(value, str):
            raise self._wrong("label", "a string", value)
        return value

    def covers(self, handle: Any) -> Iterable[Key]:
        """Ask it."""
        keys = list(self._call("covers", handle))
        for key in keys:
            hash(key)
        return keys

    def explain(self, handle: Any) -> Evidence:
        """Ask it."""
        value = self._call("explain", handle)
        if not isinstance(value, Evidence) or not isinstance(value.subject, str):
            raise self._wrong("explain", "Evidence with a subject", value)
        if value.made is not None and not isinstance(value.made, Site):
            raise self._wrong("explain", "Evidence whose 'made' is a Site or None", value)
        facts = [(str(name), str(text)) for name, text in value.facts]
        return Evidence(value.subject, facts, str(value.fix), value.made)


class _ForeignEvents(ForeignProbe):
    """A foreign probe that records events."""

    def forget(self, key: Key) -> None:
        """Drop an event that has been judged."""
        self._call("forget", key[1])  # type: ignore[index]


def load_all(taken: Collection[str]) -> tuple[list[ForeignProbe], dict[str, str]]:
    """Load the probes of all installed packages; return them, and what went wrong by name."""
    from importlib.metadata import entry_points

    found: list[ForeignProbe] = []
    broken: dict[str, str] = {}
    kinds = set(taken)
    for point in entry_points(group=GROUP):
        try:
            probe = ForeignProbe(point.load()(), kinds)
        except (Exception, SystemExit) as exc:
            broken[f"probe {point.name}"] = f"{type(exc).__name__}: {exc}"
        else:
            kinds.add(probe.kind)
            found.append(probe)
    return found, broken

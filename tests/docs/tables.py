"""The tables of the reference that are made from the code.

``python tests/docs/tables.py`` writes them anew; a test tells when that is due. In a page, a
table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tightship.budget import DEFAULTS, PHASES
from tightship.config import MARKER, OPTIONS, Config
from tightship.explain.remedies import REMEDIES
from tightship.known import KNOWN, Known
from tightship.plugin import pytest_addoption
from tightship.probes import KINDS, LOOP

__all__ = ["TABLES", "refreshed", "tables_of"]

_TABLE = re.compile(r"<!-- table: ([\w-]+) -->\n(.*?)<!-- end -->", re.S)


def kinds() -> str:
    """Each kind, when it is judged, and its remedy."""
    return _table(
        ("Kind", "Last look", "Remedy"),
        (
            (
                f"[`{kind}`](#{kind})",
                "before its loop closes" if kind in LOOP else "after the teardown",
                _text(REMEDIES[kind]),
            )
            for kind in KINDS
        ),
    )


#: Settings of single kinds and phases, and the marker's word for them.
_SINGLE = {"thresholds": "threshold", "timeouts": "timeout"}


def options() -> str:
    """Each setting and the places where it can be set."""
    flags = _flags()
    # Without those that are empty mappings: a table says nothing of them.
    defaults = {k: v for k, v in Config._field_defaults.items() if not isinstance(v, Mapping)}
    return _table(
        ("Key", "Environment", "Command line", "Marker", "Default", "Meaning"),
        (
            (
                f"`{o.key}`",
                f"`{o.env}`" if o.env else "-",
                _code(flags.get(o.key)),
                f"`{_SINGLE.get(o.key, o.key)}`" if _SINGLE.get(o.key, o.key) in MARKER else "-",
                _default(o.key, defaults),
                _text(o.meaning),
            )
            for o in OPTIONS
        ),
    )


def marker() -> str:
    """The marker's keywords."""
    return _table(
        ("Keyword", "Meaning"), ((f"`{word}`", _text(text)) for word, text in MARKER.items())
    )


def known() -> str:
    """What is allowed without anybody asking."""
    return _table(
        ("What", "Why", "Only if"),
        ((f"`{_text(k.kind)}:{_text(k.label)}`", _text(k.reason), _conditions(k)) for k in KNOWN),
    )


TABLES: dict[str, Callable[[], str]] = {
    "kinds": kinds,
    "options": options,
    "marker": marker,
    "known": known,
}


class _Parser:
    """Takes the place of pytest's parser and remembers what it is told."""

    def __init__(self) -> None:
        self.flags: dict[str, str] = {}

    def getgroup(self, *_: Any) -> _Parser:
        return self

    def addoption(self, flag: str, **how: Any) -> None:
        value = how.get("metavar") or "|".join(how.get("choices", ()))
        key = how["dest"].removeprefix("tightship_")
        self.flags[key] = f"{flag}={value}" if value else flag


def _flags() -> dict[str, str]:
    parser = _Parser()
    pytest_addoption(parser)  # type: ignore[arg-type]
    # The option for the general threshold takes those of single kinds as well.
    parser.flags["thresholds"] = parser.flags["threshold"]
    parser.flags["timeouts"] = parser.flags["timeout"]
    return parser.flags


def _limits() -> dict[str, Any]:
    """What holds for time if nobody says otherwise."""
    phases = {phase: seconds for phase, (seconds, _) in PHASES.items() if seconds is not None}
    return {
        "timeout": f"{phases.pop('test'):g}",
        "timeouts": ", ".join(f"{phase} = {seconds:g}" for phase, seconds in phases.items()),
        "budgets": ", ".join(f"{name} = {seconds:g}" for name, seconds in DEFAULTS.items()),
        "timeout_scale": "1",
    }


def _default(key: str, defaults: dict[str, Any]) -> str:
    limit = _limits().get(key)
    if limit is not None:
        return f"`{limit}`"
    value = defaults.get(key)
    if value is None or value == ():
        return "none"
    shown = str(value).lower() if isinstance(value, bool) else value
    return f'`"{shown}"`' if isinstance(value, str) else f"`{shown}`"


def _conditions(entry: Known) -> str:
    parts = []
    if entry.module:
        parts.append(f"`{entry.module}` is imported")
    if entry.made:
        parts.append(f"made in `{_text(entry.made)}`")
    if entry.running:
        parts.append("its stack begins in the library's own code")
    if entry.command:
        parts.append(f"its command is `{_text(entry.command)}`")
    if entry.unseen:
        parts.append("no Python code made it")
    if entry.count:
        parts.append(f"at most {entry.count} in a process")
    return "; ".join(parts) or "-"


def _code(text: str | None) -> str:
    return f"`{_text(text)}`" if text else "-"


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tables_of(page: Path) -> list[tuple[str, str]]:
    """Return (name, text) of the tables in a page."""
    return _TABLE.findall(page.read_text("utf-8"))


def refreshed(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return _TABLE.sub(lambda m: f"<!-- table: {m[1]} -->\n{TABLES[m[1]]()}<!-- end -->", text)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(Path(__file__).parents[2].glob("docs/**/*.md"))):
        path.write_text(refreshed(path.read_text("utf-8")), "utf-8")

"""Allow rules: what may be left behind and why; and the checks that single values go through."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import Literal

from .suggest import unknown

__all__ = [
    "THRESHOLDS",
    "AllowRule",
    "ConfigError",
    "Threshold",
    "label_matches",
    "make_rule",
    "parse_selector",
]

Threshold = Literal["off", "proven", "strong", "possible"]

#: The least certainty that fails a test, from the most lenient to the strictest.
THRESHOLDS: tuple[Threshold, ...] = ("off", "proven", "strong", "possible")


class ConfigError(ValueError):
    """A setting is wrong. The message is for the user and complete on its own."""


@dataclass(frozen=True, slots=True)
class AllowRule:
    """One thing that may be left behind, and why."""

    kind: str
    """A kind, or ``*`` for all of them."""
    label: str
    """Pattern for a finding's label (`fnmatch`, case matters)."""
    reason: str
    until: date | None = None
    """The last day on which it holds."""
    tests: tuple[str, ...] = ()
    """Patterns for node ids; empty for all tests."""
    count: int | None = None
    """At most that many findings in one test; None for any number."""
    where: str = ""
    """The place it came from."""
    expired: bool = False
    """True if ``until`` had passed when it was read: it allows nothing any more."""

    @property
    def selector(self) -> str:
        """``kind:label``, as it is written."""
        return f"{self.kind}:{self.label}"

    @property
    def key(self) -> str:
        """The whole rule as JSON text: names it in another process too."""
        until = self.until.isoformat() if self.until else None
        return json.dumps(
            [
                self.kind,
                self.label,
                self.reason,
                until,
                list(self.tests),
                self.count,
                self.where,
                self.expired,
            ]
        )

    @classmethod
    def from_key(cls, key: str) -> AllowRule:
        """Read back what `key` wrote. Raises ValueError on other text."""
        kind, label, reason, until, tests, count, where, expired = json.loads(key)
        day = date.fromisoformat(until) if until else None
        return cls(kind, label, reason, day, tuple(tests), count, where, expired)

    def covers(self, kind: str, label: str, *nodeids: str) -> bool:
        """Tell whether it speaks of such a finding in one of these tests."""
        if self.kind not in ("*", kind) or not label_matches(self.label, label):
            return False
        return not self.tests or any(_in_test(p, n) for p in self.tests for n in nodeids)


def label_matches(pattern: str, label: str) -> bool:
    """Tell whether a pattern means this label.

    The part behind the last dot will do: ``poll`` and ``poll*`` match
    ``test_x.<locals>.poll``.
    """
    # Equality first: a label may itself hold ``*`` or ``[``, and what a report prints has to
    # work when it is pasted.
    for text in (label, label.rpartition(".")[2]):
        if pattern == text or (text and fnmatchcase(text, pattern)):
            return True
    return False


def _in_test(pattern: str, nodeid: str) -> bool:
    """Match a node id, or a file, class or test that it lies in, as pytest's own arguments do."""
    head, at, group = nodeid.rpartition("@")
    if at and not any(c in group for c in "[]/:"):
        nodeid = head  # pytest-xdist's group
    if pattern == nodeid or fnmatchcase(nodeid, pattern):
        return True
    return nodeid.startswith((pattern + "::", pattern + "[", pattern.rstrip("/") + "/"))


# -- single values: what is read, and what it may be -------------------------------------


def wrong(where: str, wanted: str, value: object) -> ConfigError:
    return ConfigError(f"{where}: expected {wanted}, got {value!r} ({type(value).__name__})")


def bool_value(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong(where, "true or false", value)


def number_value(value: object, where: str) -> float:
    # A bool is an int to Python, but nobody means one second by ``true``.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0:
            return number
    raise wrong(where, "a number of seconds, 0 or more", value)


def factor_value(value: object, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number > 0:
            return number
    raise wrong(where, "a factor, more than 0", value)


def count_value(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise wrong(where, "a whole number, 1 or more", value)


#: What becomes of calls that hold a loop. ``collect`` lists them all at the end of the run.
BLOCKED = ("off", "note", "fail", "collect")


def blocked_value(value: object, where: str) -> str:
    if isinstance(value, str) and value in BLOCKED:
        return value
    raise wrong(where, f"one of {', '.join(BLOCKED)}", value)


def limit_value(value: object, where: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.01 <= value < math.inf:
        return float(value)
    raise wrong(where, "a number of seconds, 0.01 or more", value)


def limit_text(text: str, where: str) -> float:
    try:
        return limit_value(float(text), where)
    except (ValueError, ConfigError):
        raise wrong(where, "a number of seconds, 0.01 or more", text) from None


def blocked_or_limit(value: object, where: str) -> str | float:
    """Read the marker's word: what becomes of such calls, or from how many seconds on."""
    if value in BLOCKED[:3]:
        return blocked_value(value, where)
    if isinstance(value, (int, float)):
        return limit_value(value, where)
    raise wrong(where, f"one of {', '.join(BLOCKED[:3])}, or a number of seconds", value)


def path_value(value: object, where: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip():
        return value
    raise wrong(where, "the path of a file", value)


def threshold_value(value: object, where: str) -> Threshold:
    if not isinstance(value, str):
        raise wrong(where, f"one of {', '.join(THRESHOLDS)}", value)
    for level in THRESHOLDS:
        if value == level:
            return level
    raise ConfigError(f"{where}: {unknown(value, THRESHOLDS, 'threshold')}")


_TRUE = ("on", "true", "yes", "1")
_FALSE = ("off", "false", "no", "0")


def bool_text(text: str, where: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigError(f"{where}: {unknown(text, (*_TRUE, *_FALSE), 'switch')}")


def number_text(text: str, where: str) -> float:
    try:
        return number_value(float(text), where)
    except (ValueError, ConfigError):
        raise wrong(where, "a number of seconds, 0 or more", text) from None


def factor_text(text: str, where: str) -> float:
    try:
        return factor_value(float(text), where)
    except (ValueError, ConfigError):
        raise wrong(where, "a factor, more than 0", text) from None


def count_text(text: str, where: str) -> int:
    try:
        return count_value(int(text), where)
    except (ValueError, ConfigError):
        raise wrong(where, "a whole number, 1 or more", text) from None


# -- rules -------------------------------------------------------------------------------


def kind_value(word: str, kinds: Collection[str], where: str, extra: tuple[str, ...] = ()) -> str:
    if word not in kinds and word not in extra:
        raise ConfigError(f"{where}: {unknown(word, (*kinds, *extra), 'kind')}")
    return word


def parse_selector(text: object, kinds: Collection[str], where: str) -> tuple[str, str]:
    """Return (kind, label pattern) of ``task:poll_*``; ``task`` alone means ``task:*``.

    Raises:
        ConfigError: if it is not a string, the kind is unknown, or the label is empty.
    """
    if not isinstance(text, str):
        raise wrong(where, "'kind:label'", text)
    kind, colon, label = (part.strip() for part in text.partition(":"))
    kind_value(kind, kinds, where, ("*",))
    if colon and not label:
        raise ConfigError(f"{where}: {text!r} has no label; write '{kind}:*' for all of them")
    return kind, label or "*"


def _until(value: object, where: str) -> date:
    # A TOML date-time is a date to Python as well; hours would be ignored in silence.
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            pass
    raise wrong(where, "a date as YYYY-MM-DD", value)


def _tests(value: object, where: str) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else value
    listed = tuple(patterns) if isinstance(patterns, (list, tuple)) else ()
    if listed and all(isinstance(p, str) and p.strip() for p in listed):
        return listed
    raise wrong(where, "a node id pattern or a list of them", value)


def make_rule(
    what: object,
    values: Mapping[str, object],
    *,
    kinds: Collection[str],
    where: str,
    today: date,
) -> AllowRule:
    """Build one rule from untrusted values.

    Args:
        what: the selector, ``kind:label``.
        values: any of reason, until, tests, count; reason must be there.
        kinds: every kind there is.
        where: the place it comes from, for messages.
        today: the day on which rules are judged.

    Raises:
        ConfigError: if anything in it is wrong.
    """
    kind, label = parse_selector(what, kinds, where)
    if "reason" not in values:
        raise ConfigError(f"{where}: {what!r} is allowed without a reason; add one")
    reason = values["reason"]
    if not isinstance(reason, str) or not reason.strip():
        raise wrong(f"{where} reason", "a sentence that says why", reason)
    until = _until(values["until"], f"{where} until") if "until" in values else None
    return AllowRule(
        kind,
        label,
        reason.strip(),
        until,
        _tests(values["tests"], f"{where} tests") if "tests" in values else (),
        count_value(values["count"], f"{where} count") if "count" in values else None,
        where,
        expired=until is not None and until < today,
    )

"""Budgets: how long an operation may take, by name, and how near each came to its limit.

Data in, data out: nothing here waits or looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from .rules import ConfigError, wrong
from .suggest import unknown

__all__ = ["DEFAULTS", "PHASES", "Budget", "Budgets", "Statistics", "seconds_value", "summarize"]

#: The budgets that come with the box, in seconds.
DEFAULTS: Mapping[str, float] = MappingProxyType(
    {"admin": 5.0, "http": 10.0, "database": 10.0, "workflow": 15.0, "check": 30.0}
)

#: What a table of timeouts may name, with the seconds that hold if nobody says otherwise
#: (None: no limit), and what it limits.
PHASES: Mapping[str, tuple[float | None, str]] = MappingProxyType(
    {
        "test": (600.0, "set-up and call of a test together; its teardown has as long again"),
        "setup": (None, "the set-up of a test, with all its fixtures"),
        "call": (None, "the test function alone"),
        "teardown": (None, "the teardown of a test, with all its fixtures"),
        "fixture": (None, "one fixture's set-up, and its teardown again"),
        "session": (None, "the whole run"),
        "exit": (60.0, "the end of Python after the last test"),
    }
)


class Budget(NamedTuple):
    """How long something may take."""

    seconds: float
    """The limit that holds, scaled."""
    name: str = ""
    """The budget's name; empty if seconds were given."""
    where: str = ""
    """The place that the value came from."""

    def __str__(self) -> str:
        limit = f"{self.seconds:g} s"
        text = f"budget '{self.name}' of {limit}" if self.name else limit
        return f"{text} ({self.where})" if self.where else text


def seconds_value(value: object, where: str) -> float | None:
    """Check seconds, or ``"off"`` for none. Raises ConfigError."""
    if value == "off" or value is False:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong(where, "seconds, or 'off'", value)
    if not math.isfinite(value) or value <= 0:
        raise wrong(where, "more than 0 seconds, or 'off'", value)
    return float(value)


class Budgets:
    """The budgets of a run.

    Args:
        table: name -> seconds, laid over `DEFAULTS`.
        scale: factor for all limits: 2.0 on a machine that is half as fast.
        places: name -> the place its value came from.
        override: beats every other value for one run, in seconds; it isn't scaled.
    """

    def __init__(
        self,
        table: Mapping[str, float] = MappingProxyType({}),
        scale: float = 1.0,
        places: Mapping[str, str] = MappingProxyType({}),
        override: Budget | None = None,
    ) -> None:
        self.table: dict[str, float] = {**DEFAULTS, **table}
        self.scale = scale
        self.places = places
        self.override = override

    def resolve(self, value: object, where: str) -> Budget | None:
        """Return the budget that a value means: seconds, a budget's name, or "off" for None.

        Raises:
            ConfigError: if it is neither, or no budget has that name.
        """
        if isinstance(value, Budget):
            return value
        if isinstance(value, str) and value != "off":
            if value not in self.table:
                raise ConfigError(f"{where}: {unknown(value, self.table, 'budget')}")
            place = self.places.get(value) or ("built in" if value in DEFAULTS else where)
            return Budget(self.table[value] * self.scale, value, place)
        seconds = seconds_value(value, where)
        return None if seconds is None else Budget(seconds * self.scale, "", where)


class Statistics(NamedTuple):
    """How one budget was used."""

    name: str
    seconds: float
    """The limit."""
    uses: int
    p50: float
    p95: float
    longest: float
    missed: int
    """How many went over it."""
    nearest: str
    """What came nearest to it."""
    suggestion: float | None
    """A better limit in seconds, or None if this one will do or too little is known."""

    @property
    def share(self) -> float:
        """How much of the limit the longest took: 0.8 is four fifths."""
        return self.longest / self.seconds

    def __str__(self) -> str:
        times = "once" if self.uses == 1 else f"{self.uses} times"
        text = (
            f"budget '{self.name}' ({self.seconds:g} s) used {times}: half took up to "
            f"{self.p50:.2g} s, 95 % up to {self.p95:.2g} s, the longest {self.longest:.2g} s = "
            f"{self.share:.0%} of it ({self.nearest})"
        )
        if self.missed:
            text += f"; {self.missed} went over it"
        if self.suggestion is not None:
            text += f"; {self.suggestion:g} s would do"
        return text


#: So many are needed before we speak of a better limit.
_ENOUGH = 5


def summarize(
    uses: Iterable[tuple[str, float, float, str]],
) -> list[Statistics]:
    """Return a record for each budget.

    Args:
        uses: (name, limit in seconds, seconds taken, what took them) for each time.
    """
    grouped: dict[tuple[str, float], list[tuple[float, str]]] = {}
    for name, limit, taken, what in uses:
        grouped.setdefault((name, limit), []).append((taken, what))
    found = []
    for (name, limit), times in sorted(grouped.items()):
        times.sort()
        seconds = [t for t, _ in times]
        longest, nearest = times[-1]
        found.append(
            Statistics(
                name,
                limit,
                len(times),
                _percentile(seconds, 0.50),
                _percentile(seconds, 0.95),
                longest,
                sum(t >= limit for t in seconds),
                nearest,
                _suggest(limit, seconds),
            )
        )
    return found


def _percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that this share of all do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _suggest(limit: float, ordered: list[float]) -> float | None:
    """Three times the longest is far from flaking, and near enough to end a hang soon."""
    if len(ordered) < _ENOUGH or ordered[-1] >= limit:
        return None
    better = _round_up(max(3 * ordered[-1], 0.5))
    if ordered[-1] > 0.7 * limit or better <= limit / 2:
        return better
    return None


def _round_up(seconds: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten: limits are for people."""
    power = 10.0 ** math.floor(math.log10(seconds))
    for step in (1, 2, 5, 10):
        if seconds <= step * power * (1 + 1e-9):
            return round(step * power, 6)
    raise AssertionError(seconds)

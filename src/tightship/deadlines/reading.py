"""Reading a deadline: what may be given to functions that take one."""

from __future__ import annotations

import datetime
import math

from .current import BUDGETS

__all__ = ["optional_seconds", "seconds"]


def seconds(value: object, where: str) -> float:
    """Return a deadline in seconds.

    Args:
        value: a number of seconds, 0 or more, a `datetime.timedelta`, or the name of a budget.
        where: what it was given to, for the message: ``"close_all() timeout"``.

    Raises:
        TypeError: if it is something else, None included.
        ValueError: if it is negative or not finite, or no budget has that name.
    """
    if isinstance(value, str):
        budget = BUDGETS[0].resolve(value, where)
        if budget is None:
            raise ValueError(f"{where}: 'off' limits nothing; leave it out")
        return budget.seconds
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    # A bool is an int to Python, but nobody means one second by True.
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{where}: expected a number of seconds, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{where}: expected seconds, 0 or more and not endless, got {value!r}")
    return number


def optional_seconds(value: object, where: str) -> float | None:
    """Return a deadline in seconds, or None for no deadline. Raises as `seconds` does."""
    return None if value is None else seconds(value, where)

"""Exit statuses of our own."""

from __future__ import annotations

__all__ = ["STATUS"]

#: Of a process that only its end could free of a hang.
STATUS = 97

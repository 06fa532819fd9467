"""Tightship: every test leaves the ship as it found it.

The public face. Everything is loaded when it is first used, so that importing this costs
next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks import LeakError, no_leaks
    from .cancellation import CancelReport, ResistedError, cancel_and_wait
    from .closing import Cleanup, CloseReport, close_all
    from .concurrency import Operation, Outcome, Progress, run_concurrently
    from .deadlines import TightshipTimeout, timeout
    from .model import Certainty, Evidence, Finding, Owner, Probe, Scene, Site, Verdict
    from .probes.base import BaseProbe, ObjectProbe
    from .runtimes.cancels import trace_cancels

__all__ = [
    "BaseProbe",
    "CancelReport",
    "Certainty",
    "Cleanup",
    "CloseReport",
    "Evidence",
    "Finding",
    "LeakError",
    "ObjectProbe",
    "Operation",
    "Outcome",
    "Owner",
    "Probe",
    "Progress",
    "ResistedError",
    "Scene",
    "Site",
    "TightshipTimeout",
    "Verdict",
    "__version__",
    "cancel_and_wait",
    "close_all",
    "no_leaks",
    "run_concurrently",
    "timeout",
    "trace_cancels",
]

__version__ = "0.1.0"

_HOME = {
    "no_leaks": "blocks",
    "LeakError": "blocks",
    "TightshipTimeout": "deadlines",
    "timeout": "deadlines",
    **dict.fromkeys(("CancelReport", "ResistedError", "cancel_and_wait"), "cancellation"),
    **dict.fromkeys(("Cleanup", "CloseReport", "close_all"), "closing"),
    **dict.fromkeys(("Operation", "Outcome", "Progress", "run_concurrently"), "concurrency"),
    "trace_cancels": "runtimes.cancels",
    "BaseProbe": "probes.base",
    "ObjectProbe": "probes.base",
    **dict.fromkeys(
        ("Certainty", "Evidence", "Finding", "Owner", "Probe", "Scene", "Site", "Verdict"), "model"
    ),
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'tightship' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"tightship.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Tightship: every test leaves the ship as it found it.

The public face. Everything is loaded when it is first used, so that importing this costs
next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks import LeakError, no_leaks
    from .deadlines import TightshipTimeout, timeout
    from .model import Certainty, Evidence, Finding, Owner, Probe, Scene, Site, Verdict
    from .probes.base import BaseProbe, ObjectProbe

__all__ = [
    "BaseProbe",
    "Certainty",
    "Evidence",
    "Finding",
    "LeakError",
    "ObjectProbe",
    "Owner",
    "Probe",
    "Scene",
    "Site",
    "TightshipTimeout",
    "Verdict",
    "__version__",
    "no_leaks",
    "timeout",
]

__version__ = "0.1.0"

_HOME = {
    "no_leaks": "blocks",
    "LeakError": "blocks",
    "TightshipTimeout": "deadlines",
    "timeout": "deadlines",
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

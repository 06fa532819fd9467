"""Async generators that were begun, but neither finished nor closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..model import Evidence, Key, Scene
from ..origin import site_at
from .base import BaseProbe, target, weak

__all__ = ["AsyncGeneratorProbe"]


class AsyncGeneratorProbe(BaseProbe):
    """A suspended async generator that the loop would have to close."""

    kind: ClassVar[str] = "asyncgen"
    scope: ClassVar[Literal["loop", "process"]] = "loop"
    # Only so that a fixture's own generator is known to be the fixture's.
    types: ClassVar[tuple[str, ...]] = ("types:AsyncGeneratorType",)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the loop's suspended generators."""
        generators = getattr(scene.loop, "_asyncgens", ())
        return {("object", id(g)): weak(g) for g in list(generators) if _suspended(g)}

    def alive(self, handle: Any) -> bool:
        """Tell whether it is still suspended."""
        generator = target(handle)
        return generator is not None and _suspended(generator)

    def label(self, handle: Any) -> str:
        """Return the generator's qualified name."""
        return str(getattr(target(handle), "__qualname__", "?"))

    def explain(self, handle: Any) -> Evidence:
        """Say where it stands still."""
        generator = target(handle)
        if generator is None:
            return Evidence("an async generator that is gone")
        name = self.label(handle).rpartition(".<locals>.")[2]
        code = generator.ag_code
        evidence = Evidence(f"async generator {name!r}")
        frame = generator.ag_frame
        if frame is not None and frame.f_lineno:
            evidence.facts.append(("stopped", str(site_at(code.co_filename, frame.f_lineno))))
        evidence.facts.append(("defined", str(site_at(code.co_filename, code.co_firstlineno))))
        return evidence


def _suspended(generator: Any) -> bool:
    frame = generator.ag_frame
    return frame is not None and not generator.ag_running and frame.f_lasti >= 0

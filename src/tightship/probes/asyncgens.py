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

    def doubt(self, handle: Any) -> str:
        """Doubt a generator that stands in no ``try`` and no ``with``: it holds nothing.

        Whoever closes it, the loop or the collector, runs no line of it any more.
        """
        generator = target(handle)
        if generator is None or _guarded(generator):
            return ""
        return "it stands in no try or with block: there is nothing that closing it would release"

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


def _guarded(generator: Any) -> bool:
    """Tell whether closing a suspended generator would run code of its own."""
    import dis

    frame, code = generator.ag_frame, generator.ag_code
    if frame is None:
        return False
    begins = {i.offset: i.opname for i in dis.get_instructions(code)}
    # Handlers of `try` and `with` begin by saving the exception; those that the compiler adds
    # for `await`, `async for` and for every generator begin otherwise.
    return any(
        entry.start <= frame.f_lasti < entry.end and begins.get(entry.target) == "PUSH_EXC_INFO"
        for entry in dis._parse_exception_table(code)  # type: ignore[attr-defined]
    )

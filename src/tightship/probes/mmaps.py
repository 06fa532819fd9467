"""Memory maps that were not closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ..model import Evidence, Key
from .base import ObjectProbe, target

__all__ = ["MmapProbe"]


class MmapProbe(ObjectProbe):
    """An open `mmap.mmap`, anonymous or of a file."""

    kind: ClassVar[str] = "mmap"
    types: ClassVar[tuple[str, ...]] = ("mmap:mmap",)

    def opened(self, obj: Any) -> bool:
        """Tell whether it is mapped."""
        return not obj.closed

    def label(self, handle: Any) -> str:
        """All maps are alike."""
        return "mmap"

    def covers(self, handle: Any) -> Iterable[Key]:
        """Its duplicate of the file's descriptor cannot be told from others."""
        return ()

    def explain(self, handle: Any) -> Evidence:
        """Say its size."""
        mapping = target(handle)
        if mapping is None or mapping.closed:
            return Evidence("a memory map that is gone")
        return Evidence("memory map", [("size", f"{len(mapping)} bytes")])

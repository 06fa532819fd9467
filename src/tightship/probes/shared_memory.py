"""Shared memory blocks that are still mapped, or still exist by name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar

from ..ledger import LEDGER
from ..model import Evidence, Key
from .base import ObjectProbe, fd_key, target
from .fdtable import TABLE

__all__ = ["SharedMemoryProbe"]


class SharedMemoryProbe(ObjectProbe):
    """A `multiprocessing.shared_memory.SharedMemory` that is open or not unlinked."""

    kind: ClassVar[str] = "shared-memory"
    types: ClassVar[tuple[str, ...]] = ("multiprocessing.shared_memory:SharedMemory",)

    def install(self, patch: Any) -> None:
        """Note births of blocks."""

        def born(block: Any) -> None:
            LEDGER.note(block, skip=2)

        patch.when_imported(
            "multiprocessing.shared_memory",
            lambda m: patch.after_method(m.SharedMemory, "__init__", born),
        )

    def opened(self, obj: Any) -> bool:
        """Tell whether it is mapped."""
        return getattr(obj, "_buf", None) is not None or getattr(obj, "_mmap", None) is not None

    def covers(self, handle: Any) -> Iterable[Key]:
        """A block takes its mapping and its descriptor along."""
        block = target(handle)
        mapping = getattr(block, "_mmap", None)
        if mapping is not None:
            yield ("object", id(mapping))
        fd = getattr(block, "_fd", -1)
        if isinstance(fd, int) and fd >= 0:
            key = fd_key(fd)
            if key is not None:
                yield key
                # The mapping holds a duplicate of the descriptor.
                yield from (k for k, _, _ in TABLE.entries() if k[2:4] == key[2:4])

    def explain(self, handle: Any) -> Evidence:
        """Say its name and size."""
        block = target(handle)
        if block is None:
            return Evidence("a shared memory block that is gone")
        evidence = Evidence("shared memory")
        evidence.facts.append(("block", f"{block.name}, {block.size} bytes"))
        if os.path.exists(os.path.join("/dev/shm", block._name.lstrip("/"))):
            evidence.facts.append(("name", "still exists: nobody called unlink()"))
        return evidence

"""Memory maps that were not closed."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Iterator
from mmap import PAGESIZE
from typing import Any, ClassVar

from ..explain import fds
from ..ledger import LEDGER
from ..model import Evidence
from ..origin import shorten
from .base import FdKey, ObjectProbe, target
from .fdtable import TABLE

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

    def covers(self, handle: Any) -> Iterable[FdKey]:
        """A map of a file keeps a duplicate of its descriptor, which nobody else made."""
        mapping = target(handle)
        if mapping is None or mapping.closed:
            return
        pages = -(-len(mapping) // PAGESIZE)
        paths = {path for size, path in _mapped() if size == pages * PAGESIZE}
        for key, fd, mode in TABLE.entries():
            if stat.S_ISREG(mode) and LEDGER.of_fd(fd, (key[2], key[3])) is None:
                info = fds.classify(fd)
                if info is not None and info.target in paths:
                    yield key

    def explain(self, handle: Any) -> Evidence:
        """Say its size, and which file it shows."""
        mapping = target(handle)
        if mapping is None or mapping.closed:
            return Evidence("a memory map that is gone")
        evidence = Evidence("memory map", [("size", f"{len(mapping)} bytes")])
        paths = self._paths(handle)
        if paths:
            evidence.facts.append(("maps", " or ".join(sorted(map(shorten, paths)))))
        evidence.facts.append(("origin", "not known: Python tells nobody when one is made"))
        return evidence

    def _paths(self, handle: Any) -> set[str]:
        """Return the files that a map may be of, going by descriptors and sizes."""
        infos = (fds.classify(key[1]) for key in self.covers(handle))
        return {info.target for info in infos if info is not None}


def _mapped() -> Iterator[tuple[int, str]]:
    """Yield (size, path) of what is mapped into this process."""
    try:
        with io.open_code("/proc/self/maps") as file:
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6:
            start, _, end = fields[0].partition("-")
            yield int(end, 16) - int(start, 16), fields[5]

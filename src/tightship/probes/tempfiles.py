"""Temporary files and directories made through `tempfile` that are still on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Scene
from ..origin import capture
from ..ownership import current
from .base import BaseProbe

__all__ = ["ROOTS", "TempfileProbe"]

#: Directories that somebody else empties on purpose (pytest's base directory for tmp_path).
ROOTS: set[str] = set()


class TempfileProbe(BaseProbe):
    """A path that `mkstemp`, `mkdtemp` or an object built on them made."""

    kind: ClassVar[str] = "tempfile"

    def __init__(self) -> None:
        self.tick = LEDGER.happened  # type: ignore[method-assign]
        self._paths: dict[str, Birth] = {}

    def install(self, patch: Any) -> None:
        """Note paths where all of tempfile's functions get theirs."""

        def note(path: object, skip: int = 2) -> None:
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str):
                self._paths[os.path.abspath(path)] = Birth(current(), capture(skip))
                LEDGER.events += 1

        def born_file(result: Any) -> None:
            note(result[1], skip=3)
            # The descriptor and the path have one line of birth.
            LEDGER.note_fd(result[0], skip=2)

        def on_import(module: Any) -> None:
            patch.after_builtin(module, "_mkstemp_inner", born_file)
            patch.after_builtin(module, "mkdtemp", note)

        patch.when_imported("tempfile", on_import)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the paths that are still there; forget the others."""
        found: dict[Key, Any] = {}
        for path in list(self._paths):
            if not os.path.lexists(path) or self._managed(path):
                del self._paths[path]
            else:
                found[("path", path)] = path
        return found

    def _managed(self, path: str) -> bool:
        return any(path.startswith(root + os.sep) for root in ROOTS)

    def alive(self, handle: str) -> bool:
        """Tell whether it is still on the disk."""
        return os.path.lexists(handle)

    def birth(self, handle: str) -> Birth | None:
        """Return what was noted when it was made."""
        return self._paths.get(handle)

    def label(self, handle: str) -> str:
        """Return what the random part of the name leaves."""
        return "directory" if os.path.isdir(handle) else "file"

    def covers(self, handle: str) -> Iterable[Key]:
        """A directory takes what lies in it along."""
        inside = handle + os.sep
        return [("path", p) for p in self._paths if p.startswith(inside)]

    def explain(self, handle: str) -> Evidence:
        """Say the path and what is in it."""
        if os.path.isdir(handle):
            evidence = Evidence("temporary directory")
            try:
                names = sorted(os.listdir(handle))
            except OSError:
                names = []
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            inside = ", ".join(names[:3]) + more
            evidence.facts.append(("path", handle))
            evidence.facts.append(("holds", inside or "nothing"))
            evidence.fix = "use tempfile.TemporaryDirectory() in a with block, or pytest's tmp_path"
        else:
            evidence = Evidence("temporary file")
            evidence.facts.append(("path", handle))
            evidence.fix = "os.unlink it, or use tempfile.NamedTemporaryFile() in a with block"
        return evidence

"""sqlite3 connections that nobody closed, ``:memory:`` ones too."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, ClassVar

from ..ledger import LEDGER
from ..model import Evidence, Key
from ..origin import shorten
from .base import ObjectProbe, target

__all__ = ["SqliteProbe"]


class SqliteProbe(ObjectProbe):
    """An open `sqlite3.Connection`."""

    kind: ClassVar[str] = "sqlite3"
    types: ClassVar[tuple[str, ...]] = ("sqlite3:Connection",)

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}

    def _path(self, connection: Any) -> str:
        return _database(connection) or self._paths.get(id(connection), "")

    def install(self, patch: Any) -> None:
        """Note births through `sqlite3.connect` in both places where it lives."""

        def born(connection: Any) -> None:
            LEDGER.note(connection, skip=2)
            # Only its own thread may ask a connection; ours will be another one.
            if threading.get_ident() != main:
                self._paths[id(connection)] = _database(connection)
            elif self._paths:
                self._paths.pop(id(connection), None)

        main = threading.main_thread().ident

        def on_import(module: Any) -> None:
            patch.after_builtin(module, "connect", born)
            patch.after_builtin(module.dbapi2, "connect", born)

        patch.when_imported("sqlite3", on_import)

    def opened(self, obj: Any) -> bool:
        """Ask for a number that needs the database; another thread's connection counts."""
        try:
            obj.total_changes  # noqa: B018 - asked for its exception
        except Exception as exc:
            return "closed database" not in str(exc) and "__init__" not in str(exc)
        return True

    def label(self, handle: Any) -> str:
        """Return the database's base name."""
        import os

        path = self._path(target(handle))
        return os.path.basename(path) or ":memory:"

    def covers(self, handle: Any) -> Iterable[Key]:
        """A connection takes its database, journal and shared-memory files along."""
        from ..explain import fds
        from .fdtable import TABLE

        path = self._path(target(handle))
        if not path:
            return
        for key, fd, _ in TABLE.entries():
            info = fds.classify(fd)
            if info is not None and info.target.startswith(path):
                yield key

    def explain(self, handle: Any) -> Evidence:
        """Say which file, and whether a transaction is open."""
        connection = target(handle)
        path = self._path(connection)
        evidence = Evidence(f"sqlite3 connection to {shorten(path) if path else ':memory:'}")
        try:
            if connection.in_transaction:
                evidence.facts.append(("transaction", "open: neither committed nor rolled back"))
        except Exception:
            pass
        return evidence


def _database(connection: Any) -> str:
    """Return the main database's path; empty for ``:memory:`` or when it can't be asked."""
    try:
        for _, name, path in connection.execute("PRAGMA database_list"):
            if name == "main":
                return str(path or "")
    except Exception:  # another thread's connection, or a broken file
        return ""
    return ""

"""The journal: one JSON line per test, written at once, so that nothing is lost.

Each line is one `os.write` to a file opened for appending: lines of several processes
(pytest-xdist's workers) do not mix, and a killed process loses at most the line it was
writing. The schema is in the documentation, under *Reference, journal*.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA", "Journal", "JournalError", "read"]

#: Raised by one whenever a reader of the old lines could misread the new ones.
SCHEMA = 1

#: Where the descriptor is kept, so that the lowest free number stays a test's own.
_HIGH = 200

# The originals: tests replace functions of `os`.
_open, _close, _write, _fstat, _getpid = os.open, os.close, os.write, os.fstat, os.getpid


class JournalError(ValueError):
    """The journal cannot be written or read; the message says which file and why."""


class Journal:
    """Appends records to a file.

    Args:
        path: the file; its directory is made if need be.
        fresh: begin anew (the process that owns the run), or add to what is there (a worker).
        own: where the number of the descriptor is noted as long as it is in use.

    Raises:
        JournalError: if the file cannot be opened.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fresh: bool, own: dict[object, int] | None = None
    ) -> None:
        self.path = Path(path)
        self.fd = -1
        self._own = {} if own is None else own
        self._identity = (0, 0)
        self._pid = _getpid()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._reopen(os.O_TRUNC if fresh else 0)
        except OSError as exc:
            raise JournalError(
                f"cannot write the journal {str(self.path)!r}: {exc.strerror}. "
                "Give --tightship-journal a file in a directory that can be written."
            ) from exc

    def _reopen(self, flags: int = 0) -> None:
        fd = _open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o644)
        try:
            import fcntl

            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
            _close(fd)
            fd = high
        except (ImportError, OSError):
            pass
        self.fd = fd
        self._own[self] = fd
        self._identity = self._look()

    def _look(self) -> tuple[int, int]:
        st = _fstat(self.fd)
        return st.st_dev, st.st_ino

    def _is_ours(self) -> bool:
        try:
            return self._look() == self._identity
        except OSError:
            return False

    def write(self, record: dict[str, Any]) -> None:
        """Append one record.

        A descriptor that a test closed, or that means another file by now, is opened anew. In
        a forked child nothing is written: its parent tells of the test.

        Raises:
            OSError: if the line cannot be written as a whole (a full disk).
        """
        if _getpid() != self._pid:
            return
        line = (json.dumps(record, separators=(",", ":"), default=str) + "\n").encode()
        if not self._is_ours():
            self._own.pop(self, None)
            self._reopen()
        if _write(self.fd, line) != len(line):
            raise OSError(errno.ENOSPC, "only a part of a line could be written", str(self.path))

    def close(self) -> None:
        """Close the file; twice is fine."""
        if self.fd >= 0:
            self._own.pop(self, None)
            if self._is_ours():
                _close(self.fd)
            self.fd = -1


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield a journal's records.

    A torn last line (the process was killed while writing it) is left out in silence.

    Raises:
        JournalError: if the file cannot be read, it does not begin as a journal does, a line
            in its middle is no record, or it was written by a newer Tightship.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as exc:
        raise JournalError(f"cannot read the journal {str(path)!r}: {exc.strerror}") from exc
    last = len(lines) - 1
    begun = False
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as exc:
            if number == last and (begun or _BEGINNING.startswith(line[: len(_BEGINNING)])):
                return
            raise _spoilt(path, number, f"this is not JSON ({exc})") from exc
        if not isinstance(record, dict) or not isinstance(record.get("event"), str):
            raise _spoilt(path, number, "a record needs an 'event'")
        if record["event"] == "run":
            schema = record.get("schema")
            if not isinstance(schema, int):
                raise _spoilt(path, number, "a run needs the number of its schema")
            if schema > SCHEMA:
                raise JournalError(
                    f"{path} was written by a newer Tightship (schema {schema}, "
                    f"this one reads {SCHEMA}). Upgrade tightship to read it."
                )
        elif not begun:
            raise _spoilt(path, number, "the first record has to be a 'run'")
        begun = True
        yield record


#: How every journal begins.
_BEGINNING = b'{"event":"run"'


def _spoilt(path: object, number: int, what: str) -> JournalError:
    return JournalError(
        f"{path}, line {number + 1}: {what}. The file is no Tightship journal, or it was edited."
    )

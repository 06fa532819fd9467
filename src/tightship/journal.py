"""The journal: one JSON line per test, written at once, so that nothing is lost.

Each line is one `os.write` to a file opened for appending: lines of several processes
(pytest-xdist's workers) do not mix, and a killed process loses at most the line it was
writing. The schema is in the documentation, under *Reference, journal*.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["SCHEMA", "Journal", "JournalError", "read"]

#: Raised by one whenever a reader of the old lines could misread the new ones.
SCHEMA = 1


class JournalError(ValueError):
    """The journal cannot be written or read; the message says which file and why."""


class Journal:
    """Appends records to a file.

    Args:
        path: the file; its directory is made if need be.
        fresh: begin anew (the process that owns the run), or add to what is there (a worker).

    Raises:
        JournalError: if the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, fresh: bool) -> None:
        self.path = Path(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if fresh:
            flags |= os.O_TRUNC
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.fd = os.open(self.path, flags, 0o644)
        except OSError as exc:
            raise JournalError(
                f"cannot write the journal {str(self.path)!r}: {exc.strerror}. "
                "Give --tightship-journal a file in a directory that can be written."
            ) from exc

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; a full disk or a closed file is the caller's to report (OSError)."""
        line = json.dumps(record, separators=(",", ":"), default=str) + "\n"
        os.write(self.fd, line.encode())

    def close(self) -> None:
        """Close the file; twice is fine."""
        if self.fd >= 0:
            try:
                os.close(self.fd)
            except OSError:
                pass
            self.fd = -1


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield a journal's records.

    A torn last line (the process was killed while writing it) is left out in silence.

    Raises:
        JournalError: if the file cannot be read, a line in its middle is no JSON object, or
            it was written by a newer Tightship.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as exc:
        raise JournalError(f"cannot read the journal {str(path)!r}: {exc.strerror}") from exc
    last = len(lines) - 1
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as exc:
            if number == last:
                return
            raise JournalError(
                f"{path}, line {number + 1}: this is not JSON ({exc}). "
                "The file is no Tightship journal, or it was edited."
            ) from exc
        if not isinstance(record, dict) or "event" not in record:
            raise JournalError(
                f"{path}, line {number + 1}: a record needs an 'event'. "
                "The file is no Tightship journal, or it was edited."
            )
        if record["event"] == "run" and record.get("schema", SCHEMA) > SCHEMA:
            raise JournalError(
                f"{path} was written by a newer Tightship (schema {record['schema']}, "
                f"this one reads {SCHEMA}). Upgrade tightship to read it."
            )
        yield record

from __future__ import annotations

import csv
from pathlib import Path

from stockroom.worker import AuditLog


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row[1:] for row in csv.reader(file)]


def test_events_are_in_the_file_after_flush(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit.csv") as audit:
        audit.write("restocked", "BOLT-8", 5)
        audit.flush()
        assert rows_of(audit.path) == [["restocked", "BOLT-8", "5"]]


def test_close_writes_what_is_left(audit: AuditLog) -> None:
    for quantity in range(100):
        audit.write("restocked", "BOLT-8", quantity)
    audit.close()
    assert len(rows_of(audit.path)) == 100


def test_log_is_appended_to(export_dir: Path) -> None:
    path = export_dir / "audit.csv"
    for event in ("restocked", "rejected"):
        with AuditLog(path) as audit:
            audit.write(event, "BOLT-8", 1)
    assert [row[0] for row in rows_of(path)] == ["restocked", "rejected"]

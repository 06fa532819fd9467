"""Generated suites, run in a process of their own, and what they came to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Ran:
    """What a run came to."""

    text: str
    """Everything it printed."""
    status: int
    path: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    """The journal, if there was one."""

    @property
    def section(self) -> str:
        """Our own section of the summary."""
        match = re.search(r"^=+ tightship =+\n(.*?)(?=^=)", self.text, re.S | re.M)
        return match[1] if match else ""

    @property
    def counts(self) -> dict[str, int]:
        """pytest's closing line as numbers."""
        lines = [x for x in self.text.splitlines() if re.search(r"\bin [0-9.]+s", x)]
        assert lines, self.text
        return {
            re.sub("(error|warning)s$", r"\1", word): int(number)
            for number, word in re.findall(r"(\d+) (\w+)", lines[-1].split(" in ")[0])
        }

    @property
    def tests(self) -> dict[str, dict[str, Any]]:
        """The journal's line of each test, by name."""
        return {r["nodeid"].rpartition("::")[2]: r for r in self.records if r["event"] == "test"}

    @property
    def failed(self) -> set[str]:
        """Names of the tests that have a finding which fails them."""
        return {
            name
            for name, r in self.tests.items()
            if any(f["verdict"] == "fail" for f in r["findings"])
        }

    def verdicts(self, name: str) -> list[tuple[str, str]]:
        """Return (kind, verdict) of each finding of one test."""
        return [(f["kind"], f["verdict"]) for f in self.tests[name]["findings"]]


Suite = Callable[..., Ran]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a function that writes ``test_it.py`` (and other files) and runs pytest on it."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)

    def run(
        source: str = "",
        *args: str,
        status: int | None = None,
        journal: bool = True,
        toml: str = "",
        faults: bool = False,
        **files: str,
    ) -> Ran:
        for name, text in {**({"test_it": source} if source else {}), **files}.items():
            (pytester.path / f"{name}.py").write_text(text, encoding="utf-8")
        pytester.makepyprojecttoml(
            "[tool.pytest.ini_options]\nasyncio_mode = 'auto'\n"
            "asyncio_default_fixture_loop_scope = 'function'\n" + toml
        )
        path = pytester.path / "journal.jsonl"
        extra = [f"--tightship-journal={path}"] if journal else []
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *extra, *args)
        ran = Ran(result.stdout.str() + result.stderr.str(), int(result.ret), pytester.path)
        if journal and path.exists():
            ran.records = [json.loads(x) for x in path.read_text().splitlines()]
        assert "INTERNALERROR" not in ran.text, ran.text
        assert faults or "FAULT Tightship" not in ran.text, ran.text
        if status is not None:
            assert ran.status == status, ran.text
        return ran

    return run

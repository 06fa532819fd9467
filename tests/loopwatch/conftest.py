"""Generated suites, run in a process of their own and judged by their journal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Ran:
    """What a run came to."""

    text: str
    status: int
    held: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By test: the findings of calls that held a loop."""
    outcomes: dict[str, str] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """Tightship's section of the summary."""
        match = re.search(r"^=+ tightship =+\n(.*?)(?=^=|^\d+ passed)", self.text, re.S | re.M)
        return match[1] if match else ""

    def labels(self) -> dict[str, list[str]]:
        """By test: the labels."""
        return {name: [f["label"] for f in found] for name, found in self.held.items()}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Return a function that runs ``test_it.py`` and other files, and tells what was found."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)

    def run(
        source: str,
        *args: str,
        ini: str = "",
        toml: str = "",
        status: int | None = 0,
        faults: bool = False,
        **files: str,
    ) -> Ran:
        for name, text in {"test_it": source, **files}.items():
            (pytester.path / f"{name}.py").write_text(text, encoding="utf-8")
        pytester.makepyprojecttoml(
            "[tool.pytest.ini_options]\nasyncio_mode = 'auto'\n"
            f"asyncio_default_fixture_loop_scope = 'function'\n{ini}\n{toml}"
        )
        path = pytester.path / "journal.jsonl"
        result = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", f"--tightship-journal={path}", *args, timeout=90
        )
        ran = Ran(result.stdout.str() + result.stderr.str(), int(result.ret))
        assert "INTERNALERROR" not in ran.text, ran.text
        assert faults or "FAULT Tightship" not in ran.text, ran.text
        for record in map(json.loads, path.read_text().splitlines()):
            if record["event"] == "test":
                name = record["nodeid"].rpartition("::")[2]
                ran.outcomes[name] = record["outcome"]
                for finding in record["findings"]:
                    if finding["kind"] == "blocked-loop":
                        ran.held.setdefault(name, []).append(finding)
        if status is not None:
            assert ran.status == status, ran.text
        return ran

    return run

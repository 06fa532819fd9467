"""Generated suites, run in a process of their own, and what they came to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
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

    @property
    def outcomes(self) -> dict[str, str]:
        """The journal's outcome of each test, by name."""
        return {name: r["outcome"] for name, r in self.tests.items()}

    def timeout(self, name: str) -> dict[str, Any]:
        """The one timeout of a test, as the journal has it, with its facts as a dict."""
        found = [f for f in self.tests[name]["findings"] if f["kind"] == "timeout"]
        assert len(found) == 1, (name, found, self.text)
        return {**found[0], "facts": dict(found[0]["facts"])}

    def line(self, text: str, file: str = "test_it.py") -> str:
        """Where a pattern stands in a source: ``test_it.py:7``. It must stand there once."""
        lines = (self.path / file).read_text("utf-8").splitlines()
        (number,) = [n for n, line in enumerate(lines, 1) if re.search(text, line)]
        return f"{file}:{number}"

    def verdicts(self, name: str) -> list[tuple[str, str]]:
        """Return (kind, verdict) of each finding of one test."""
        return [(f["kind"], f["verdict"]) for f in self.tests[name]["findings"]]


Suite = Callable[..., Ran]

#: What suites are not to learn of the machine that they run on.
_UNSET = ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST")


def run_suite(
    path: Path,
    source: str = "",
    *args: str,
    status: int | None = None,
    journal: bool = True,
    toml: str = "",
    faults: bool = False,
    python: tuple[str, ...] = (),
    seconds: float = 120.0,
    env: dict[str, str] | None = None,
    **files: str,
) -> Ran:
    """Write ``test_it.py`` (and other files) and run pytest on it, in a process of its own.

    Args:
        path: where.
        source: of ``test_it.py``.
        args: pytest's.
        status: the exit status that it has to have.
        journal: whether to write one.
        toml: more lines for ``pyproject.toml``.
        faults: whether a part of Tightship may fail.
        python: the interpreter's own arguments.
        seconds: longest time; the process is killed then, and the test fails.
        env: more variables.
        files: name -> source.
    """
    for name, text in {**({"test_it": source} if source else {}), **files}.items():
        (path / f"{name}.py").write_text(text, encoding="utf-8")
    (path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\nasyncio_mode = 'auto'\n"
        "asyncio_default_fixture_loop_scope = 'function'\n" + toml
    )
    file = path / "journal.jsonl"
    extra = [f"--tightship-journal={file}"] if journal else []
    base = tempfile.mkdtemp(prefix="runpytest-", dir=path)
    environ = {k: v for k, v in os.environ.items() if k not in _UNSET}
    environ |= {"COLUMNS": "200", "HOME": str(path), **(env or {})}
    paths = [str(path), environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    result = subprocess.run(
        [
            *(sys.executable, *python, "-m", "pytest"),
            *("-p", "no:cacheprovider", f"--basetemp={base}", *extra, *args),
        ],
        cwd=path,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )
    ran = Ran(result.stdout + result.stderr, result.returncode, path)
    if journal and file.exists():
        ran.records = [json.loads(x) for x in file.read_text().splitlines()]
    assert "INTERNALERROR" not in ran.text, ran.text
    assert faults or "FAULT Tightship" not in ran.text, ran.text
    if status is not None:
        assert ran.status == status, ran.text
    return ran


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """Return `run_suite` in a directory of this test's own."""

    def run(source: str = "", *args: str, **options: Any) -> Ran:
        return run_suite(pytester.path, source, *args, **options)

    return run


@pytest.fixture(scope="module")
def suite_once(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """Return `run_suite` for a suite that all tests of a module look at."""

    def run(source: str = "", *args: str, **options: Any) -> Ran:
        return run_suite(tmp_path_factory.mktemp("suite"), source, *args, **options)

    return run

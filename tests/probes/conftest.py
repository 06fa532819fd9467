"""One small suite per kind, run once in a process of its own; its journal is what tests read."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from tightship.model import Finding, Verdict


class Ran:
    """What a suite left behind, as its journal tells."""

    def __init__(self, folder: pathlib.Path, output: str) -> None:
        self.output = output
        self.tests: dict[str, list[Finding]] = {}
        self.outcomes: dict[str, str] = {}
        for line in (folder / "journal.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "test":
                name = event["nodeid"].partition("::")[2]
                self.outcomes[name] = event["outcome"]
                self.tests[name] = [
                    f
                    for f in map(Finding.from_dict, event["findings"])
                    if f.verdict is not Verdict.ALLOWED
                ]

    def one(self, test: str) -> Finding:
        """Return the only finding of a test."""
        told = self.tests[test]
        assert len(told) == 1, f"{test}: {[f.headline for f in told]}\n{self.output}"
        return told[0]

    def silent(self, test: str) -> None:
        """Check that a test was told nothing, and passed."""
        assert [f.headline for f in self.tests[test]] == [], self.output
        assert self.outcomes[test] == "passed"

    def check(self, kind: str, test: str, expected: dict[str, Any]) -> None:
        """Check that a test left one thing behind, and that it is told as expected.

        The line that made it bears the comment ``# born``.
        """
        found = self.one(test)
        told = f"{found}\n{self.output}"
        want = {"certainty": "strong", "count": 1, "owner": test, "born": True} | expected
        assert found.kind == want.get("kind", kind), told
        assert found.label == want["label"], told
        assert str(found.certainty) == want["certainty"], told
        assert found.count == want["count"], told
        assert found.owner == want["owner"], told
        assert found.verdict is (
            Verdict.NOTE if want["certainty"] == "possible" else Verdict.FAIL
        ), told
        if want["born"]:
            assert found.made is not None, told
            assert found.made.file == "test_suite.py", told
            assert "# born" in found.made.source, told
        if "subject" in want:
            assert re.search(want["subject"], found.subject), told
        facts = dict(found.facts)
        for name, pattern in want.get("facts", {}).items():
            assert re.search(pattern, facts.get(name, "")), told
        assert re.search(want.get("fix", "."), found.fix), told
        assert found.allow.count(f'"{kind}:' if "kind" not in want else '"') >= 1


@pytest.fixture(scope="module")
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The module's ``SUITE``, run."""
    module = request.module
    folder = tmp_path_factory.mktemp(module.__name__)
    (folder / "test_suite.py").write_text(module.SUITE)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TIGHTSHIP_"))}
    # Into a file: a child that a suite leaves behind would keep a pipe open.
    with (folder / "output.txt").open("w") as out:
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
                *("--tightship-journal", "journal.jsonl", "--tightship-fail-on-fault"),
                *getattr(module, "FLAGS", ()),
            ],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=30,
            check=False,
        )
    output = (folder / "output.txt").read_text()
    assert "FAULT " not in output, output
    return Ran(folder, output)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give ``leak`` each line of the module's table, ``twin`` each clean test of its suite."""
    if "leak" in metafunc.fixturenames:
        metafunc.parametrize("leak", list(metafunc.module.LEAKS))
    if "twin" in metafunc.fixturenames:
        twins = re.findall(r"def (test_clean_\w+)", metafunc.module.SUITE)
        metafunc.parametrize("twin", twins)

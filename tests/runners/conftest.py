"""One generated suite per runner, run in a process of its own and judged by its journal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tightship.journal import read

#: What the suites share: things that can be left behind.
HARBOUR = '''
import asyncio
import socket

KEPT = []


async def forever():
    await asyncio.Event().wait()


async def hour():
    await asyncio.sleep(3600)


async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()


def start(coro):
    """Start a task that nothing will ever end, kept alive."""
    task = asyncio.get_running_loop().create_task(coro)
    KEPT.append(task)
    return task


async def listen():
    return await asyncio.start_server(echo, "127.0.0.1", 0)


def address(server):
    return server.sockets[0].getsockname()
'''


@dataclass
class Ran:
    """What a suite's run came to."""

    text: str
    """Everything it printed."""
    status: int
    found: dict[str, list[str]] = field(default_factory=dict)
    """By test: ``"kind owner"`` of every failing finding and every note, in order."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """By test: the journal's outcome."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """The journal itself."""

    @property
    def counts(self) -> dict[str, int]:
        """pytest's closing line as numbers."""
        line = [x for x in self.text.splitlines() if re.search(r"\bin [0-9.]+s", x)][-1]
        return {
            re.sub("(error|warning)s$", r"\1", word): int(number)
            for number, word in re.findall(r"(\d+) (\w+)", line.split(" in ")[0])
        }


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Return a function that runs ``files`` (name -> source) and tells what was found."""

    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str, ini: str = "", status: int | None = None, **files: str) -> Ran:
        pytester.makeini(
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n" + ini
        )
        pytester.makepyfile(harbour=HARBOUR)
        pytester.makepyfile(**files)
        journal = pytester.path / "journal.jsonl"
        result = pytester.runpytest_subprocess(
            "-p", "no:cacheprovider", "-rA", f"--tightship-journal={journal}", *args, timeout=60
        )
        text = result.stdout.str() + result.stderr.str()
        assert not re.findall("^FAULT.*|^INTERNALERROR.*", text, re.MULTILINE)
        ran = Ran(text, int(result.ret))
        for record in read(journal):
            ran.records.append(record)
            if record["event"] != "test":
                continue
            name = record["nodeid"].rpartition("::")[2]
            ran.outcomes[name] = record["outcome"]
            for f in record["findings"]:
                if f["verdict"] == "allowed":  # known behaviour of a library
                    continue
                slow = " slow" if f["verdict"] == "slow" else ""
                ran.found.setdefault(name, []).append(f"{f['kind']} {f['owner']}{slow}")
        for found in ran.found.values():
            found.sort()
        if status is not None:
            assert ran.status == status, text
        return ran

    return run

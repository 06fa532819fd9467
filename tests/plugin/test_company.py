"""Rough company: tests that take the process apart, and parts of others that misbehave.

Each suite has to come out as it does without Tightship, and a leak planted after the rough
test has to be found all the same.
"""

from __future__ import annotations

import sys

import pytest

HEAD = """
import asyncio, builtins, gc, os, socket, sys, threading, time, warnings
import pytest

KEPT = []

async def poll():
    await asyncio.sleep(3600)
"""

#: Still seen after whatever happened before: a socket, a task, a thread's worth of trouble.
TAIL = """
def test_z_socket():
    def holds():
        sock = socket.socket()
        while True:
            yield sock
    KEPT.append(os.dup(2))

def test_z_task():
    async def main():
        KEPT.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)
    asyncio.run(main())

def test_z_clean():
    async def main():
        a, b = socket.socketpair()
        with a, b:
            await asyncio.sleep(0)
    asyncio.run(main())
"""

ROUGH = {
    "fork": """
def test_rough():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
""",
    "closerange": """
def test_rough():
    os.closerange(150, 4096)
""",
    "closerange and reuse": """
@pytest.mark.tightship(allow="*:*", reason="not the subject")
def test_rough():
    os.closerange(150, 4096)
    for fd in range(195, 215):
        KEPT.append(os.dup2(2, fd))

def test_rough_after():
    for fd in KEPT:
        os.fstat(fd)
""",
    "closes its loop": """
async def test_rough():
    loop = asyncio.new_event_loop()
    loop.close()

def test_rough_sync():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    loop.close()
""",
    "settrace and setprofile": """
def test_rough():
    sys.settrace(lambda *a: None)
    sys.setprofile(lambda *a: None)
    threading.settrace(lambda *a: None)

def test_rough_after():
    assert sys.gettrace() is not None
    sys.settrace(None)
    sys.setprofile(None)
    threading.settrace(None)
""",
    "own task factory": """
def test_rough():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **k: asyncio.Task(coro, loop=loop, **k))
        await asyncio.create_task(asyncio.sleep(0))
        if hasattr(asyncio, "eager_task_factory"):
            loop.set_task_factory(asyncio.eager_task_factory)
            await asyncio.create_task(asyncio.sleep(0))
            async with asyncio.TaskGroup() as tg:
                tg.create_task(asyncio.sleep(0))
    asyncio.run(main())
""",
    "patches for the test": """
def test_rough(monkeypatch):
    def no(*a, **k):
        raise RuntimeError("not in this test")
    monkeypatch.setattr(socket, "socket", no)
    monkeypatch.setattr(threading, "Thread", no)
    monkeypatch.setattr(builtins, "open", no)
    monkeypatch.setattr(warnings, "showwarning", no)
    for name in ("dup", "pipe", "listdir", "openpty"):
        monkeypatch.setattr(os, name, no)
    monkeypatch.setattr(time, "monotonic", no)
    monkeypatch.setattr(time, "sleep", no)
""",
    "patches for ever": """
def test_rough():
    class Socket(socket.socket):
        pass
    class Thread(threading.Thread):
        pass
    plain = builtins.open
    socket.socket = Socket
    threading.Thread = Thread
    builtins.open = lambda *a, **k: plain(*a, **k)
    warnings.showwarning = lambda *a, **k: None
""",
    "gc": """
def test_rough():
    gc.freeze()

def test_rough_unfreeze():
    gc.unfreeze()
    gc.collect()

def test_rough_disable():
    gc.disable()

def test_rough_is_disabled():
    assert not gc.isenabled()

def test_rough_many():
    KEPT.append([asyncio.Queue() for _ in range(5)])
    for _ in range(25):
        gc.collect()
""",
    "modules": """
def test_rough():
    names = [n for n in sys.modules if n.split(".")[0] in ("asyncio", "socket", "tempfile")]
    saved = {n: sys.modules.pop(n) for n in names}
    import asyncio as again
    again.run(again.sleep(0))
    for n in [n for n in sys.modules if n.split(".")[0] in ("asyncio", "socket", "tempfile")]:
        del sys.modules[n]
    sys.modules.update(saved)
""",
    "exit": """
def test_rough():
    with pytest.raises(SystemExit):
        sys.exit(3)
""",
}


@pytest.mark.parametrize("name", ROUGH)
def test_rough_tests_are_survived_and_what_follows_is_still_watched(suite, name):
    """The rough tests pass, later leaks are found, and no part of ours has failed."""
    ran = suite(HEAD + ROUGH[name] + TAIL, status=1)
    rough = {n for n in ran.tests if n.startswith("test_rough")}
    assert not rough & ran.failed, ran.text
    assert all(ran.tests[n]["outcome"] == "passed" for n in rough), ran.text
    assert ran.failed == {"test_z_socket", "test_z_task"}, ran.text


def test_a_forked_child_that_runs_on_with_pytest_changes_nothing(suite):
    """A child that returns from the test into pytest writes no journal and judges nothing."""
    ran = suite(
        HEAD
        + """
import atexit

def test_fork():
    KEPT.append(os.fork())

def test_after():
    pass

def test_end():
    if KEPT[0] == 0:
        os._exit(0)
    os.waitpid(KEPT[0], 0)
"""
    )
    names = [r["nodeid"] for r in ran.records if r["event"] == "test"]
    assert len(names) == len(set(names)) == 3, ran.text
    assert len({r["pid"] for r in ran.records if r["event"] == "test"}) == 1


def test_a_session_with_closed_standard_streams_ends_as_it_does_bare(suite, pytester):
    """``>&- 2>&-`` changes nothing between a run with and without the plugin."""
    source = HEAD + "\ndef test_a():\n    pass\n\nasync def test_b():\n    await asyncio.sleep(0)\n"
    suite(source, status=0)
    line = f"{sys.executable} -m pytest -p no:cacheprovider {{}} >&- 2>&-"
    bare = pytester.run("sh", "-c", line.format("-p no:tightship")).ret
    assert pytester.run("sh", "-c", line.format("")).ret == bare


def test_interruptions_end_the_run_as_they_do_bare(suite):
    """Ctrl-C in a test, ``pytest.exit`` and ``sys.exit`` keep their meaning."""
    ran = suite(
        HEAD
        + """
def test_exits():
    sys.exit(3)

def test_interrupted():
    async def main():
        KEPT.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)
        raise KeyboardInterrupt
    asyncio.run(main())
""",
        status=2,
    )
    assert "KeyboardInterrupt" in ran.text
    assert ran.tests["test_exits"]["outcome"] == "failed"
    assert ran.records[-1]["event"] == "end"
    suite(HEAD + "\ndef test_a():\n    pytest.exit('enough', 7)\n", status=7)


def test_fixtures_that_end_early_are_judged(suite):
    """After ``-x`` what a wide fixture leaves is told with the test that ended it."""
    ran = suite(
        HEAD
        + """
@pytest.fixture(scope="session")
def wide():
    KEPT.append(os.dup(2))
    yield

def test_a(wide):
    assert 0

def test_b(wide):
    pass
""",
        "-x",
        status=1,
    )
    assert "fixture 'wide' (session)" in ran.section


NESTED = (
    HEAD
    + """
pytest_plugins = ["pytester"]
BARE = "-p", "no:cacheprovider", "-p", "no:rerunfailures"

INNER = '''
import asyncio, os, socket
KEPT = []
def test_inner_clean():
    async def main():
        await asyncio.sleep(0)
    asyncio.run(main())
def test_inner_leak():
    KEPT.append(os.dup(2))
def test_inner_close():
    os.close(KEPT[0])
'''

class Cycle:
    pass

def test_before_and_after(pytester):
    \"\"\"What the outer test makes before, and after, the inner run is the outer test's.\"\"\"
    wrapped = socket.socket.__init__, builtins.open, asyncio.runners._cancel_all_tasks
    first = os.dup(2)
    second = socket.socket()
    pytester.makepyfile(INNER)
    result = pytester.runpytest_inprocess("-p", "no:asyncio", *BARE)
    result.assert_outcomes(passed=3, errors=1)
    assert wrapped == (socket.socket.__init__, builtins.open, asyncio.runners._cancel_all_tasks)
    KEPT.append(os.dup(2))
    os.close(first)
    KEPT.append(lambda: second)

def test_clean(pytester):
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_inprocess(*BARE).assert_outcomes(passed=1)

def test_garbage_before_inner(pytester):
    cycle = Cycle()
    cycle.me, cycle.sock = cycle, socket.socket()
    del cycle
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_inprocess(*BARE)

def test_clean_reruns(pytester):
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)

def test_owned_after_inner(pytester, tightship):
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_inprocess(*BARE)
    sock = socket.socket()
    assert [f.owner for f in tightship.findings if f.kind == "socket"] == ["test_owned_after_inner"]
    sock.close()

def test_import_after_inner(pytester):
    pytester.makepyfile("def test_x(): pass")
    pytester.runpytest_inprocess(*BARE)
    from tightship.births import _FINDER
    assert "uvloop" in sys.modules or "uvloop" in _FINDER._callbacks
"""
)


def test_a_pytest_run_inside_a_test_does_not_disturb_the_one_outside(suite):
    """Patches, births, descriptors, window and owner of the outer run outlive the inner one."""
    ran = suite(NESTED + TAIL, "-p", "no:trio", status=1)
    assert ran.counts["passed"] == 9, ran.text
    leaky = {"test_before_and_after", "test_garbage_before_inner", "test_z_socket", "test_z_task"}
    assert ran.failed == leaky, ran.text
    assert ran.verdicts("test_garbage_before_inner") == [("socket", "fail")], ran.text
    found = ran.tests["test_before_and_after"]["findings"]
    assert "socket" in {f["kind"] for f in found}, ran.text
    assert all(f["made"]["file"] == "test_it.py" for f in found if f["made"]), found


PROBE = """
from tightship.model import Evidence

class Probe:
    kind = "boat"
    scope = "process"
    types = ()
    boats = []
    def tick(self):
        return {tick}
    def snapshot(self, scene):
        return {snapshot}
    def label(self, handle):
        return {label}
    def explain(self, handle):
        return {explain}
    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        from tightship.probes.base import BaseProbe
        return getattr(BaseProbe, name).__get__(self)

class NoProbe:
    kind = "plane"

def broken():
    raise RuntimeError("no boats here")
"""

GOOD = {
    "tick": "len(self.boats)",
    "snapshot": "{b: b for b in self.boats}",
    "label": "str(handle)",
    "explain": "Evidence(f'boat {handle!r}', fix='sink it')",
}

LIES = {
    "tick raises": {"tick": "1 / 0"},
    "tick returns a list": {"tick": "[1]"},
    "tick exits": {"tick": "__import__('sys').exit(3)"},
    "snapshot raises": {"snapshot": "1 / 0"},
    "snapshot returns a list": {"snapshot": "list(self.boats)"},
    "snapshot returns None": {"snapshot": "None"},
    "label raises": {"label": "1 / 0"},
    "label returns a number": {"label": "7"},
    "explain raises": {"explain": "1 / 0"},
    "explain returns text": {"explain": "'boat'"},
}


def package(pytester, name, **code):
    """Install a package with a probe, as pip would leave it on the path."""
    (pytester.path / f"{name}.py").write_text(
        PROBE.replace("{b: b", "{{b: b").format(**{**GOOD, **code})
    )
    info = pytester.path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    return info / "entry_points.txt"


BOATS = """
import os
from harbour import Probe

def test_boat():
    Probe.boats.append("Nina")

def test_fd():
    Probe.boats.append("Pinta")
    Probe.kept = os.dup(2)

def test_clean():
    pass
"""


def test_a_probe_of_another_package_adds_a_kind(suite, pytester, monkeypatch):
    """Its kind is counted in the header, found, configured and allowed like any other."""
    points = package(pytester, "harbour")
    points.write_text("[tightship.probes]\nharbour = harbour:Probe\n")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = suite(BOATS, "--tightship-allow=boat:Pinta=still needed", status=1)
    assert ran.failed == {"test_boat", "test_fd"}, ran.text
    assert ran.verdicts("test_boat") == [("boat", "fail")]
    assert ("boat", "allowed") in ran.verdicts("test_fd")
    assert "boat 'Nina' outlived test_boat" in ran.text


@pytest.mark.parametrize("name", LIES)
def test_a_probe_that_fails_or_lies_is_switched_off_and_named_once(
    suite, pytester, monkeypatch, name
):
    """No outcome changes, the other kinds are still seen, and the part is named once."""
    package(pytester, "harbour", **LIES[name]).write_text(
        "[tightship.probes]\nharbour = harbour:Probe\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = suite(BOATS, "--tightship-allow=boat:*=not the subject", status=1, faults=True)
    assert ran.failed - {"test_boat"} == {"test_fd"}, ran.text
    assert ran.text.count("FAULT Tightship's own part 'boat'") == 1, ran.text
    assert ran.tests["test_clean"]["outcome"] == "passed"


def test_entry_points_that_load_nothing_useful_are_named(suite, pytester, monkeypatch):
    """What cannot be imported, raises when made, or is no probe; a fault can fail the run."""
    package(pytester, "harbour").write_text(
        "[tightship.probes]\na = no_such_module:X\nb = harbour:broken\nc = harbour:NoProbe\n"
        "d = harbour:Probe\ne = harbour:Probe\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    ran = suite("def test_a(): pass\n", faults=True, status=0)
    for part in "abce":
        assert f"'probe {part}'" in ran.section, ran.text
    assert "'probe d'" not in ran.section
    assert "has no scope, snapshot, label, explain" in ran.section
    ran = suite("def test_a(): pass\n", "--tightship-fail-on-fault", faults=True, status=1)
    assert ran.tests["test_a"]["outcome"] == "passed"
    suite("def test_a(): pass\n", "--tightship-fail-on-fault", "-n2", faults=True, status=1)
